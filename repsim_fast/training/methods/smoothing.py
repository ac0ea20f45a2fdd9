"""Training for randomised smoothing by stability under noise."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from repsim_fast._core.borrow import call
from repsim_fast._core.checks import check_choice, check_number
from repsim_fast.attacks.losses import divergence_of

from .adversarial import noise
from .base import Method, TrainingBatch, noted

Direction = Literal["noisy||clean", "clean||noisy"]
Classified = Literal["clean", "noisy"]


@noted
def smoothing(
    sigma: float = 0.25,
    *,
    beta: float = 6.0,
    direction: Direction = "noisy||clean",
    classified: Classified = "clean",
) -> Method:
    """Stability under Gaussian noise: CE(f(x), y) + beta KL(f(x + n) || f(x)), n ~ N(0, sigma^2).

    The objective of HYDRA (Sehwag et al., 2020) for networks that ``verification.certify``
    certifies at the same sigma.

    Args:
        sigma: Standard deviation in image units; noisy images are not clipped.
        beta: Weight of the divergence.
        direction: Which of the two distributions the divergence is the mean over:
            "clean||noisy" is KL(f(x) || f(x + n)), as in ``trades``.
        classified: Images of the cross-entropy.

    References:
        Sehwag et al., "HYDRA: pruning adversarially robust neural networks", 2020; Li et al.,
        "Certified adversarial robustness with additive noise", 2019.
    """
    check_number("beta", beta)
    check_choice("direction", direction, get_args(Direction))
    check_choice("classified", classified, get_args(Classified))

    def loss(model: nn.Module, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        clean, noisy = call(model, batch.x), call(model, perturbed)
        pair = (noisy.log_softmax(1), clean.log_softmax(1))
        gap = divergence_of(*(pair if direction == "noisy||clean" else pair[::-1])).mean()
        logits = clean if classified == "clean" else noisy
        return batch.cross_entropy(logits) + beta * gap, noisy

    perturb = noise(sigma).perturb
    return Method("smoothing", perturb, loss, soft_labels=True, any_layout=True)
