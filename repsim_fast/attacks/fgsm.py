"""One-step attacks and their momentum variant: PGD with particular settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from repsim_fast.ops import Scalar

from .pgd import PGD
from .region import Region, as_scalar


class FGSM(PGD):
    """Fast gradient sign method (Goodfellow et al., 2015): one full step from x, in any norm.

    Args:
        eps: Radius and step, a number or (N,).
        options: Further settings of ``PGD``.
    """

    def __init__(self, eps: Scalar, **options: Any) -> None:
        super().__init__(eps, steps=1, step_size=eps, random_start=False, **options)


class RSFGSM(PGD):
    """FGSM from a random start (Wong et al., 2020): x + clip(U[-eps, eps] + 1.25 eps sign g).

    Args:
        eps: Radius, a number or (N,).
        relative_step: Step in units of eps.
        options: Further settings of ``PGD``.
    """

    def __init__(self, eps: Scalar, *, relative_step: float = 1.25, **options: Any) -> None:
        super().__init__(eps, steps=1, step_size=relative_step * as_scalar(eps, "eps"), **options)


class NFGSM(PGD):
    """FGSM on a noisy image (de Jorge et al., 2022): x + n + eps sign g(x + n).

    n is uniform in the ball of radius ``noise`` eps. The result is clipped to the box but, by
    design, not to the radius: the perturbation reaches (noise + 1) eps.

    Args:
        eps: Step, a number or (N,).
        noise: k, radius of the noise in units of eps.
        options: Further settings of ``PGD``.
    """

    def __init__(self, eps: Scalar, *, noise: float = 2.0, **options: Any) -> None:
        # A ball that holds noise and step together never clips either.
        super().__init__((noise + 1.0) * as_scalar(eps, "eps"), steps=1, step_size=eps, **options)
        self.noise = noise

    def _start(self, region: Region) -> Tensor:
        noisy = replace(region, eps=region.eps * (self.noise / (self.noise + 1.0)))
        return noisy.random(self._stream)


class MIFGSM(PGD):
    """Momentum iterative FGSM (Dong et al., 2018): g <- momentum g + grad / |grad|_1.

    Args:
        eps: Radius, a number or (N,).
        steps: Number of steps of eps / steps each.
        momentum: Decay of the accumulated gradient.
        options: Further settings of ``PGD``.
    """

    def __init__(
        self, eps: Scalar, *, steps: int = 10, momentum: float = 1.0, **options: Any
    ) -> None:
        options.setdefault("random_start", False)
        options.setdefault("step_size", as_scalar(eps, "eps") / max(steps, 1))
        super().__init__(eps, steps=steps, momentum=momentum, **options)
