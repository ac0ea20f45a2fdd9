"""What each preset trains and measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.lab import presets

__all__ = ["PRESETS", "Network", "Preset"]


@dataclass(frozen=True)
class Network:
    """A network and its training.

    Attributes:
        architecture: See ``repsim_fast.models.build``.
        objective: See ``recipes.Recipe``.
        lr: Peak learning rate of its pre-training.
    """

    architecture: str
    objective: str
    lr: float


@dataclass(frozen=True, kw_only=True)
class Preset(presets.Preset):
    """Sizes of a run; what is not here is in ``experiments.lab.presets``.

    ``architecture`` and ``lr`` are of the network that all questions are about; ``epochs`` of its
    pre-training.

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
        bounds: Method of verified bounds.
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
    bounds: Literal["ibp", "crown-ibp", "crown"]
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
}
