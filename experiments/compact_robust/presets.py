"""What each preset trains and measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.lab import presets

__all__ = ["PRESETS", "Network", "Preset"]

Bounds = Literal["ibp", "crown-ibp", "crown"]


@dataclass(frozen=True)
class Network:
    """A network and its training.

    Attributes:
        architecture: See ``repsim_fast.models.build``.
        objective: See ``recipes.Recipe``.
        lr: Peak learning rate of its pre-training.
        bounds: Method of verified bounds; "crown" takes too long for deep networks.
        ramp: See ``recipes.Recipe``.
    """

    architecture: str
    objective: str
    lr: float
    bounds: Bounds = "crown-ibp"
    ramp: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Preset(presets.Preset):
    """Sizes of a run; what is not here is in ``experiments.lab.presets``.

    ``architecture``, ``lr`` and ``bounds`` are of the network that all questions are about;
    ``epochs`` of every pre-training.

    Attributes:
        objective: The robust one that it is trained with.
        others: Further networks of questions 1 and 3, each with its objective.
        other_seeds: Seeds of those; None for all.
        mixed: Further objectives of question 2, beside "standard" and the robust one.
        sparsities: Ascending.
        focus: The one of tenfold compression, among them.
        filter_sparsities: Of question 4, some of them.
        rounds: Of iterative pruning; divides ``fine_epochs``.
        score_epochs, fine_epochs: Of the stages after pre-training.
        score_lr: Peak learning rate of learned scores.
        fine_share: Learning rate of fine-tuning, as a share of that of pre-training.
        eps: Radius of the Linf attack.
        training_steps, attack_steps: Of PGD in training and in evaluation, at a quarter of the
            radius a step.
        proof: Radius of proofs, as a share of ``eps``; smoothing is certified at the L2 radius of
            the corners of that ball.
        bounds: See ``Network``.
        proven: Test images of verified accuracy.
        sigma: Noise of smoothing.
        draws: Noisy copies of an image that certify it.
        carried: Test images of what pruned weights carry.
    """

    objective: str
    others: tuple[Network, ...] = ()
    other_seeds: int | None = None
    mixed: tuple[str, ...] = ()
    sparsities: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
    focus: float = 0.9
    filter_sparsities: tuple[float, ...] = (0.5, 0.9)
    rounds: int
    score_epochs: int
    fine_epochs: int
    score_lr: float
    fine_share: float = 0.1
    eps: float
    training_steps: int
    attack_steps: int
    proof: float = 0.25
    bounds: Bounds = "crown-ibp"
    proven: int
    sigma: float = 0.25
    draws: int
    carried: int

    @property
    def most(self) -> float:
        """The highest sparsity."""
        return self.sparsities[-1]


PRESETS = {
    "smoke": Preset(
        name="smoke",
        dataset="digits",
        architecture="cnn-small-w6",
        objective="pgd",
        seeds=(0, 1),
        train_images=600,
        test_images=200,
        epochs=8,
        batch_size=50,
        lr=0.1,
        compare_batch=50,
        sparsities=(0.9, 0.96),
        filter_sparsities=(0.9,),
        rounds=2,
        score_epochs=4,
        fine_epochs=4,
        score_lr=0.1,
        fine_share=0.5,
        eps=0.1,
        training_steps=3,
        attack_steps=10,
        bounds="crown",
        proven=100,
        draws=1000,
        carried=100,
        minutes=2,
    ),
    # Planned for three hours of two cores, two networks at a time, with measured seconds of one
    # busy core for an epoch of 10,000 images in bfloat16, unmasked / masked: VGG-16 60 / 73 against
    # PGD, 20 / 25 standard; the WRN 32 / 44 (half of wrn-16-1); CNN-large 26; CNN-small 9 / 12. So
    #   VGG-16, 2 seeds: pre-training 12 * 60, scores 4 * 3 * 73, fine-tuning 8 * 4 * 73; then
    #     question 2: 732, 4: 584, 5: 584, 6: 420        2 * 6,250  = 12,500 s
    #   the others, 12 epochs unmasked, 44 masked each               =  4,500 s
    #   attacks, bounds, certificates, CKA of 70 networks            =  2,500 s
    # are 19,500 of 21,600 core seconds. Without batch norm, networks do not begin to learn against
    # the full radius (10 % correct after 12 epochs), nor is growth in 0.6 of the epochs slow enough
    # at every rate.
    "cpu": Preset(
        name="cpu",
        dataset="cifar10",
        architecture="vgg-16-w16",
        objective="pgd",
        others=(
            Network("wrn-10-1", "pgd", 0.1),
            Network("cnn-large-w16", "pgd", 0.05, ramp=0.9),
            Network("cnn-small", "pgd", 0.05, "crown", ramp=0.9),
            Network("cnn-small", "smoothing", 0.05, "crown"),
        ),
        other_seeds=1,
        seeds=(0, 1),
        train_images=10_000,
        test_images=1000,
        epochs=12,
        batch_size=128,
        lr=0.1,
        compare_batch=125,
        rounds=2,
        score_epochs=3,
        fine_epochs=4,
        score_lr=0.1,
        fine_share=0.2,
        eps=8 / 255,
        training_steps=5,
        attack_steps=20,
        proven=200,
        draws=1000,
        carried=200,
        autocast="auto",
        minutes=165,
    ),
    # The published sizes, without their pseudo-labelled images; days of one device.
    "gpu": Preset(
        name="gpu",
        dataset="cifar10",
        architecture="wrn-28-4",
        objective="trades",
        others=(
            Network("vgg-16", "trades", 0.1),
            Network("vgg-16", "smoothing", 0.1),
            Network("wrn-28-4", "smoothing", 0.1),
            Network("cnn-large", "trades", 0.02),
            Network("cnn-small", "trades", 0.02, "crown"),
        ),
        other_seeds=1,
        mixed=("smoothing",),
        seeds=(0, 1),
        train_images=None,
        test_images=10_000,
        epochs=100,
        batch_size=128,
        lr=0.1,
        compare_batch=500,
        rounds=5,
        score_epochs=20,
        fine_epochs=100,
        score_lr=0.1,
        eps=8 / 255,
        training_steps=10,
        attack_steps=50,
        proven=500,
        draws=10_000,
        carried=500,
        minutes=6000,
        device="cuda",
        autocast="bfloat16",
        absolute=True,
    ),
}
