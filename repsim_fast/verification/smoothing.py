"""Randomised smoothing: the class a model gives most often to noisy copies, and its L2 radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels, images_device
from repsim_fast._core.borrow import Model, borrow, call
from repsim_fast._core.checks import check_number, check_whole
from repsim_fast._core.randomness import Stream
from repsim_fast.analysis.estimates import Array, wilson_interval

ABSTAIN = -1
"""The prediction where the draws do not decide."""


@dataclass(frozen=True)
class Certificates:
    """Of each image what the smoothed classifier says, and how far around it that holds.

    Attributes:
        prediction: Classes (N,) int64, ``ABSTAIN`` where none is certified.
        radius: Certified L2 radii (N,) float64 in image units, 0 where it abstains.
        alpha: Probability that an image's certificate is wrong.
    """

    prediction: Tensor
    radius: Tensor
    alpha: float


@dataclass(frozen=True)
class CertifiedAccuracy:
    """Share of images that are right and certified at each radius.

    Attributes:
        radii: L2 radii (R,).
        accuracy: Shares (R,) in [0, 1].
        low: Lower ends (R,) of their 95 % Wilson intervals: for other images of the same kind.
        high: Upper ends (R,).
        abstained: Share of images without a prediction.
        n: Images.
    """

    radii: Array
    accuracy: Array
    low: Array
    high: Array
    abstained: float
    n: int


def certify(
    model: Model,
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    batch_size: int = 1000,
    seed: int | torch.Generator | None = None,
) -> Certificates:
    """Certified predictions of g(x) = argmax_c P(f(x + sigma z) = c), z standard normal.

    The class is the most frequent of ``n0`` draws; of ``n`` others a lower confidence limit p of
    its probability (Clopper-Pearson) gives the radius sigma Phi^-1(p) where p > 1/2, else the
    classifier abstains. Noisy images are not clipped. The model runs in eval mode and comes back as
    it was; a NaN output counts for no class.

    Args:
        model: Maps images to logits; best trained on noise of the same sigma (methods "noise" and
            "smoothing").
        x: Images (N, ...), floating point.
        sigma: Standard deviation of the noise in image units.
        n0: Draws that choose the class.
        n: Draws that certify it; the largest possible radius is sigma Phi^-1(alpha^(1/n)).
        alpha: Probability, of each image, that its certificate is wrong; in (0, 1).
        batch_size: Noisy images at a time.
        seed: Int or ``torch.Generator`` for reproducible draws (given ``batch_size``, too).

    Raises:
        ValueError: A value out of range, an empty batch, a model that returns no logits.
        TypeError: ``x`` is not floating point, a count is not whole, another value no number.

    Example:
        >>> model = lambda x: torch.stack((x[:, 0], -x[:, 0]), 1)
        >>> found = certify(model, torch.tensor([[0.5], [-0.2]]), sigma=0.25, n=10000, seed=0)
        >>> found.prediction
        tensor([0, 1])
        >>> 0.17 < float(found.radius[1]) < 0.2  # the distance to the boundary is 0.2
        True

    References:
        Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via randomized smoothing",
        2019, algorithm CERTIFY.
    """
    _check(x, sigma, {"n0": n0, "n": n, "batch_size": batch_size}, alpha)
    from scipy.stats import beta, norm  # takes a while

    stream = Stream(seed)
    chosen = _counts(model, x, sigma, n0, batch_size, stream).argmax(1)
    counts = _counts(model, x, sigma, n, batch_size, stream)
    hits = counts.gather(1, chosen.unsqueeze(1)).squeeze(1).numpy()
    with np.errstate(invalid="ignore"):
        lower = np.where(hits > 0, beta.ppf(alpha, hits, n - hits + 1), 0.0)
    radius = torch.from_numpy(np.where(lower > 0.5, sigma * norm.ppf(lower), 0.0))
    return Certificates(torch.where(radius > 0, chosen, ABSTAIN), radius, alpha)


def predict(
    model: Model,
    x: Tensor,
    *,
    sigma: float,
    n: int = 1000,
    alpha: float = 0.001,
    batch_size: int = 1000,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """Classes (N,) of the smoothed classifier, ``ABSTAIN`` where ``n`` draws do not decide.

    The most frequent class, unless a two-sided binomial test at level ``alpha`` does not tell it
    from the second. Args, Raises and References as for ``certify`` (algorithm PREDICT).
    """
    _check(x, sigma, {"n": n, "batch_size": batch_size}, alpha)
    from scipy.stats import binomtest

    top = _counts(model, x, sigma, n, batch_size, Stream(seed)).topk(2, dim=1)
    decided = [
        first + second > 0 and binomtest(first, first + second, 0.5).pvalue <= alpha
        for first, second in top.values.tolist()
    ]
    return torch.where(torch.tensor(decided), top.indices[:, 0], ABSTAIN)


def certified_accuracy(
    certificates: Certificates, y: Tensor, radii: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
) -> CertifiedAccuracy:
    """Share of images whose certified prediction is ``y`` with a radius of at least each of
    ``radii``; an abstention is wrong at every one, 0 included.

    Args:
        certificates: What ``certify`` found.
        y: Labels (N,).
        radii: L2 radii in image units, none negative.

    Raises:
        ValueError: Another number of labels, or a negative radius.
        TypeError: Labels that are no integers, radii that are no numbers.
    """
    labels = check_labels(y, certificates.prediction).cpu()
    at = np.asarray(radii)
    if at.dtype.kind not in "biuf":
        raise TypeError(f"radii: expected numbers, got {radii!r}")
    at = at.astype(np.float64)
    if at.ndim != 1 or not bool((at >= 0).all()):
        raise ValueError(f"radii: expected numbers that are not negative, got {radii!r}")
    n = len(labels)
    found = certificates.prediction
    right = ((found == labels) & (found != ABSTAIN)).numpy()[:, None]
    share = (right & (certificates.radius.numpy()[:, None] >= at)).mean(0)
    limits = np.array([wilson_interval(float(p), n) for p in share]).reshape(-1, 2)
    abstained = float((certificates.prediction == ABSTAIN).double().mean())
    return CertifiedAccuracy(at, share, limits[:, 0], limits[:, 1], abstained, n)


def _counts(
    model: Model, x: Tensor, sigma: float, draws: int, batch_size: int, stream: Stream
) -> Tensor:
    """How often each image's noisy copies are given each class, (N, n_classes) int64 on the CPU."""
    # In 16 bits neither normal noise nor its sum with an image can be held.
    wide = x.detach() if x.dtype == torch.float64 else x.detach().float()
    generator = stream.on(x.device)
    counts = torch.zeros(0)
    with borrow(model, device=x.device, seed=stream.seed()), torch.no_grad():
        # Copies of several images share a batch: few draws of many images fill it, too.
        for first in range(0, len(x) * draws, batch_size):
            copies = torch.arange(first, min(first + batch_size, len(x) * draws), device=x.device)
            rows = copies // draws
            images = wide[rows]
            noise = torch.randn(
                images.shape, dtype=images.dtype, device=images.device, generator=generator
            )
            logits = call(model, images + sigma * noise)
            if first == 0:
                counts = torch.zeros(len(x), logits.shape[1], dtype=torch.int64, device=x.device)
            known = ~logits.isnan().any(1)
            cells = (rows * logits.shape[1] + logits.argmax(1))[known]
            counts.view(-1).index_add_(0, cells, torch.ones_like(cells))
    return counts.cpu()


def _check(x: Tensor, sigma: float, counts: dict[str, int], alpha: float) -> None:
    images_device(x)
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must be a non-empty batch (N, ...), got shape {tuple(x.shape)}")
    check_number("sigma", sigma, positive=True)
    check_whole(**counts)
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_number("alpha", alpha)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
