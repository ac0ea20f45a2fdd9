"""Representations that are factorised once and compared many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from repsim_fast._core.cached import cached
from repsim_fast._core.checks import as_tensor, check_choice, check_finite, check_matrix
from repsim_fast.capture.features import flatten, positions
from repsim_fast.capture.means import means
from repsim_fast.similarity.base import factor

# Root mean squares between which products of float32 features neither vanish nor overflow, sums of
# many and entries much smaller than the others included.
FLOAT32_RANGE = (1e-10, 1e10)


class UndefinedError(ValueError):
    """A measure has no value, or the same one whatever the data, for a representation."""


class Prepared:
    """A representation whose factorisations are computed on first use and kept.

    Made by `prepare`; every measure takes it in place of a matrix. Means and factorisations are
    those of the samples given, so it cannot be updated; a new sample needs a new one.

    Attributes:
        features: (n, p) float32 or float64, as given.
        name: What errors call it.
    """

    def __init__(self, x: Tensor | npt.NDArray[Any], *, name: str = "x") -> None:
        given: Tensor = as_tensor(x)
        check_matrix(name, given)
        if given.shape[0] < 2 or given.shape[1] < 1:
            raise ValueError(
                f"{name}: expected at least 2 samples and 1 feature, got shape {tuple(given.shape)}"
            )
        self.features = given if given.dtype == torch.float64 else given.float()
        self.name = name
        self._eps_dtype = given.dtype

    @property
    def n_samples(self) -> int:
        """Samples n."""
        return self.features.shape[0]

    @property
    def n_features(self) -> int:
        """Features p."""
        return self.features.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of results: float64 for float64 features, otherwise float32."""
        return torch.float64 if self._eps_dtype == torch.float64 else torch.float32

    def __repr__(self) -> str:
        done = [key for key in ("centered", "basis", "eigen", "scores") if key in self.__dict__]
        return f"Prepared({self.n_samples} samples, {self.n_features} features; has {done})"

    @cached
    def _raw_norm(self) -> float:
        norm = float(torch.linalg.vector_norm(self.features.detach(), dtype=torch.float64))
        if norm == float("inf") or norm != norm:
            check_finite(self.name, self.features)
            raise ValueError(f"{self.name}: features are too large, their squares overflow")
        return norm

    @property
    def needs_float64(self) -> bool:
        """Whether squares of these float32 features, or sums of them, may leave its range."""
        low, high = (bound * self.features.numel() ** 0.5 for bound in FLOAT32_RANGE)
        return self.features.dtype == torch.float32 and not (
            self._raw_norm == 0.0 or low <= self._raw_norm <= high
        )

    @cached
    def _varying(self) -> Tensor:
        """Which features (p,) have more than one value."""
        low, high = torch.aminmax(self.features.detach(), dim=0)
        return low != high

    @cached
    def cutoff(self) -> float:
        """Singular values of the centred features up to this one count as zero.

        ``4 eps rms(x) (√n + √p)``, eps that of the dtype given: what rounding of x may have made.
        Of a feature with one value it makes the same of all samples, and nothing is left when the
        mean is gone: x are the p features that have more.

        Raises:
            ValueError: NaN or Inf among the features.
        """
        norm, count = self._raw_norm, int(self._varying.sum())
        if count == 0:
            return 0.0
        if count < self.n_features:
            varying = self.features.detach()[:, self._varying]
            norm = float(torch.linalg.vector_norm(varying, dtype=torch.float64))
        return factor.cutoff(norm, self.n_samples, count, self._eps_dtype)

    @property
    def raw_cutoff(self) -> float:
        """The same of the features as they are, means included: x are all of them.

        Raises:
            ValueError: NaN or Inf among the features.
        """
        return factor.cutoff(self._raw_norm, self.n_samples, self.n_features, self._eps_dtype)

    @property
    def rounding(self) -> float:
        """What rounding may have left of a unit vector: of features as given, and of products."""
        return torch.finfo(self._eps_dtype).eps + 4 * torch.finfo(torch.float64).eps

    @cached
    def centered(self) -> Tensor:
        """Features without their means (n, p).

        Raises:
            UndefinedError: All samples are equal, up to rounding.
        """
        least = self.cutoff
        x = factor.centred(self.features)
        if not bool(self._varying.all()):
            x = torch.where(self._varying, x, 0.0)  # of which rounding of the mean may be left
        if float(torch.linalg.vector_norm(x.detach())) <= least:
            raise UndefinedError(
                f"{self.name}: expected features that vary, got {self.n_samples} equal samples"
            )
        return x

    @cached
    def norm(self) -> Tensor:
        """Frobenius norm of the centred features, a float64 scalar."""
        norm: Tensor = torch.linalg.vector_norm(self.centered, dtype=torch.float64)
        return norm

    @cached
    def eigen(self) -> factor.Eigen:
        """Singular values and vectors of the centred features."""
        return factor.eigen(self.centered)

    @cached
    def rank(self) -> int:
        """Singular values above the cut-off; n - 1 at most."""
        return self.basis.shape[1]

    @cached
    def _factors(self) -> tuple[Tensor, Tensor | None]:
        # Where a spectrum is there already a basis comes of it for less, but without a gradient.
        spectrum = "eigen" in self.__dict__ and not self.features.requires_grad
        if self.n_features < self.n_samples and not spectrum:
            found = factor.cholesky_basis(self.centered, self.cutoff)
            if found is not None:
                return found
        self._check_no_gradient()
        kept = int((self.eigen.values > self.cutoff).sum())
        return self.left_vectors(max(1, min(kept, self.n_samples - 1))), None

    def _check_no_gradient(self) -> None:
        if self.features.requires_grad:
            raise UndefinedError(
                f"{self.name}: gradients need features of full column rank (fewer than samples and "
                "linearly independent)"
            )

    @property
    def basis(self) -> Tensor:
        """Orthonormal basis Q of the column space of the centred features (n, rank)."""
        return self._factors[0]

    @cached
    def coordinates(self) -> Tensor:
        """Centred features in that basis: QᵀX (rank, p)."""
        basis, upper = self._factors
        return basis.mT @ self.centered if upper is None else upper

    @cached
    def scores(self) -> Tensor:
        """A matrix Z (n, min(n, p)) with Z Zᵀ that of the centred features, for measures that see
        nothing else of them."""
        return _scores(self.centered, center=True)

    @cached
    def raw_scores(self) -> Tensor:
        """The same for the features as they are, means included."""
        return _scores(self.features, center=False)

    @cached
    def raw_basis(self) -> Tensor:
        """Orthonormal basis of the column space of the features, means included (n, r)."""
        least = self.raw_cutoff
        if self.n_features < self.n_samples:
            found = factor.cholesky_basis(self.features, least)
            if found is not None:
                return found[0]
        self._check_no_gradient()
        decomposed = factor.eigen(self.features)
        kept = int((decomposed.values > least).sum())
        if kept == 0:
            raise UndefinedError(f"{self.name}: expected features, got only zeros")
        return factor.left_vectors(self.features, decomposed, kept)

    def left_vectors(self, k: int) -> Tensor:
        """First k left singular vectors of the centred features (n, k)."""
        return factor.left_vectors(self.centered, self.eigen, k)

    def take(self, rows: Tensor) -> Prepared:
        """The representation of these samples (m,), nothing of it prepared."""
        return self._with(self.features[rows.to(self.features.device)])

    def double(self) -> Prepared:
        """The same in float64, with the rank cut-off of the dtype given; nothing prepared."""
        return self if self.features.dtype == torch.float64 else self._with(self.features.double())

    def _with(self, features: Tensor) -> Prepared:
        other = Prepared(features, name=self.name)
        other._eps_dtype = self._eps_dtype
        return other


def _scores(
    x: Tensor,  # (n, p)
    *,
    center: bool,
) -> Tensor:
    n, p = x.shape
    if p <= n:
        return x
    gram = factor.sample_gram(x)
    if not center:
        return factor.square_root(gram).to(x.dtype)
    # A centred Gram has the null vector 1. Lifted there it can be positive definite, and centring
    # the factor takes the lift away again.
    lifted = gram + gram.detach().trace() / (n * n)
    return factor.centred(factor.square_root(lifted)).to(x.dtype)


def prepare(
    x: Tensor | npt.NDArray[Any] | Prepared,  # (n, p)
    *,
    name: str = "x",
    maps: Literal["flatten", "pool", "positions"] | None = None,
) -> Prepared:
    """Prepares a representation for any number of comparisons.

    Nothing is computed yet: a measure factorises on first use, once, and others share the result.

    - Fewer features than samples: Cholesky factor of XᵀX in float64, if no singular value is near
      the rank cut-off; otherwise its eigenvectors, which decide the rank.
    - At least as many: eigenvectors of the smaller X Xᵀ.
    - float64 features: a second Cholesky pass, or an SVD where XᵀX would lose accuracy.

    The rank counts singular values above ``4 eps rms(x) (√n + √p)``, eps that of x's dtype, x the p
    features that are not constant: smaller ones may be rounding errors of x. Duplicate, dependent
    and constant features drop out there.

    Args:
        x: Representation of n samples with p features, a tensor or an array, float64, float32,
            float16 or bfloat16. An already prepared one is returned as it is.
        name: What errors call it.
        maps: What becomes of maps (n, channels, ...): "flatten", all numbers of a sample are
            features; "pool", the mean over positions; "positions", each position is a sample.
            Default: they are an error.

    Returns:
        The prepared representation; it refers to x, which must not be changed afterwards.

    Raises:
        TypeError: ``x`` is not a floating-point tensor.
        ValueError: ``x`` is not a matrix, has fewer than 2 samples or no feature. NaN or Inf raise
            when a measure first uses it.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cca, prepare
        >>> layers = [prepare(torch.randn(100, 10)) for _ in range(3)]
        >>> value = cca(layers[0], layers[1])
    """
    if isinstance(x, Prepared):
        return x
    if maps is None:
        return Prepared(x, name=name)
    check_choice("maps", maps, tuple(_OF_MAPS))
    tensor = as_tensor(x)
    if not isinstance(tensor, Tensor) or tensor.ndim < 2:
        check_matrix(name, tensor)
    return Prepared(_OF_MAPS[maps](tensor), name=name)


_OF_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": flatten,
    "pool": lambda x: means(x, "first"),
    "positions": lambda x: positions(x, "first"),
}
