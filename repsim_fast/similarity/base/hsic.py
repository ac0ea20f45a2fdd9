"""Inner products of centred linear Grams, from features where these are few, else from the Grams.

What the debiased HSIC adds up lies off the diagonal of a Gram. One sample r times as large as the
others has r² times their squared norm on the diagonal, r⁴ times in ‖XᵀX‖², of which a difference
must leave what is off the diagonal: r² times less. Where that would leave float32 too little,
features are taken in float64; the Grams of `centered_gram` leave the diagonal out from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast.ops import Centering, centered_gram
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Triangle, energy, from_products, inner_products

# Share of ‖XᵀX‖² off the diagonal from which on float32 products resolve it: they are off by about
# 1e-7 of the whole. Independent features, no more than half as many as samples, leave two thirds.
RESOLVED = 0.25


def without_diagonal(energy: Tensor, k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """<K, L>, U-centred, from ‖XᵀY‖² and the squared norms (n,) of centred samples.

    With centred features the row sums of K are 0 and those of K without its diagonal k are -k, so
    that HSIC₁ (Song et al. 2012, eq. 5) is ‖XᵀY‖² - k·l n/(n - 2) + Σk Σl / ((n - 1)(n - 2)), up to
    1/(n(n - 3)).
    """
    n = len(k)
    return energy - (k @ l) * (n / (n - 2)) + k.sum() * l.sum() / ((n - 1) * (n - 2))


def resolved(own: Tensor, energy: Tensor) -> bool:
    """Whether float32 resolves <K, K> without its diagonal, found to be ``own`` of ‖XᵀX‖²."""
    return bool(own.detach() >= RESOLVED * energy.detach())


@dataclass(frozen=True, eq=False)
class Linear:
    """A centred linear Gram, as centred features or as the Gram itself.

    Attributes:
        features: (n, p), in float64 where float32 products would not do; (n, 0) beside a Gram.
        diagonal: (n,) float64 squared norms of the samples; None for the biased form, which has
            the diagonal in it.
        size: Root of <K, K>, scalar float64.
        gram: The Gram, scaled to norm 1, where it is there.
    """

    features: Tensor
    diagonal: Tensor | None
    size: Tensor
    gram: Triangle | None = None

    def take(self, rows: Tensor) -> Linear:
        """The view after a permutation of samples."""
        diagonal = None if self.diagonal is None else self.diagonal[rows]
        gram = None if self.gram is None else self.gram.take(rows)
        return Linear(self.features[rows], diagonal, self.size, gram)

    def product(self, energy: Tensor, other: Linear) -> Tensor:
        """<K, L> / (‖K‖ ‖L‖) from ‖XᵀY‖²."""
        if self.diagonal is not None and other.diagonal is not None:
            energy = without_diagonal(energy, self.diagonal, other.diagonal)
        return energy / (self.size * other.size)

    def triangle(self) -> Triangle:
        """The Gram, scaled to norm 1."""
        if self.gram is not None:
            return self.gram
        return _triangle(self.features, "double" if self.diagonal is None else "unbiased")[0]


def linear(x: Prepared, centering: Centering) -> Linear:
    """The view of a representation: "double" centring for the biased form, "unbiased" for HSIC₁.

    Raises:
        UndefinedError: The features do not vary, or nothing of the Gram is left off its diagonal.
    """
    found, enough = _view(x, centering)
    if not enough and x.features.dtype != torch.float64:
        found, _ = _view(x.double(), centering)
    if not float(found.size.detach()) > 0.0:  # also for the root of a negative number
        raise UndefinedError(f"{x.name}: HSIC of the representation with itself is not positive")
    return found


def _view(x: Prepared, centering: Centering) -> tuple[Linear, bool]:
    """The view, and whether the dtype resolves it."""
    centred = x.centered
    if 2 * x.n_features >= x.n_samples:  # where the Gram's triangle is no larger than the features
        gram, size = _triangle(x.features, centering)
        return Linear(centred[:, :0], None, size, gram), True
    scaled = centred / x.norm.to(centred.dtype)
    whole = energy(centered_gram(scaled.mT, centering="none"))
    if centering == "double":
        return Linear(scaled, None, whole.sqrt()), True
    diagonal = scaled.double().square().sum(dim=1)
    own = without_diagonal(whole, diagonal, diagonal)
    return Linear(scaled, diagonal, own.sqrt()), resolved(own, whole)


def _triangle(features: Tensor, centering: Centering) -> tuple[Triangle, Tensor]:
    packed = centered_gram(features, centering=centering, packed=True)
    size = torch.linalg.vector_norm(packed, dtype=torch.float64)
    return Triangle(packed / size.to(packed.dtype), len(features)), size


def alignments(left: Sequence[Linear], right: Sequence[Linear], pairs: Pairs) -> Tensor:
    """<K, L> / (‖K‖ ‖L‖) of pairs (len(pairs),) in float64; ``left is right`` within one set."""
    narrow = [k for k, (i, j) in enumerate(pairs) if left[i].gram is right[j].gram is None]
    others: dict[
        tuple[str, int], list[int]
    ] = {}  # by one of the pair, which lacks a Gram if one does
    for k in sorted(set(range(len(pairs))) - set(narrow)):
        i, j = pairs[k]
        others.setdefault(("right", j) if right[j].gram is None else ("left", i), []).append(k)
    values = torch.empty(len(pairs), dtype=torch.float64, device=left[0].features.device)
    if narrow:
        chosen = _from_features(left, right, [pairs[k] for k in narrow])
        values = values.index_put((torch.tensor(narrow, device=values.device),), chosen)
    for (side, number), some in others.items():
        if side == "left":
            one, several = left[number], [right[pairs[k][1]] for k in some]
        else:
            one, several = right[number], [left[pairs[k][0]] for k in some]
        grams = [view.triangle() for view in several]
        # Features in float64 for their products' sake have a Gram that float32 holds.
        dtype = min((gram.vector.dtype for gram in grams), key=lambda dtype: dtype.itemsize)
        gram, *grams = (
            Triangle(found.vector.to(dtype), found.n) for found in (one.triangle(), *grams)
        )
        chosen = inner_products([gram], grams, [(0, k) for k in range(len(some))])
        values = values.index_put((torch.tensor(some, device=values.device),), chosen)
    return values


def _from_features(left: Sequence[Linear], right: Sequence[Linear], pairs: Pairs) -> Tensor:
    dtype = torch.float32
    for i, j in pairs:
        for view in (left[i], right[j]):
            dtype = torch.promote_types(dtype, view.features.dtype)
    ours = [view.features.to(dtype) for view in left]
    theirs = ours if left is right else [view.features.to(dtype) for view in right]

    def ratio(batch: Batch) -> Tensor:
        energies = energy(batch.products)
        chosen = [pairs[k] for k in batch.numbers]
        return torch.stack(
            [left[i].product(energies[b], right[j]) for b, (i, j) in enumerate(chosen)]
        )

    return from_products(ours, theirs, pairs, ratio)
