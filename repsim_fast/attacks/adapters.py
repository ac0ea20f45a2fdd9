"""Attacks of other packages, where ours fit: (model, x, y) -> x_adv, the model left as it was."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repsim_fast._core.borrow import Model, ModelMode, borrow
from repsim_fast._core.randomness import Stream

Attack = Callable[[Model, Tensor, Tensor], Tensor]


def adapt(
    make: Callable[[Model], Callable[[Tensor, Tensor], Tensor]],
    *,
    model_mode: ModelMode = "eval",
    seed: int | torch.Generator | None = None,
) -> Attack:
    """Wrap an attack that is built around its model.

    The attack runs on a borrowed model: weights need no gradient meanwhile (which also speeds up
    packages that call ``backward``), and modes, BatchNorm statistics, ``.grad`` and torch's random
    state are as before afterwards, whatever the package does to them.

    Args:
        make: Builds the attack for a model: model -> (x, y) -> x_adv.
        model_mode: Mode of the modules when the attack is built.
        seed: Seeds torch's global generators while the attack runs.

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
    stream = Stream(seed)

    def attack(model: Model, x: Tensor, y: Tensor) -> Tensor:
        with borrow(model, mode=model_mode, device=x.device, seed=stream.seed()):
            return make(model)(x.detach().clone(), y.detach().clone()).detach()

    return attack
