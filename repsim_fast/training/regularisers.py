"""Penalties that are added to a method's loss."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import call
from repsim_fast._core.model_state import eager, unwrap
from repsim_fast.analysis.selectivity import class_selectivity
from repsim_fast.analysis.units import unit_layers
from repsim_fast.attacks.losses import cross_entropy
from repsim_fast.attacks.objective import lifted
from repsim_fast.capture.features import Channels, first_tensor, pool
from repsim_fast.capture.layers import SelectedLayer, select_layers
from repsim_fast.capture.layout import Layouts

# Of an index.
_ROUNDING = 1e-6


class Regulariser(Protocol):
    """A penalty on what happens inside the model while it computes the method's loss.

    ``repr`` tells one from another where a training is resumed.
    """

    def observe(
        self, model: nn.Module
    ) -> contextlib.AbstractContextManager[Callable[[Tensor], Tensor]]:
        """Watch the forward passes within; gives a function labels (N,) -> penalty."""


_unobserved: ContextVar[bool] = ContextVar("unobserved", default=False)

# Where layers have their channels, by name and call in a pass, as the model's first passes told: to
# watch every one of its modules in every step would cost as much as the penalty does.
_Sides = dict[tuple[str, int], Channels]
_sides: WeakKeyDictionary[nn.Module, _Sides] = WeakKeyDictionary()


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
    batch, so the frequency of a class does not matter; classes that are absent from a batch are no
    part of its index. A unit is a channel, wherever a layer has its channels, as for
    ``analysis.selectivity``.

    Args:
        alpha: Weight, of either sign; the published grid spans 0.1 to 100 either way.
        layers: Names or patterns of layers as for ``capture.Capture``, or one of them, such as
            ``"stage1.*.relu2"``, or ``"relu#2"``, the second call in a pass; default every ReLU.

    Raises:
        ValueError: alpha that is not finite, or no layers named.

    References:
        Leavitt & Morcos, "Selectivity considered harmful", 2020.
    """

    def __init__(self, alpha: float, *, layers: str | Sequence[str] | None = None) -> None:
        if not math.isfinite(alpha):
            raise ValueError(f"alpha must be finite, got {alpha}")
        if layers is not None and not layers:
            raise ValueError(f"layers must be names of modules or None for all ReLUs, got {layers}")
        self.alpha = alpha
        names = (layers,) if isinstance(layers, str) else layers
        self.layers = None if names is None else tuple(names)

    def __repr__(self) -> str:
        return f"SelectivityRegulariser({self.alpha!r}, layers={self.layers!r})"

    @contextlib.contextmanager
    def observe(self, model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
        """Watch the forward passes within but those ``unobserved``; gives a function y -> penalty.

        Of a batch of one class, for which the index is not defined, the penalty is 0.

        Warns:
            UserWarning: Class means are negative in a first batch, so that the penalty has no
                limit.

        Raises:
            ValueError: A layer that the model does not have, no ReLU module at all, or a layer
                without units for each sample or, of the function, without the call asked for.
        """
        inner = unwrap(model)
        chosen = self._chosen(inner)
        sides = _sides.setdefault(inner, {})
        units: list[tuple[str, Tensor]] = []
        calls: Counter[str] = Counter()  # in a pass

        def hook(name: str) -> Callable[[nn.Module, object, object], None]:
            def keep(module: nn.Module, inputs: object, output: object) -> None:
                calls[name] += 1
                numbers = chosen[name].calls
                if not _unobserved.get() and (numbers is None or calls[name] in numbers):
                    units.append((name, _units((name, calls[name]), output, sides, layouts)))

            return keep

        def penalty(y: Tensor) -> Tensor:
            for name, layer in chosen.items():
                if layer.calls is not None and max(layer.calls) > calls[name]:
                    raise ValueError(
                        f"layers: {name!r} is called {calls[name]} times in a pass, and not "
                        f"{max(layer.calls)}"
                    )
            if not units:
                raise ValueError("no layer of the selectivity regulariser was called")
            for name, own in units:
                if len(own) != len(y) or not own.shape[1]:
                    raise ValueError(
                        f"layer {name!r} must have units for each of the {len(y)} samples, "
                        f"(n, n_units >= 1), got {tuple(own.shape)}"
                    )
            found = [own for _, own in units]
            if bool((y == y[0]).all()):  # as a last, short batch may be: nothing is selective
                return found[0].new_zeros(())
            # Of all layers at once: what is done for each of them counts more than its numbers.
            index = class_selectivity(torch.cat(found, 1), y)
            if layouts is not None:
                _check_range(index)
            layers = torch.split(index, [own.shape[1] for own in found])
            return -self.alpha * torch.stack([layer.mean() for layer in layers]).mean()

        with contextlib.ExitStack() as stack:
            layouts = None
            if any(not _is_known(name, layer.calls, sides) for name, layer in chosen.items()):
                layouts = Layouts(inner)
                stack.enter_context(eager())
                stack.enter_context(layouts.watching())
            start = inner.register_forward_pre_hook(lambda *_: calls.clear())
            stack.callback(start.remove)
            for name, layer in chosen.items():
                stack.callback(layer.module.register_forward_hook(hook(name)).remove)
            yield penalty

    def _chosen(self, model: nn.Module) -> dict[str, SelectedLayer]:
        chosen = select_layers(model, unit_layers(model, self.layers))
        if given := [name for name, layer in chosen.items() if layer.given]:
            raise ValueError(f"layers must be what layers return, got {given[0]!r}, an input")
        return chosen


def _is_known(name: str, calls: frozenset[int] | None, sides: _Sides) -> bool:
    """Whether passes have told where the channels of these calls of a layer are."""
    known = {call for layer, call in sides if layer == name}
    return bool(known) if calls is None else calls <= known


def _units(call: tuple[str, int], output: object, sides: _Sides, layouts: Layouts | None) -> Tensor:
    """(N, n_units); reduced at once, for what follows may overwrite the output in place.

    Args:
        call: Name of the layer, and which of its calls in a pass.
        output: What it returned.
        sides: Of the channels, as far as they are known.
        layouts: What tells them in a first pass.

    Raises:
        ValueError: There are none.
    """
    x = first_tensor(output)
    if x is None or x.ndim == 0:
        raise ValueError(
            f"layer {call[0]!r} must return units, (N, n_units >= 1, ...), "
            f"got {type(output).__name__}"
        )
    if call not in sides:
        # Where nothing tells, as everywhere: (N, T, D), and (N, C, ...) of more dimensions.
        found = None if layouts is None else layouts.of(x)
        sides[call] = found or ("last" if x.ndim == 3 else "first")
    return pool(x, sides[call])


def _check_range(index: Tensor) -> None:
    if bool(((index < -_ROUNDING) | (index > 1 + _ROUNDING)).any()):
        warnings.warn(
            "selectivity regulariser: the index of some units is not in [0, 1] but has no limit, "
            "for their class means are negative; choose layers without negative activations",
            stacklevel=3,
        )


def gradient_misalignment(model: nn.Module, x: Tensor, y: Tensor, nearby: Tensor) -> Tensor:
    """1 - mean cos(grad l(x), grad l(x')), l the cross-entropy: GradAlign's penalty, in [0, 2].

    The gradients are those of the cross-entropy without saturation: they have the same directions,
    also of samples that the model is so sure of that those of the cross-entropy are exactly 0. The
    gradient flows through the second of the two only. Costs a double backward pass.

    Args:
        model: The model in training.
        x: Images (N, ...).
        y: Labels (N,).
        nearby: x', as x.

    References:
        Andriushchenko & Flammarion, "Understanding and improving fast adversarial training", 2020.
    """
    at_x = _input_gradient(model, x, y, differentiable=False)
    at_nearby = _input_gradient(model, nearby, y, differentiable=True)
    return 1.0 - nn.functional.cosine_similarity(_scaled(at_x), _scaled(at_nearby), dim=1).mean()


def _input_gradient(model: nn.Module, x: Tensor, y: Tensor, *, differentiable: bool) -> Tensor:
    x = x.detach().requires_grad_()
    with unobserved():
        logits = call(model, x)
    value = lifted(cross_entropy(logits, y), logits, model).sum()
    (gradient,) = torch.autograd.grad(value, x, create_graph=differentiable)
    return gradient.flatten(1)


def _scaled(gradient: Tensor) -> Tensor:
    """Rows scaled to a largest entry of 1: a cosine must not notice that gradients are tiny."""
    largest = gradient.detach().abs().amax(1, keepdim=True)
    return gradient / largest.clamp(min=torch.finfo(gradient.dtype).tiny)
