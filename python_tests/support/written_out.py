"""Minibatch CKA written out as in the papers, in float64, one pair of layers at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def hsic1(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, eq. 5, for linear kernels."""
    n = len(x)
    # Changes nothing exactly, but without it the formula cancels digits even in float64.
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = x @ x.T, y @ y.T  # noqa: E741  (K and L in the paper)
    k.fill_diagonal_(0)
    l.fill_diagonal_(0)
    one = torch.ones(n, dtype=torch.float64)
    trace = (k @ l).trace()
    both = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float((trace + both - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3)))


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """CKA of all samples from U-centred Grams, of features less their medians: also where one
    sample is far larger than the others, which the sums of `hsic1` have too few digits for."""

    def u_centred(x: Tensor) -> Tensor:
        n, x = len(x), x.double() - x.double().median(dim=0).values
        k = (x @ x.T).fill_diagonal_(0)
        rows = k.sum(dim=1) / (n - 2)
        return (k - rows[:, None] - rows[None, :] + rows.sum() / (n - 1)).fill_diagonal_(0)

    k, m = u_centred(x), u_centred(y)
    return float((k * m).sum() / (k.norm() * m.norm()))


def hsic0(x: Tensor, y: Tensor) -> float:
    """Gretton et al. 2005, the biased estimator."""
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    return float((h @ x @ x.T @ h @ y @ y.T).trace() / (n - 1) ** 2)


def in_place(model: nn.Module) -> None:
    """Make in-place activations work out of place, so that plain hooks see the truth."""
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


def features(model: nn.Module, x: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Flattened outputs, as float64, of the named layers of a model without shared layers."""
    found: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    hooks = [
        modules[name].register_forward_hook(
            lambda module, args, output, name=name: found.update({name: output.flatten(1).double()})
        )
        for name in names
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


def minibatch_cka(batches: Sequence[Sequence[Tensor]], hsic=hsic1) -> Tensor:  # type: ignore[no-untyped-def]
    """(L, L) from the features of each batch's layers, batches weighted by their samples."""
    size = len(batches[0])
    weights = [len(layers[0]) for layers in batches]

    def mean(i: int, j: int) -> float:
        return sum(
            w * hsic(layers[i], layers[j]) for w, layers in zip(weights, batches, strict=True)
        ) / sum(weights)

    means = torch.empty(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(i + 1):
            means[i, j] = means[j, i] = mean(i, j)
    return means / (means.diagonal()[:, None] * means.diagonal()).sqrt()
