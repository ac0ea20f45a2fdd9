"""An estimator of scikit-learn: two representations aligned on some samples, compared on others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from repsim_fast._core.extras import extra
from repsim_fast.similarity import prepare

__all__ = ["ShapeMetric"]

_Estimator: Any = extra("sklearn.base", of="sklearn", purpose="adapters.scikit_learn").BaseEstimator
Matrix = npt.NDArray[np.float64]


class ShapeMetric(_Estimator):
    """Angular shape metric whose alignment is fitted on some samples and scored on others.

    On the samples that it was fitted on it is ``similarity.shape_distance``: ``alpha`` 1 aligns by
    rotations, 0 by any linear map. On others it says how far the alignment holds, and does not fall
    with the number of features by itself.

    Args:
        alpha: Share of the features that is not whitened, in [0, 1].

    Attributes:
        means_: Means of the features of X and Y that were fitted.
        maps_: The linear maps that align X and Y, (p, m) and (q, m), m the larger of p and q.

    Example:
        >>> import numpy as np
        >>> from repsim_fast.adapters.scikit_learn import ShapeMetric
        >>> x = np.random.default_rng(0).normal(size=(200, 5))
        >>> y = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
        >>> metric = ShapeMetric().fit(x[:100], y[:100])
        >>> bool(metric.score(x[100:], y[100:]) < 1e-6)
        True

    References:
        Williams et al., "Generalized shape metrics on neural representations", 2021.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, Y: Any) -> ShapeMetric:
        """Find the alignment of X (n, p) and Y (n, q), rows of which are the same samples.

        Raises:
            ValueError: Shapes that do not fit, NaN, Inf or masked values, a representation that
                does not vary, or ``alpha`` out of range.
        """
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: expected a number in [0, 1], got {self.alpha!r}")
        # In the dtypes given, by whose rounding `shape_distance` tells what does not vary.
        sides = [
            prepare(given, name=name).double()
            for name, given in zip("XY", _checked(X, Y), strict=True)
        ]
        centred = [side.centered.numpy() for side in sides]
        self.means_ = tuple(side.features.mean(dim=0).numpy() for side in sides)
        scales = [
            _whitening(x, side.cutoff, self.alpha) for x, side in zip(centred, sides, strict=True)
        ]
        left, right = (x @ scale for x, scale in zip(centred, scales, strict=True))
        u, _, vt = np.linalg.svd(left.T @ right)
        width = max(side.n_features for side in sides)
        self.maps_ = tuple(
            np.pad(w @ turn, ((0, 0), (0, width - turn.shape[1])))
            for w, turn in zip(scales, (u, vt.T), strict=True)
        )
        return self

    def transform(self, X: Any, Y: Any) -> tuple[Matrix, Matrix]:
        """X and Y aligned with one another, (n, m) each.

        Raises:
            ValueError: Shapes that do not fit those that were fitted, NaN or Inf.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        x, y = (given.astype(np.float64) for given in _checked(X, Y))
        for name, matrix, mean in (("X", x, self.means_[0]), ("Y", y, self.means_[1])):
            if matrix.shape[1] != len(mean):
                raise ValueError(
                    f"{name}: expected {len(mean)} features as fitted, got {matrix.shape[1]}"
                )
        return (x - self.means_[0]) @ self.maps_[0], (y - self.means_[1]) @ self.maps_[1]

    def score(self, X: Any, Y: Any) -> float:
        """Angle between X and Y in their alignment, in [0, π]: a distance, 0 for equal ones.

        Raises:
            ValueError: As of ``transform``, or samples that do not vary.
        """
        x, y = self.transform(X, Y)
        norms = np.linalg.norm(x) * np.linalg.norm(y)
        if not np.isfinite(norms):
            raise ValueError("X, Y: features are too large, their squares overflow")
        if not norms > 0:
            raise ValueError("X, Y: expected samples that differ from the fitted means, got none")
        return float(np.arccos(np.clip((x * y).sum() / norms, -1.0, 1.0)))

    def fit_score(self, X: Any, Y: Any) -> float:
        """The distance of X and Y on the samples that align them."""
        return self.fit(X, Y).score(X, Y)


def _checked(X: Any, Y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Both as matrices of floating point, of integers float64."""
    from sklearn.utils.validation import check_array, check_consistent_length

    for name, matrix in (("X", X), ("Y", Y)):
        if np.ma.is_masked(matrix):
            raise ValueError(f"{name}: expected values everywhere, got masked ones")
    x, y = (
        check_array(matrix, dtype=[np.float64, np.float32, np.float16], input_name=name)
        for name, matrix in (("X", X), ("Y", Y))
    )
    check_consistent_length(x, y)
    return x, y


def _whitening(
    x: Matrix,  # (n, p), centred
    cutoff: float,
    alpha: float,
) -> Matrix:
    """αI + (1 - α)(XᵀX)^-½ (p, p), the root inverted where XᵀX is more than rounding."""
    _, values, vectors = np.linalg.svd(x, full_matrices=False)
    kept = values > cutoff
    inverse = (vectors[kept].T / values[kept]) @ vectors[kept]
    whitened: Matrix = alpha * np.eye(x.shape[1]) + (1 - alpha) * inverse
    return whitened
