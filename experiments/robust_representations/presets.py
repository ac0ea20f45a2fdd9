"""What each preset trains and compares."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.lab import presets

__all__ = ["PRESETS", "Overfitting", "Preset"]


@dataclass(frozen=True)
class Overfitting:
    """A training long enough, on images few enough, for robust overfitting to show."""

    images: int
    epochs: int
    every: int  # epochs between the networks that are kept
    watched: int  # test images evaluated after each epoch


@dataclass(frozen=True, kw_only=True)
class Preset(presets.Preset):
    """Sizes of a run; what is not here is in ``experiments.lab.presets``.

    Attributes:
        kept: Fractions of the training at which networks are kept for question 7.
        widths, depths: Architectures of question 4.
        radii: Multiples of the radius for training, question 5.
        strengths: Multiples of the radius for evaluation, question 2.
        threats: Threat models of question 6, the first being that of all other questions.
        overfitting: Training of question 3.
        measure_images: Images for the measures of question 8: twice the channels must fit into
            three quarters of them.
    """

    kept: tuple[float, ...]
    widths: tuple[str, ...]
    depths: tuple[str, ...]
    radii: tuple[float, ...]
    strengths: tuple[float, ...]
    threats: tuple[str, ...]
    overfitting: Overfitting
    measure_images: int


PRESETS = {
    "smoke": Preset(
        name="smoke",
        dataset="digits",
        architecture="wrn-16-1",
        seeds=(0, 1, 2),
        train_images=600,
        test_images=400,
        epochs=6,
        batch_size=50,
        lr=0.1,
        compare_batch=100,
        kept=(0.0, 1 / 6, 1 / 3, 1 / 2, 2 / 3),
        widths=("wrn-10-1", "wrn-10-2"),
        depths=("wrn-10-1", "wrn-16-1"),
        radii=(0.5, 1.0, 1.5),
        strengths=(0.25, 0.5, 1.0, 1.5),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(images=200, epochs=20, every=2, watched=200),
        measure_images=400,
        minutes=2,
    ),
    "cpu": Preset(
        name="cpu",
        dataset="cifar10",
        architecture="wrn-10-1",
        seeds=(0, 1, 2),
        train_images=2000,
        test_images=1000,
        epochs=8,
        batch_size=50,
        lr=0.1,
        compare_batch=125,
        kept=(0.0, 1 / 8, 1 / 4, 1 / 2, 3 / 4),
        widths=("wrn-10-1", "wrn-10-2"),
        depths=("wrn-10-1", "wrn-16-1"),
        radii=(0.5, 1.0, 2.0),
        strengths=(0.25, 0.5, 1.0, 2.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(images=250, epochs=60, every=6, watched=1000),
        measure_images=1000,
        minutes=60,
    ),
    # 64 x 64 images cost four times as much, and there are 500 of them for testing.
    "cpu-tiny": Preset(
        name="cpu-tiny",
        dataset="tiny-imagenette",
        architecture="wrn-10-1",
        seeds=(0, 1, 2),
        train_images=800,
        test_images=300,
        epochs=8,
        batch_size=50,
        lr=0.1,
        compare_batch=50,
        kept=(0.0, 1 / 8, 1 / 4, 1 / 2, 3 / 4),
        widths=("wrn-10-1", "wrn-10-2"),
        depths=("wrn-10-1", "wrn-16-1"),
        radii=(0.5, 1.0, 2.0),
        strengths=(0.25, 0.5, 1.0, 2.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(images=150, epochs=60, every=6, watched=300),
        measure_images=300,
        minutes=75,
    ),
    "gpu": Preset(
        name="gpu",
        dataset="cifar10",
        architecture="wrn-28-4",
        seeds=(0, 1, 2),
        train_images=None,
        test_images=10_000,
        epochs=30,
        batch_size=128,
        lr=0.1,
        compare_batch=1000,
        kept=(0.0, 1 / 30, 1 / 10, 1 / 3, 2 / 3),
        widths=("wrn-28-1", "wrn-28-2", "wrn-28-4", "wrn-28-10"),
        depths=("wrn-16-4", "wrn-28-4", "wrn-40-4"),
        radii=(0.25, 0.5, 1.0, 2.0),
        strengths=(0.125, 0.25, 0.5, 1.0, 2.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(images=10_000, epochs=100, every=10, watched=2000),
        measure_images=4000,
        minutes=600,
        device="cuda",
        autocast="bfloat16",
        absolute=True,
    ),
    # Half the width of "gpu": question 8 needs more images than twice the channels, and there are
    # 500 for testing.
    "gpu-tiny": Preset(
        name="gpu-tiny",
        dataset="tiny-imagenette",
        architecture="wrn-28-2",
        seeds=(0, 1, 2),
        train_images=None,
        test_images=500,
        epochs=60,
        batch_size=128,
        lr=0.1,
        compare_batch=100,
        kept=(0.0, 1 / 30, 1 / 10, 1 / 3, 2 / 3),
        widths=("wrn-28-1", "wrn-28-2", "wrn-28-4"),
        depths=("wrn-16-2", "wrn-28-2", "wrn-40-2"),
        radii=(0.25, 0.5, 1.0, 2.0),
        strengths=(0.125, 0.25, 0.5, 1.0, 2.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(images=1000, epochs=100, every=10, watched=500),
        measure_images=500,
        minutes=200,
        device="cuda",
        autocast="bfloat16",
    ),
}
