"""Attacks of other packages, where ours fit: (model, x, y) -> x_adv, the model left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.borrow import Model, ModelMode, borrow
from repsim_fast._core.randomness import Stream

__all__ = ["Adapted", "Attack", "adapt"]

Make = Callable[[Model], Callable[[Tensor, Tensor], Tensor]]
"""Builds an attack for a model: model -> (x, y) -> x_adv."""

Attack = Callable[[Model, Tensor, Tensor], Tensor]


class Adapted:
    """An attack of another package, as ``adapt`` makes it; a copy has a random stream of its own.

    Args:
        make: Builds the attack for a model.
        model_mode: Mode of the modules when the attack is built.
        seed: Seeds torch's global generators while the attack runs.
    """

    foreign = True  # see is_ours

    def __init__(
        self,
        make: Make,
        *,
        model_mode: ModelMode = "eval",
        seed: int | torch.Generator | None = None,
    ) -> None:
        self.make, self.model_mode = make, model_mode
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return f"adapt({self.make!r}, model_mode={self.model_mode!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapted:
        """With the random stream copied as it is now, and the same ``make``."""
        other = copy.copy(self)
        memo[id(self)] = other
        other._stream = copy.deepcopy(self._stream, memo)
        return other

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, ...) with labels ``y`` (N,)."""
        with borrow(model, mode=self.model_mode, device=x.device, seed=self._stream.seed()):
            return self.make(model)(x.detach().clone(), y.detach().clone()).detach()


def adapt(
    make: Make,
    *,
    model_mode: ModelMode = "eval",
    seed: int | torch.Generator | None = None,
) -> Adapted:
    """Wrap an attack that is built around its model.

    The attack runs on a borrowed model: weights need no gradient meanwhile (which also speeds up
    packages that call ``backward``), and modes, BatchNorm statistics, ``.grad`` and torch's random
    state are as before afterwards, whatever the package does to them.

    Args:
        make: Builds the attack for a model: model -> (x, y) -> x_adv.
        model_mode: Mode of the modules when the attack is built.
        seed: Seeds torch's global generators while the attack runs; the stream advances with every
            call, and ``copy.deepcopy`` copies it, so that evaluations repeat it in each epoch.

    Example:
        >>> import torchattacks  # doctest: +SKIP
        >>> attack = adapt(lambda model: torchattacks.PGD(model, eps=8 / 255))  # doctest: +SKIP
        >>> import foolbox  # doctest: +SKIP
        >>> linf = foolbox.attacks.LinfPGD()  # doctest: +SKIP
        >>> attack = adapt(  # doctest: +SKIP
        ...     lambda model: lambda x, y: linf.run(
        ...         foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilon=8 / 255
        ...     )
        ... )
    """
    return Adapted(make, model_mode=model_mode, seed=seed)
