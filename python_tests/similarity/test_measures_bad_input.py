"""Errors name the argument, what was wanted and what was given; no NaN passes in silence."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch

from repsim_fast import similarity
from repsim_fast.similarity import get_measure, grid, jackknife, measure_names, prepare

X, Y = torch.randn(30, 5), torch.randn(30, 6)
NAMES = measure_names()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_features_are_refused(name, bad):
    broken = X.clone()
    broken[3, 2] = bad
    with pytest.raises(ValueError, match="x: expected finite values, got 1 NaN or Inf"):
        getattr(similarity, name)(broken, Y)
    with pytest.raises(ValueError, match="y: expected finite values"):
        getattr(similarity, name)(Y, broken)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_dtypes_and_sizes(name):
    function = getattr(similarity, name)
    with pytest.raises(ValueError, match="y: expected the same samples as x, got 29 rows"):
        function(X, Y[:-1])
    with pytest.raises(ValueError, match=r"x: expected a matrix .* got shape \(30,\)"):
        function(X[:, 0], Y)
    with pytest.raises(TypeError, match=r"y: expected float64.* got torch.int64"):
        function(X, Y.long())
    with pytest.raises(TypeError, match=r"x: expected a torch.Tensor, got list"):
        function(X.tolist(), Y)
    with pytest.raises(ValueError, match="sample"):
        function(X[:1], Y[:1])


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_representation_never_gives_nan(name):
    function = getattr(similarity, name)
    if name == "cka_sampled_features":  # of X nothing is left that its features have in common
        function = functools.partial(function, population=5)
    constant = torch.full((30, 4), 0.7)
    if name in (
        "magnitude_difference",
        "concentricity_difference",
        "aligned_cosine",
        "permutation_procrustes_distance",
        "soft_matching_distance",
        "eigenspace_overlap",
    ):
        assert bool(torch.isfinite(function(X, constant)))  # not centred: means are information
    elif name == "cka":
        assert bool(function(X, constant).isnan())  # documented there
    else:
        with pytest.raises(ValueError, match="y: "):
            function(X, constant)


OUT_OF_RANGE = [
    ("svcca", {"variance": 0.0}, r"variance: expected a number in \(0, 1\], got 0.0"),
    ("svcca", {"variance": 99}, r"variance: expected a number in \(0, 1\], got 99"),
    ("svcca", {"variance": float("nan")}, "variance: expected"),
    ("svcca", {"components": 0}, "components: expected 1 to"),
    ("svcca", {"components": 3, "variance": 0.9}, "either variance or components, got both"),
    ("svcca", {"summary": "median"}, "summary: expected one of 'mean', 'mean_squared'"),
    ("pwcca", {"side": "left"}, "side: expected one of 'x', 'y', 'mean', 'smaller'"),
    ("shape_distance", {"alpha": 1.1}, r"alpha: expected a number in \[0, 1\], got 1.1"),
    ("gulp_distance", {"ridge": -1.0}, r"ridge: expected a number in \[0, inf\), got -1.0"),
    ("cka_rbf", {"bandwidth": 0.0}, "bandwidth: expected a number"),
    ("cka_rbf", {"estimator": "song"}, "estimator: expected one of"),
    (
        "rsa",
        {"rdm": "mahalanobis"},
        "rdm: expected one of 'correlation', 'euclidean'",
    ),
    ("rsa", {"comparison": "kendall"}, "comparison: expected one of"),
    ("mutual_knn", {"k": 0}, "k: expected 1 to"),
    ("mutual_knn", {"k": 30}, r"k: expected 1 to 29, the other samples of xs?(\[0\])?, got 30"),
    ("mutual_knn", {"metric": "manhattan"}, "metric: expected one of 'cosine', 'euclidean'"),
    ("second_order_cosine", {"k": 40}, "k: expected 1 to 29"),
    ("intrinsic_multiscale_distance", {"k": 99}, "k: expected 1 to 29"),
    ("uniformity_difference", {"t": 0.0}, "t: expected a number in"),
    ("uniformity_difference", {"t": float("inf")}, r"t: expected a number in \(0, inf\), got inf"),
    ("gulp_distance", {"ridge": float("inf")}, r"ridge: expected a number in \[0, inf\), got inf"),
    ("cka_rbf", {"bandwidth": 1e-30}, "expected a kernel that varies"),
]


@pytest.mark.parametrize(("name", "options", "message"), OUT_OF_RANGE)
def test_options_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(similarity, name)(X, Y, **options)
    with pytest.raises(ValueError, match=message):
        grid(name, [X, Y], **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [1e-40, 1e-20])
def test_a_ridge_below_rounding_is_no_ridge_for_dependent_features(dtype, ridge):
    """In float32 directions that are rounding alone would count in full."""
    dependent = (torch.randn(60, 3).double() @ torch.randn(3, 7).double()).to(dtype)
    y = torch.randn(60, 5, dtype=dtype)
    for pair in ((dependent, y), (y, dependent)):
        with pytest.raises(similarity.UndefinedError, match="ridge 0 or one above what rounding"):
            similarity.gulp_distance(*pair, ridge=ridge)
    without = similarity.gulp_distance(dependent, y, ridge=0.0)
    tiny = similarity.gulp_distance(dependent, y, ridge=1e-11)
    torch.testing.assert_close(tiny, without, rtol=1e-4, atol=0)


def test_counts_must_be_integers():
    with pytest.raises(TypeError, match="components: expected an int, got float"):
        similarity.svcca(X, Y, components=2.0)


def test_numbers_must_be_numbers():
    with pytest.raises(TypeError, match="alpha: expected a number, got str"):
        similarity.shape_distance(X, Y, alpha="0.5")
    with pytest.raises(TypeError, match="measure: expected a name or a Measure, got int"):
        grid(3, [X])
    with pytest.raises(TypeError, match=r"clusters: expected a torch.Tensor, got list"):
        jackknife("cka", [X], clusters=[0, 1] * 15)
    with pytest.raises(ValueError, match=r"x: expected at least 1 feature, got shape \(30, 0\)"):
        similarity.cka(X[:, :0], Y)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match=r"measure: expected one of .*cca, .*svcca.*; got 'ccaa'"):
        grid("ccaa", [X])
    with pytest.raises(ValueError, match=r"svcca: expected options among \['variance', "):
        get_measure("svcca", threshold=0.9)
    with pytest.raises(ValueError, match=r"options: .* has its own"):
        grid(get_measure("svcca"), [X], components=2)


def test_grids_say_which_representation_is_at_fault():
    with pytest.raises(TypeError, match="xs: expected a sequence of representations, got a Tensor"):
        grid("cca", X)
    with pytest.raises(TypeError, match=r"ys: expected a sequence of .*, got a Prepared"):
        grid("cca", [X], prepare(Y))
    with pytest.raises(ValueError, match="xs: expected at least one"):
        grid("cca", [])
    with pytest.raises(ValueError, match="ys: expected at least one"):
        grid("cca", [X], [])
    with pytest.raises(ValueError, match=r"xs\[1\]: expected features that vary"):
        grid("cca", [X, torch.ones(30, 2)])
    with pytest.raises(ValueError, match=r"ys\[0\]: expected the same samples as xs\[0\], got 20"):
        grid("cca", [X, Y], [Y[:20]])
    with pytest.raises(ValueError, match=r"ys\[1\]: expected finite"):
        grid("cca", [X], [Y, X / 0])
    with pytest.raises(ValueError, match=r"conv1: expected features that vary"):
        grid("cca", [X, prepare(torch.ones(30, 2), name="conv1")])


def test_few_samples():
    for name in NAMES:
        with pytest.raises(ValueError, match=r"at least|needs|expected"):
            getattr(similarity, name)(X[:1], Y[:1])
    with pytest.raises(ValueError, match="at least 4 samples, got 3"):
        similarity.cka_rbf(X[:3], Y[:3])
    with pytest.raises(ValueError, match="more samples than independent features, got 4"):
        similarity.cca(X[:5], Y[:5])


def test_huge_values_do_not_overflow_in_silence():
    big = X * 1e18  # squares overflow float32, not float64
    for name in ("cca", "procrustes_similarity", "rv_coefficient", "svcca", "cka"):
        value = grid(name, [big, Y])[0, 1]
        torch.testing.assert_close(value, grid(name, [X, Y])[0, 1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="too large, their squares overflow"):
        similarity.cca(X.double() * 1e200, Y)


def test_resampling_arguments():
    with pytest.raises(ValueError, match="groups: expected 2 to 30, the independent samples"):
        jackknife("cca", [X], groups=31)
    with pytest.raises(ValueError, match="clusters: expected 30 integers"):
        jackknife("cca", [X], clusters=torch.arange(29))
    with pytest.raises(ValueError, match="resamples: expected 2 to"):
        similarity.bootstrap("cca", [X], resamples=1)
    with pytest.raises(ValueError, match="permutations: expected 1 to"):
        similarity.permutation_test("cca", X, Y, permutations=0)
    with pytest.raises(ValueError, match="does not depend on which samples correspond"):
        similarity.permutation_test("uniformity_difference", X, Y)


def test_a_warning_of_svcca_does_not_advise_svcca():
    x, y = torch.randn(30, 20), torch.randn(30, 20)
    with pytest.warns(UserWarning, match=r"use more samples or fewer components$"):
        similarity.svcca(x, y)
    with pytest.warns(UserWarning, match=r"use more samples or svcca with fewer components$"):
        similarity.cca(x, y)


@pytest.mark.parametrize(
    ("name", "options"),
    [("rsa", {}), ("mutual_knn", {}), ("intrinsic_multiscale_distance", {})],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_gradient_that_is_not_there_is_said(name, options):
    x, y = torch.randn(30, 4, requires_grad=True), torch.randn(30, 4)
    with pytest.warns(UserWarning, match="has no gradient"):
        value = getattr(similarity, name)(x, y, **options)
    assert not value.requires_grad
    with pytest.warns(UserWarning, match="has no gradient"):
        similarity.grid(name, [y], [x], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            getattr(similarity, name)(x, y, **options)
        getattr(similarity, name)(x.detach(), y, **options)
        assert similarity.rsa(x, y, comparison="pearson").requires_grad
