"""The shape metric as an estimator of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

sklearn_base = pytest.importorskip("sklearn.base")

from repsim_fast.adapters.scikit_learn import ShapeMetric  # noqa: E402
from repsim_fast.similarity import shape_distance  # noqa: E402

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(80, 6)), RANDOM.normal(size=(80, 4)) + 3


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("x", "y"), [(X, Y), (Y, X), (X, X @ RANDOM.normal(size=(6, 6)))])
def test_on_the_samples_it_was_fitted_on_it_is_shape_distance(
    alpha: float, x: np.ndarray, y: np.ndarray
) -> None:
    expected = shape_distance(torch.from_numpy(x), torch.from_numpy(y), alpha=alpha)
    # arccos near 1 has half the digits of its argument.
    assert ShapeMetric(alpha=alpha).fit_score(x, y) == pytest.approx(float(expected), abs=1e-7)


DEPENDENT = X @ RANDOM.normal(size=(6, 20))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (DEPENDENT.astype(np.float32), Y.astype(np.float32)),
        (np.column_stack([X, np.full(80, 1e6 + 0.7)]), Y),
        (X * 1e-20, Y),
    ],
    ids=["dependent float32", "a constant feature", "small"],
)
def test_what_rounding_leaves_is_not_aligned(alpha: float, x: np.ndarray, y: np.ndarray) -> None:
    expected = shape_distance(torch.from_numpy(x), torch.from_numpy(y), alpha=alpha)
    assert ShapeMetric(alpha=alpha).fit_score(x, y) == pytest.approx(float(expected), abs=1e-6)


def test_unrelated_representations_are_far_apart_on_other_samples_only() -> None:
    x, y = RANDOM.normal(size=(60, 50)), RANDOM.normal(size=(60, 50))
    metric = ShapeMetric(alpha=0).fit(x[:30], y[:30])
    assert metric.score(x[:30], y[:30]) < 1e-5  # 50 features fit 30 samples, whatever they are
    assert metric.score(x[30:], y[30:]) > 1.2


def test_it_is_an_estimator() -> None:
    metric = sklearn_base.clone(ShapeMetric(alpha=0.5))
    assert metric.get_params() == {"alpha": 0.5}
    a, b = metric.fit(X[:50], Y[:50]).transform(X[50:], Y[50:])
    assert a.shape == b.shape == (30, 6)
    angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    assert metric.score(X[50:], Y[50:]) == pytest.approx(angle)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="alpha: expected"):
        ShapeMetric(alpha=2).fit(X, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ShapeMetric().fit(X, Y[:50])
    with pytest.raises(ValueError, match="NaN"):
        ShapeMetric().fit(X * np.nan, Y)
    with pytest.raises(ValueError, match="expected features that vary"):
        ShapeMetric().fit(np.ones((20, 3)), Y[:20])
    with pytest.raises(ValueError, match="X: expected features that vary, got 80 equal samples"):
        ShapeMetric().fit(np.full((80, 3), 1e6 + 0.7), Y)
    with pytest.raises(ValueError, match="Y: features are too large, their squares overflow"):
        ShapeMetric().fit(X, Y * 1e200)
    with pytest.raises(ValueError, match="X, Y: features are too large, their squares overflow"):
        ShapeMetric().fit(X, Y).score(X * 1e200, Y)
    with pytest.raises(ValueError, match="Y: expected values everywhere, got masked ones"):
        ShapeMetric().fit(X, np.ma.masked_less(Y, 3))
    with pytest.raises(ValueError, match="not fitted"):
        ShapeMetric().score(X, Y)
    with pytest.raises(ValueError, match="X: expected 6 features as fitted, got 4"):
        ShapeMetric().fit(X, Y).score(Y, Y)
