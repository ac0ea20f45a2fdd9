"""Canonical correlations, fitted to some samples and read off the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base import spectral
from repsim_fast.similarity.base.folds import Fold, Folds
from repsim_fast.similarity.base.measure import Info, check_not_saturated, register
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.base.views import from_products
from repsim_fast.similarity.measures.held_out import CrossValidated
from repsim_fast.similarity.measures.svcca import SVCCA


class _CrossValidatedCCA(CrossValidated):
    """Mean correlation of canonical variates among samples held out."""

    weighted: ClassVar[bool] = False

    def pairs(self, left: Sequence[Folds], right: Sequence[Folds], pairs: Pairs) -> Tensor:
        """Means over folds, by their samples."""
        total = torch.zeros(len(pairs), dtype=torch.float64)
        for number in range(self.folds):
            ours: list[Fold] = [view.folds[number] for view in left]
            theirs = ours if left is right else [view.folds[number] for view in right]
            bases = [one.basis for one in ours]
            others = bases if left is right else [one.basis for one in theirs]

            def held_out(
                batch: Batch, ours: list[Fold] = ours, theirs: list[Fold] = theirs
            ) -> Tensor:
                u, _, vt = spectral.singular_vectors(batch)
                chosen = [pairs[k] for k in batch.numbers]
                return torch.stack(
                    [self._mean(ours[i], u[b], theirs[j], vt[b]) for b, (i, j) in enumerate(chosen)]
                )

            share = len(ours[0].samples.held_out) / left[0].prepared.n_samples
            values = from_products(bases, others, pairs, held_out)
            total = total.to(values.device) + share * values
        return total

    def caution(self, left: Sequence[Folds], right: Sequence[Folds], pairs: Pairs) -> str:
        """Of correlations that are 1 in the fit whatever the data, so that any variates will do."""
        m = len(left[0].folds[0].basis)
        widths = [[side.folds[0].basis.shape[1] for side in (left[i], right[j])] for i, j in pairs]
        p, q = max(widths, key=sum)
        forced = p + q - (m - 1)
        if forced <= 0:
            return ""
        return (
            f"{forced} canonical correlations of the n = {m} samples fitted are 1 whatever the "
            f"data, with p = {p} and q = {q} independent features: variates, and so the value, are "
            "not unique; use more samples, cross_validated_svcca with fewer components or "
            "ridge_predictivity"
        )

    def _mean(self, x: Fold, u: Tensor, y: Fold, vt: Tensor) -> Tensor:
        """Mean correlation of one pair and fold."""
        k, m = x.basis.shape[1], y.basis.shape[1]
        u, v = u[:k, : min(k, m)], vt[: min(k, m), :m].mT
        correlations = _correlations(x.scores @ u, y.scores @ v)
        if not self.weighted:
            return correlations.mean()
        weights = (u.mT @ x.coordinates).abs().sum(dim=1)
        return weights @ correlations / weights.sum()


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlations (k,) of columns of (h, k); 0 where one is constant."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    sizes = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
    found: Tensor = (a * b).sum(dim=0) / sizes.where(sizes > 0, 1.0)
    return found


@register
@dataclass(frozen=True)
class CrossValidatedCCA(_CrossValidatedCCA):
    """See `cross_validated_cca`."""

    info: ClassVar[Info] = Info(
        name="cross_validated_cca",
        title="cross-validated CCA",
        kind="similarity",
        formula="mean over folds of the mean correlation, among the samples of the fold, of "
        "canonical variates fitted to the others",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation", "linear"),
        differentiable="no",
        cost="f n p²; f (n p² + p³) for f folds",
        source="Hotelling 1936; cross-validation as Williams et al. 2021",
        of_itself=1.0,
    )

    def basis(self, fitted: Prepared) -> Tensor:
        """Of all features."""
        check_not_saturated(fitted, fitted.rank, self.info.name)
        return fitted.basis


@register
@dataclass(frozen=True)
class CrossValidatedSVCCA(_CrossValidatedCCA):
    """See `cross_validated_svcca`."""

    info: ClassVar[Info] = Info(
        name="cross_validated_svcca",
        title="cross-validated SVCCA",
        kind="similarity",
        formula="as cross_validated_cca, of the principal components of the samples fitted that "
        "hold 99 % of the variance (or the share `variance`), or the first `components`",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="no",
        cost="f (n p² + p³); f (n k² + k³) for f folds",
        source="Raghu et al. 2017; cross-validation as Williams et al. 2021",
        of_itself=1.0,
    )
    variance: float | None = None
    components: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        SVCCA(variance=self.variance, components=self.components)  # checks them

    def basis(self, fitted: Prepared) -> Tensor:
        """Of the first principal components."""
        kept = SVCCA(variance=self.variance, components=self.components).kept(fitted)
        check_not_saturated(fitted, kept, self.info.name)
        return fitted.left_vectors(kept)


@register
@dataclass(frozen=True)
class CrossValidatedPWCCA(_CrossValidatedCCA):
    """See `cross_validated_pwcca`."""

    info: ClassVar[Info] = Info(
        name="cross_validated_pwcca",
        title="cross-validated PWCCA",
        kind="similarity",
        formula="as cross_validated_cca, weighted by what each variate of x accounts for of the "
        "features of the samples fitted",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "scale", "translation"),
        differentiable="no",
        cost="f n p²; f (n p² + p³) for f folds",
        source="Morcos et al. 2018; cross-validation as Williams et al. 2021",
        symmetric=False,
        of_itself=1.0,
    )
    weighted: ClassVar[bool] = True

    def basis(self, fitted: Prepared) -> Tensor:
        """Of all features."""
        check_not_saturated(fitted, fitted.rank, self.info.name)
        return fitted.basis


def cross_validated_cca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Mean canonical correlation among samples that the variates were not fitted to.

    A similarity in [-1, 1], about 0 for unrelated representations whatever n, p and q, where that
    of `cca` grows with (p + q)/n. Samples are dealt to folds at random; canonical variates are
    fitted to all folds but one, and correlated among the samples of that one. All correlations
    count alike, and folds by their samples.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        folds: Number of folds, 2 to n/3.
        seed: Seed of the folds; global random state is not touched.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; not differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant among the samples fitted, or has as many
            independent features. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, an option out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cca, cross_validated_cca
        >>> x, y = torch.randn(200, 10), torch.randn(200, 10)
        >>> bool(cross_validated_cca(x, y) < cca(x, y))
        True

    References:
        Hotelling, "Relations between two sets of variates", 1936.
        Williams et al., "Generalized shape metrics on neural representations", 2021 (distances of
        samples held out).
    """
    return CrossValidatedCCA(folds=folds, seed=seed)(x, y)


def cross_validated_svcca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    variance: float | None = None,
    components: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Cross-validated canonical correlation of the leading principal components.

    A similarity in [-1, 1], as `cross_validated_cca` of the components that `svcca` keeps of the
    samples fitted. Arguments are those of the two, and so are the errors.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cross_validated_svcca
        >>> value = cross_validated_svcca(torch.randn(50, 200), torch.randn(50, 9), components=5)

    References:
        Raghu et al., "SVCCA: singular vector canonical correlation analysis", 2017.
    """
    measure = CrossValidatedSVCCA(variance=variance, components=components, folds=folds, seed=seed)
    return measure(x, y)


def cross_validated_pwcca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Cross-validated canonical correlation, weighted by what variates account for in x.

    A similarity in [-1, 1], as `cross_validated_cca` with the weights of `pwcca` among the samples
    fitted, where x weighs. Not symmetric. Arguments and errors as for `cross_validated_cca`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cross_validated_pwcca
        >>> value = cross_validated_pwcca(torch.randn(100, 5), torch.randn(100, 8))

    References:
        Morcos et al., "Insights on representational similarity in neural networks with canonical
        correlation", 2018.
    """
    return CrossValidatedPWCCA(folds=folds, seed=seed)(x, y)
