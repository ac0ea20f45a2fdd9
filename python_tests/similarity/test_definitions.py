"""Every measure, every option, against its definition written out in definitions.py."""

from __future__ import annotations

import sys

import pytest
import torch

from python_tests.support import definitions
from repsim_fast import similarity
from repsim_fast.similarity import get_measure, grid, measure_names

COMPARISONS = (
    "spearman",
    "rho_a",
    "tau_a",
    "pearson",
    "cosine",
    "whitened_pearson",
    "whitened_cosine",
)

OPTIONS = {
    "cca": [{}, {"summary": "mean_squared"}],
    "cka": [{}, {"estimator": "biased"}],
    "cka_sampled_features": [{}, {"population": 11}, {"population": 1000}],
    "cka_rbf": [{}, {"estimator": "biased"}, {"bandwidth": 0.2}, {"bandwidth": 0.8}],
    "svcca": [
        {},
        {"variance": 0.7},
        {"variance": 1.0},
        {"components": 3},
        {"components": 4, "summary": "mean_squared"},
    ],
    "pwcca": [{"side": side} for side in ("x", "y", "mean", "smaller")],
    "cross_validated_cca": [{}, {"folds": 3, "seed": 4}],
    "cross_validated_svcca": [{}, {"components": 3}, {"variance": 0.7, "folds": 4}],
    "cross_validated_pwcca": [{}, {"folds": 3, "seed": 4}],
    "linear_predictivity": [{}, {"folds": 2}, {"folds": 20, "seed": 4}],
    "ridge_predictivity": [{}, {"ridge": 0.1}, {"ridge": 1e-5}, {"folds": 3, "seed": 4}],
    "shape_distance": [{}, {"alpha": 0.0}, {"alpha": 0.4}],
    "gulp_distance": [{}, {"ridge": 0.0}, {"ridge": 1.0}],
    "rsa": [
        {"rdm": rdm, "comparison": comparison}
        for rdm in ("correlation", "euclidean", "sqeuclidean", "cosine")
        for comparison in COMPARISONS
    ],
    "mutual_knn": [{}, {"k": 3}, {"k": 1}, {"metric": "euclidean"}, {"k": 59}],
    "cycle_knn": [{}, {"k": 3, "metric": "euclidean"}, {"k": 1}],
    "lcs_knn": [{}, {"k": 3, "metric": "euclidean"}, {"k": 59}],
    "edit_distance_knn": [{}, {"k": 3, "metric": "euclidean"}, {"k": 59}],
    "cknna": [{}, {"k": 3}, {"k": 59}],
    "soft_matching_distance": [{}, {"standardise": True}],
    "jaccard_similarity": [{}, {"k": 3, "metric": "euclidean"}],
    "rank_similarity": [{}, {"k": 3, "metric": "euclidean"}],
    "joint_rank_jaccard": [{}, {"k": 3, "metric": "euclidean"}],
    "second_order_cosine": [{}, {"k": 4}],
    "uniformity_difference": [{}, {"t": 0.5}],
    "intrinsic_multiscale_distance": [{}, {"k": 8}],
}
CASES = [(name, options) for name in measure_names() for options in OPTIONS.get(name, [{}])]

# Relative to 1 or to the value: float64 definitions invert matrices and take roots.
FLOAT64 = 1e-9
FLOAT32 = 2e-5


def related(n: int = 60, p: int = 7, q: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    """Two representations with something in common, means, and features of many sizes."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    common = normal(n, 5)
    x = common @ normal(5, p) + 0.7 * normal(n, p) * torch.linspace(0.3, 2, p) + normal(p)
    y = common @ normal(5, q) + 0.9 * normal(n, q) - 2 * normal(q)
    return x / 3, y / 3


def expected(name: str, x: torch.Tensor, y: torch.Tensor, options: dict) -> float:
    return definitions.all_definitions()[name](x.numpy(), y.numpy(), **options)


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_float64_value_is_that_of_the_definition(name, options):
    x, y = related()
    value = getattr(similarity, name)(x, y, **options)
    assert value.dtype == torch.float64
    assert value.shape == ()
    truth = expected(name, x, y, options)
    assert float(value) == pytest.approx(truth, rel=FLOAT64, abs=FLOAT64 * max(1e-6, abs(truth)))


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_float32_value_is_near_it(name, options):
    x, y = (m.float() for m in related())
    value = getattr(similarity, name)(x, y, **options)
    assert value.dtype == torch.float32
    truth = float(getattr(similarity, name)(x.double(), y.double(), **options))
    assert float(value) == pytest.approx(truth, abs=FLOAT32 * max(1, abs(truth)))


@pytest.mark.parametrize(
    "ridge", [3.0, 1e3, 1e8, 1e15, 1e30, 1e60, 1e155, 1e300, sys.float_info.max]
)
@pytest.mark.parametrize(("dtype", "relative"), [("float64", FLOAT64), ("float32", FLOAT32)])
def test_gulp_distance_falls_like_one_over_a_large_ridge(ridge, dtype, relative):
    x, y = (m.to(getattr(torch, dtype)) for m in related())
    # The definition's squares underflow beyond 1e15, from where on λ d does not change.
    largest = min(ridge, 1e15)
    truth = largest * expected("gulp_distance", x.double(), y.double(), {"ridge": largest})
    value = grid(get_measure("gulp_distance", ridge=ridge), [x, y])[0, 1]
    assert float(value) * ridge == pytest.approx(truth, rel=relative)
    one = similarity.gulp_distance(x, y, ridge=ridge)
    assert float(one) == pytest.approx(truth / ridge, rel=relative, abs=torch.finfo(one.dtype).tiny)
    assert similarity.gulp_distance(x, x, ridge=ridge) == 0


@pytest.mark.parametrize("rdm", ["correlation", "cosine"])
@pytest.mark.parametrize("comparison", ["spearman", "pearson", "cosine"])
def test_cosines_near_one_keep_their_differences(rdm, comparison):
    """Features with means far from zero: 1 - cosine is 1e-6 here, rounding of cosines 1e-7."""
    x, y = ((m + 1000 * torch.randn(m.shape[1])).float() for m in related())
    options = {"rdm": rdm, "comparison": comparison}
    value = float(similarity.rsa(x, y, **options))
    assert value == pytest.approx(expected("rsa", x.double(), y.double(), options), abs=1e-4)


@pytest.mark.parametrize("name", ["mutual_knn", "rank_similarity", "second_order_cosine"])
def test_nearest_neighbours_among_cosines_near_one(name):
    x, y = ((m + 1000 * torch.randn(m.shape[1])).float() for m in related())
    value = float(getattr(similarity, name)(x, y, k=3))
    assert value == pytest.approx(expected(name, x.double(), y.double(), {"k": 3}), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
def test_partly_whitened_shapes_of_more_features_than_samples(alpha):
    """Only whitening all of it makes every such representation the same."""
    x, y = related(n=30, p=50, q=80)
    truth = definitions.shape_distance(x.numpy(), y.numpy(), alpha)
    assert 0.1 < truth < 1.5
    assert float(similarity.shape_distance(x, y, alpha=alpha)) == pytest.approx(truth, rel=1e-6)
    single = float(similarity.shape_distance(x.float(), y.float(), alpha=alpha))
    assert single == pytest.approx(truth, abs=1e-5)
    with pytest.raises(similarity.UndefinedError, match="alpha 0 needs more samples"):
        similarity.shape_distance(x, y, alpha=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("rdm", ["correlation", "cosine"])
def test_collinear_samples_have_no_dissimilarities(rdm, comparison, dtype):
    """All are 0, but for rounding that depends on the order of features."""
    generator = torch.Generator().manual_seed(5)
    for features in (3, 20, 500):
        pattern = torch.randn(features, generator=generator, dtype=torch.float64)
        sizes = torch.rand(30, 1, generator=generator, dtype=torch.float64) + 0.1
        x = (sizes * pattern + (0.3 * sizes if rdm == "correlation" else 0)).to(dtype)
        y = torch.randn(30, 8, generator=generator).to(dtype)
        for order in (torch.arange(features), torch.randperm(features, generator=generator)):
            with pytest.raises(similarity.UndefinedError, match="x: expected dissimilarities that"):
                similarity.rsa(x[:, order], y, rdm=rdm, comparison=comparison)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "comparison", ["spearman", "rho_a", "tau_a", "pearson", "whitened_pearson"]
)
@pytest.mark.parametrize("rdm", ["correlation", "cosine", "euclidean", "sqeuclidean"])
def test_equal_dissimilarities_do_not_correlate(rdm, comparison, dtype):
    x = torch.linalg.qr(torch.randn(20, 20).double())[0].to(dtype)  # each as far from each
    if rdm == "correlation":
        x = torch.cat([x, -x], dim=1)
    y = torch.randn(20, 8, dtype=dtype)
    with pytest.raises(similarity.UndefinedError, match="x: expected dissimilarities that vary"):
        similarity.rsa(x, y, rdm=rdm, comparison=comparison)


def test_opposite_samples_vary():
    """Collinear, but of two signs: dissimilarities 0 and 2."""
    x = torch.tensor([1.0, 2.0, -1.0, 3.0, -2.0, 0.5])[:, None] * torch.randn(9)
    y = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0, 1.0])[:, None] * torch.randn(4)
    for comparison in COMPARISONS:
        value = float(similarity.rsa(x, y, rdm="cosine", comparison=comparison))
        # Of 15 pairs of samples 7 are alike and 8 opposite: all the others tie.
        tied = {"tau_a": 1 - (7 * 6 + 8 * 7) / (15 * 14)}
        tied["rho_a"] = 1 - (7**3 - 7 + 8**3 - 8) / (15**3 - 15)
        assert value == pytest.approx(tied.get(comparison, 1.0))


@pytest.mark.parametrize("features", [7, 200])
def test_samples_of_equal_features_correlate_with_nothing(features):
    x = torch.randn(20, features, dtype=torch.float64)
    y = x + torch.randn(20, features, dtype=torch.float64)
    zero = x - x.mean(dim=1, keepdim=True)
    zero[4] = 0
    for value in (0.1, 1e-3, 123.456):
        x[4] = value
        torch.testing.assert_close(similarity.rsa(x, y), similarity.rsa(zero, y))


def test_correlations_of_two_features_are_refused():
    x = torch.randn(20, 2)
    with pytest.raises(similarity.UndefinedError, match=r"y: correlations .* at least 3 features"):
        similarity.rsa(torch.randn(20, 5), x)
    assert float(similarity.rsa(x, x + 1e-3, rdm="cosine")) > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_distances_of_binary_features_are_ties(dtype):
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.rand(60, 30, generator=generator) < 0.3 for _ in range(2))
    y[:, :15] = x[:, :15]
    value = similarity.rsa(x.to(dtype), y.to(dtype), rdm="euclidean")
    exact = []
    for features in (x.long(), y.long()):  # numbers of features that differ: ranks of integers
        distances = (features[:, None] != features[None]).sum(dim=2)
        lower = distances[torch.tril_indices(60, 60, -1).unbind()]
        exact.append((lower[:, None] > lower).sum(1) + ((lower[:, None] == lower).sum(1) + 1) / 2)
    truth = float(torch.corrcoef(torch.stack(exact).double())[0, 1])
    assert float(value) == pytest.approx(truth, abs=1e-6)


def test_orthogonal_samples_are_ties():
    """Sparse features: most cosines are 0 exactly, whatever rounding does."""
    generator = torch.Generator().manual_seed(3)
    x, y = (
        torch.randint(1, 9, (60, 40), generator=generator)
        * (torch.rand(60, 40, generator=generator) < 0.06)
        for _ in range(2)
    )
    for sparse in (x, y):
        sparse[torch.arange(60), torch.arange(60) % 40] = 5
    options = {"rdm": "cosine", "comparison": "spearman"}
    value = float(similarity.rsa(x.float(), y.float(), **options))
    assert value == pytest.approx(expected("rsa", x.double(), y.double(), options), abs=1e-4)


@pytest.mark.parametrize("scale", [1e-35, 1e-22, 1e18, 1e34])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", measure_names())
def test_squares_that_leave_float32(name, wide, scale):
    """Features themselves are ordinary float32 numbers."""
    if name == "uniformity_difference":
        pytest.skip("is 0 or infinite there")
    x, y = (m.float() for m in (related(30, 50, 80) if wide else related()))
    options = {"components": 5} if name.endswith("svcca") else {}
    measure = get_measure(name, **options)
    try:
        value = float(measure(x, y))
    except similarity.UndefinedError:
        return
    scaled = measure(x * scale, y * scale)
    assert scaled.dtype == torch.float32
    unit = 1.0 if "scale" in measure.info.invariant_to or name == "shape_distance" else scale
    assert float(scaled) / unit == pytest.approx(value, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("name", measure_names())
def test_wider_than_samples_where_that_is_defined(name):
    """More features than samples: those invariant to linear maps refuse, others are exact."""
    x, y = related(n=30, p=50, q=80)
    refuses = {
        "cca",
        "pwcca",
        "svcca",
        "linear_regression",
        "eigenspace_overlap",
        "cross_validated_cca",
        "cross_validated_pwcca",
        "cross_validated_svcca",
        "linear_predictivity",
    }
    options = {"ridge": 0.1} if name == "gulp_distance" else {}
    if name.endswith("svcca"):
        options = {"components": 5}
    if name in refuses and not options:
        with pytest.raises(similarity.UndefinedError, match="more samples than independent"):
            getattr(similarity, name)(x, y)
        return
    value = float(getattr(similarity, name)(x, y, **options))
    truth = expected(name, x, y, options)
    # The rotation of aligned_cosine is not unique here; both sides choose a best one.
    tolerance = 0.05 if name == "aligned_cosine" else 1e-8
    assert value == pytest.approx(truth, rel=tolerance)
    single = float(getattr(similarity, name)(x.float(), y.float(), **options))
    assert single == pytest.approx(value, abs=1e-4 * max(1, abs(value)))


@pytest.mark.parametrize("name", measure_names())
def test_grid_is_all_pairs(name):
    """Different widths, so that batches are padded; both forms of the grid."""
    x, y = related()
    layers = [x, y, torch.cat([x, y], dim=1).relu() + 0.01 * x[:, :1], y[:, :6] + x[:, :6]]
    others = [y.flip(1) ** 3, x]
    function = getattr(similarity, name)
    among = grid(name, layers)
    assert among.shape == (4, 4)
    assert among.dtype == torch.float64
    pairs = torch.tensor([[float(function(a, b)) for b in layers] for a in layers])
    # Distances of a representation to itself are known to be 0, and otherwise rounding.
    torch.testing.assert_close(among, pairs.double(), atol=2e-6, rtol=1e-6)
    between = grid(name, layers, others)
    pairs = torch.tensor([[float(function(a, b)) for b in others] for a in layers])
    torch.testing.assert_close(between, pairs.double(), atol=2e-6, rtol=1e-6)


def test_every_measure_has_a_function_of_its_name():
    for name in measure_names():
        assert callable(getattr(similarity, name))
        assert name in similarity.__all__
        assert get_measure(name).info.name == name


def test_mixed_dtypes_are_computed_in_float64():
    x, y = related()
    assert similarity.cca(x.float(), y).dtype == torch.float64
    assert similarity.cca(x.half(), y.bfloat16()).dtype == torch.float32
    value = grid("procrustes_similarity", [x.float()], [y])
    assert float(value) == pytest.approx(definitions.procrustes_similarity(x.numpy(), y.numpy()))
