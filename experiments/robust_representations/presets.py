"""What each preset trains and compares."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.lab import presets
from repsim_fast.attacks.autoattack import STANDARD

__all__ = ["PRESETS", "Overfitting", "Preset", "Strongest", "Sweep"]


@dataclass(frozen=True)
class Overfitting:
    """A training long enough, on images few enough, for robust overfitting to show.

    Attributes:
        every: Epochs between the networks that are kept.
        watched: Test images evaluated after each of these.
        batch_size, schedule: Of this training, None for the preset's.
        augmented: Whether the few images are augmented.
    """

    images: int
    epochs: int
    every: int
    watched: int
    batch_size: int | None = None
    schedule: str | None = None
    augmented: bool = True


@dataclass(frozen=True)
class Sweep:
    """Sizes of the trainings of questions 4 to 6, networks of the baseline beside them included."""

    images: int
    epochs: int


@dataclass(frozen=True)
class Strongest:
    """AutoAttack on the first seed's networks, beside the attack that all of them meet.

    Attributes:
        images: Test images that it sees.
        stages, steps: Of ``repsim_fast.attacks.AutoAttack``; two of the stages need a package.
    """

    images: int
    stages: tuple[str, ...] = STANDARD
    steps: int = 100


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
        robust: Method of the robust networks, see ``recipes.Recipe``.
        attack_steps: Of PGD in training, None for the published numbers.
        schedule: Of the learning rate.
        sweep: Smaller trainings for the networks of questions 4 to 6; None for the usual ones.
        measure_images: Images for the measures of question 8: twice the channels must fit into
            three quarters of them.
        strongest: AutoAttack in question 1, if at all.
    """

    kept: tuple[float, ...]
    widths: tuple[str, ...]
    depths: tuple[str, ...]
    radii: tuple[float, ...]
    strengths: tuple[float, ...]
    threats: tuple[str, ...]
    overfitting: Overfitting
    measure_images: int
    robust: str = "adversarial"
    attack_steps: int | None = None
    schedule: str = "cosine"
    sweep: Sweep | None = None
    strongest: Strongest | None = None


PRESETS = {
    # Whether every question runs; networks this small decide none.
    "smoke": Preset(
        name="smoke",
        dataset="digits",
        architecture="wrn-16-1",
        seeds=(0, 1, 2),
        train_images=300,
        test_images=200,
        epochs=4,
        batch_size=50,
        lr=0.1,
        compare_batch=50,
        kept=(0.0, 1 / 4, 1 / 2),
        widths=("wrn-10-1", "wrn-10-2"),
        depths=("wrn-10-1", "wrn-16-1"),
        radii=(0.5, 1.0, 1.5),
        strengths=(0.5, 1.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(images=100, epochs=8, every=2, watched=100),
        measure_images=200,
        minutes=2,
        strongest=Strongest(images=50, stages=("apgd-ce", "apgd-t"), steps=5),
    ),
    "digits": Preset(
        name="digits",
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
        minutes=5,
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
    # Planned for five hours of two cores with AMX, two networks at a time, with 110 s of one core
    # for WRN-16-2 and one pass over all images, 200 s in N-FGSM, 510 s in PGD-5; so
    #   standard and robust, 3 seeds, 20 epochs   3 * 20 * (110 + 200)          = 18,600 s
    #   sweeps, 6 * 12,000 / 50,000 = 1.44 passes 1.44 * (930 + 1,360 + 1,560 + 2,430) = 9,000 s
    #     (3 seeds; widths and depths, 4.4 times the usual pair; radii, PGD, TRADES; 5 threats)
    #   overfitting, 80 * 2,500 / 50,000 passes   4 * 510 + evaluation          = 3,100 s
    #   attacks on 2,000 images for 35 views, CKA                               = 4,000 s
    # are 34,700 of 36,000 core seconds. Both kinds see as many steps, of the schedule and rate
    # that N-FGSM was published with.
    "cpu-full": Preset(
        name="cpu-full",
        dataset="cifar10",
        architecture="wrn-16-2",
        seeds=(0, 1, 2),
        train_images=None,
        test_images=2000,
        epochs=20,
        batch_size=128,
        lr=0.2,
        compare_batch=250,
        kept=(0.0, 1 / 20, 1 / 10, 1 / 4, 1 / 2, 3 / 4),
        widths=("wrn-16-1", "wrn-16-2", "wrn-16-3"),
        depths=("wrn-10-2", "wrn-16-2", "wrn-22-2"),
        radii=(0.5, 1.0, 1.5),
        strengths=(0.25, 0.5, 1.0, 2.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(
            images=2500,
            epochs=80,
            every=8,
            watched=1000,
            batch_size=64,
            schedule="step",
            augmented=False,
        ),
        measure_images=2000,
        minutes=300,
        autocast="auto",
        robust="n-fgsm",
        attack_steps=5,
        schedule="cyclic",
        sweep=Sweep(images=12_000, epochs=6),
        strongest=Strongest(images=1000),
    ),
    # A pass over the 5,000 images of 64 x 64 costs four tenths of one over CIFAR-10: 30 passes are
    # 11,200 s, the sweeps (4 passes) 10,000 s, all in all about 3.5 hours of two cores.
    "cpu-full-tiny": Preset(
        name="cpu-full-tiny",
        dataset="tiny-imagenette",
        architecture="wrn-16-2",
        seeds=(0, 1, 2),
        train_images=None,
        test_images=500,
        epochs=30,
        batch_size=64,
        lr=0.1,
        compare_batch=50,
        kept=(0.0, 1 / 30, 1 / 10, 1 / 3, 2 / 3),
        widths=("wrn-16-1", "wrn-16-2", "wrn-16-3"),
        depths=("wrn-10-2", "wrn-16-2", "wrn-22-2"),
        radii=(0.5, 1.0, 1.5),
        strengths=(0.25, 0.5, 1.0, 2.0),
        threats=("linf", "l2", "jpeg", "gabor", "snow", "tr"),
        overfitting=Overfitting(
            images=500, epochs=80, every=8, watched=500, schedule="step", augmented=False
        ),
        measure_images=500,
        minutes=210,
        autocast="auto",
        robust="n-fgsm",
        attack_steps=5,
        schedule="cyclic",
        sweep=Sweep(images=2500, epochs=8),
        strongest=Strongest(images=500),
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
