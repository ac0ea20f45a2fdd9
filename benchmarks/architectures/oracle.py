"""Linear CKA over minibatches in float64, written out apart from the package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Forward = Any


def cka(models: Sequence[nn.Module], names: Sequence[Sequence[str]], batches: Iterable[Any],
        forward: Forward) -> Tensor:  # fmt: skip
    """The unbiased estimate of all pairs of layers of all models.

    Args:
        models: Networks as they are inside their wrappers.
        names: Of each the layers, with the number of the call.
        batches: Inputs.
        forward: (model, batch), runs it.
    """
    sums: Tensor | float = 0.0
    for batch in batches:
        centred = []
        for model, layers in zip(models, names, strict=True):
            found = activations(model, layers, batch, forward)
            n = samples(batch)
            alone = (
                activations(model, layers, one_sample(batch, n // 2), forward)
                if any(needs_order(x, n) for x in found.values())
                else {}
            )
            for name in layers:
                x = found[name]
                x = in_order(x, alone[name], n) if needs_order(x, n) else x.reshape(n, -1)
                centred.append(u_centred(x).flatten())
        stacked = torch.stack(centred)
        sums = sums + stacked @ stacked.T
    assert isinstance(sums, Tensor)
    own = sums.diagonal()
    return sums / (own[:, None] * own).sqrt()


def u_centred(x: Tensor) -> Tensor:
    """The Gram matrix without its diagonal, centred as in the unbiased HSIC (Song et al. 2012)."""
    n = len(x)
    x = x - x.mean(0)
    gram = (x @ x.T).fill_diagonal_(0)
    rows = gram.sum(1) / (n - 2)
    gram = gram - rows[:, None] - rows + gram.sum() / ((n - 1) * (n - 2))
    return gram.fill_diagonal_(0)


def activations(model: nn.Module, names: Sequence[str], batch: Any, forward: Forward
                ) -> dict[str, Tensor]:  # fmt: skip
    """What the layers return, as float64, by the name of the call."""
    modules = dict(model.named_modules())
    wanted, found, calls = set(names), dict[str, Tensor](), dict[str, int]()

    def hook(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = call = calls.get(name, 0) + 1
            label = name if call == 1 else f"{name}#{call}"
            if label in wanted and (x := first(output)) is not None:
                found[label] = x.detach().double()

        return keep

    hooked = {name if name in modules else name.rpartition("#")[0] for name in names}
    handles = [modules[n if n != "(model)" else ""].register_forward_hook(hook(n)) for n in hooked]
    try:
        with torch.no_grad():
            forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def first(output: Any) -> Tensor | None:
    """The first floating-point tensor in an output, a copy."""
    if isinstance(output, Tensor):
        if output.is_quantized:
            return output.dequantize()
        return output.clone() if output.is_floating_point() else None
    parts = output.values() if isinstance(output, Mapping) else output
    found = (first(part) for part in parts if isinstance(part, (Tensor, Mapping, tuple, list)))
    return next((x for x in found if x is not None), None)


def samples(batch: Any) -> int:
    """Samples of a batch."""
    if hasattr(batch, "num_graphs"):
        return int(batch.num_graphs)
    if isinstance(batch, Mapping):
        batch = next(iter(batch.values()))
    return len(batch[0]) if isinstance(batch, tuple) else len(batch)


def one_sample(batch: Any, i: int) -> Any:
    """A batch of the sample i alone."""
    if isinstance(batch, Mapping):
        return {name: x[i : i + 1] for name, x in batch.items()}
    if isinstance(batch, tuple):
        return tuple(x[i : i + 1] for x in batch)
    return batch[i : i + 1]


def needs_order(x: Tensor, n: int) -> bool:
    """Whether a layer's first dimension is not the samples'."""
    return x.ndim == 0 or len(x) != n


def in_order(x: Tensor, alone: Tensor, n: int) -> Tensor:
    """(n, p): of the orders that the shape allows, the one whose middle sample is what the layer
    returns for that sample alone."""
    orders = []
    if x.ndim > 1 and x.shape[1] == n:
        orders.append(x.transpose(0, 1).reshape(n, -1))
    if len(x) % n == 0:
        orders.append(x.reshape(n, -1))
        orders.append(x.reshape(-1, n, *x.shape[1:]).transpose(0, 1).reshape(n, -1))
    same = [order for order in orders if order.shape[1] == alone.numel()]
    assert same, f"{tuple(x.shape)} holds no {n} samples like {tuple(alone.shape)}"
    return min(same, key=lambda order: float((order[n // 2] - alone.flatten()).norm()))
