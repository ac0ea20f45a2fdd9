"""Class selectivity: the index, and the regulariser that encourages or discourages it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_FLOOR = 1e-6


def class_selectivity(activations: Tensor, y: Tensor) -> Tensor:
    """Class selectivity index of each unit, (mu_max - mu_rest) / (mu_max + mu_rest + 1e-6).

    mu_max is the largest of a unit's mean activations over the classes, mu_rest the mean of the
    other classes' means. In [0, 1] for non-negative activations: 0 for a unit that treats all
    classes alike, 1 for one that answers to a single class.

    Args:
        activations: (N, n_units) or maps (N, n_units, H, W), which are averaged over space first.
        y: Labels (N,); only the classes among them count.

    Returns:
        (n_units,), differentiable.

    Raises:
        ValueError: Fewer than two classes.

    References:
        Leavitt & Morcos, "Selectivity considered harmful", 2020.
    """
    if activations.ndim > 2:
        activations = activations.flatten(2).mean(2)
    belongs = nn.functional.one_hot(y).to(activations.dtype)
    belongs = belongs[:, belongs.any(0)]
    n_classes = belongs.shape[1]
    if n_classes < 2:
        raise ValueError(f"y must hold at least two classes, got {n_classes}")
    means = belongs.T @ activations / belongs.sum(0).unsqueeze(1)  # (n_classes, n_units)
    largest = means.amax(0)
    rest = (means.sum(0) - largest) / (n_classes - 1)
    return (largest - rest) / (largest + rest + _FLOOR)


_unobserved: ContextVar[bool] = ContextVar("unobserved", default=False)


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """Forward passes within are no part of what a regulariser watches: those for a gradient with
    respect to the images, whose graphs are gone when the penalty is differentiated."""
    token = _unobserved.set(True)
    try:
        yield
    finally:
        _unobserved.reset(token)


class SelectivityRegulariser:
    """Adds -alpha * (mean over layers of the mean selectivity of their units) to the loss.

    alpha < 0 discourages selectivity, alpha > 0 encourages it. Class means are true means over the
    batch, so the frequency of a class does not matter.

    Args:
        alpha: Weight; the published grid spans 0.1 to 100 either way.
        layers: Names of modules as in ``named_modules()``; default every ReLU.
    """

    def __init__(self, alpha: float, *, layers: Sequence[str] | None = None) -> None:
        self.alpha = alpha
        self.layers = None if layers is None else tuple(layers)

    @contextlib.contextmanager
    def observe(self, model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
        """Watch the forward passes within but those ``unobserved``; gives a function y -> penalty.

        Raises:
            ValueError: A layer that the model does not have, or no ReLU module at all.
        """
        units: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            if _unobserved.get():
                return
            # Reduced at once: what follows may overwrite the output in place.
            units.append(output.flatten(2).mean(2) if output.ndim > 2 else output)

        def penalty(y: Tensor) -> Tensor:
            if not units:
                raise ValueError("no layer of the selectivity regulariser was called")
            index = torch.stack([class_selectivity(unit.float(), y).mean() for unit in units])
            return -self.alpha * index.mean()

        handles = [module.register_forward_hook(keep) for module in self._modules(model)]
        try:
            yield penalty
        finally:
            for handle in handles:
                handle.remove()

    def _modules(self, model: nn.Module) -> list[nn.Module]:
        named = dict(model.named_modules())
        if self.layers is None:
            chosen: list[nn.Module] = [m for m in named.values() if isinstance(m, nn.ReLU)]
            if not chosen:
                raise ValueError("model has no nn.ReLU module: name the layers to regularise")
            return chosen
        if unknown := [name for name in self.layers if name not in named]:
            raise ValueError(f"layers must be modules of the model, got {unknown}")
        return [named[name] for name in self.layers]
