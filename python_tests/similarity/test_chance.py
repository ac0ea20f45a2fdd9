"""Chance levels and calibrated values: known levels, independence of width, their formula."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from python_tests.support import definitions
from repsim_fast import compare, similarity
from repsim_fast.similarity import (
    calibrate,
    calibrated,
    chance_level,
    get_measure,
    grid,
    measure_info,
    permutation_test,
)

PAIRED = [
    n for n in definitions.of_few_features() if "multiscale" not in n and "difference" not in n
]


def gaussians(n: int, *widths: int) -> list[torch.Tensor]:
    return [torch.randn(n, p) for p in widths]


@pytest.mark.parametrize(
    ("name", "options", "known"),
    [
        ("linear_regression", {}, 40 / 199),  # rank of the predictor over n - 1, exactly
        ("cca", {"summary": "mean_squared"}, 40 / 199),  # the larger rank over n - 1
        ("cka", {}, 0.0),
        ("mutual_knn", {"k": 10}, 10 / 199),  # k over n - 1
        ("soft_correlation_match", {}, None),
    ],
)
def test_chance_levels_that_are_known(name, options, known):
    x, y = gaussians(200, 30, 40)
    level = float(chance_level(name, [x], [y], permutations=200, **options))
    if known is not None:
        assert level == pytest.approx(known, abs=0.01)
    unrelated = [
        float(grid(name, *[[m] for m in gaussians(200, 30, 40)], **options)) for _ in range(40)
    ]
    error = np.std(unrelated) / 40**0.5
    assert level == pytest.approx(np.mean(unrelated), abs=4 * error)


def test_levels_of_few_samples():
    """Independent Gaussians, n = 1000, p = q = 400."""
    x, y = gaussians(1000, 400, 400)
    known = {
        "cca": 0.563,
        "svcca": 0.547,
        "pwcca": 0.563,
        "linear_regression": 0.402,
        "procrustes_similarity": 0.516,
    }
    for name, level in known.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # chance levels are what the warning asks for
            found = float(chance_level(name, [x], [y], permutations=4))
        assert found == pytest.approx(level, abs=0.004)


def by_formula(name, x, y, permutations, alpha, seed):
    """Written out: the threshold is an order statistic of the value and those of permutations."""
    info = measure_info(name)
    test = permutation_test(name, x, y, permutations=permutations, seed=seed)
    value, null = float(test.value), sorted(test.null.tolist())
    best = 1.0 if info.kind == "similarity" else 0.0
    if info.kind == "similarity":
        threshold = sorted([value, *null])[math.ceil((1 - alpha) * (permutations + 1)) - 1]
        calibrated = (value - threshold) / (best - threshold) if threshold < best else 0.0
    else:
        from_far = sorted([value, *null], reverse=True)
        threshold = from_far[math.ceil((1 - alpha) * (permutations + 1)) - 1]
        calibrated = (threshold - value) / (threshold - best)
    return value, sum(null) / permutations, threshold, max(calibrated, 0.0), test.p_value


@pytest.mark.parametrize("name", PAIRED)
def test_agrees_with_the_formula(name):
    x = torch.randn(40, 5)
    options = {"permutations": 19, "alpha": 0.1, "seed": 3}
    for y in (x + 0.7 * torch.randn(40, 5), torch.randn(40, 6)):
        if measure_info(name).of_itself is None and math.isinf(measure_info(name).high):
            continue
        found = calibrate(name, [x], [y], **options)
        value, chance, threshold, score, p_value = by_formula(name, x, y, **options)
        assert float(found.value) == pytest.approx(value)
        assert float(found.chance) == pytest.approx(chance, rel=1e-5, abs=1e-7)
        assert float(found.threshold) == pytest.approx(threshold, rel=1e-5, abs=1e-7)
        assert float(found.calibrated) == pytest.approx(score, abs=1e-4)
        assert float(found.p_value) == pytest.approx(p_value)
        one = grid(calibrated(name, **options), [x], [y])
        assert float(one) == pytest.approx(score, abs=1e-4)


def test_all_pairs_of_one_set_and_of_two():
    layers = gaussians(60, 8, 12)
    layers.append(layers[0] @ torch.randn(8, 10) + 0.5 * torch.randn(60, 10))
    among = calibrate("cca", layers, permutations=39)
    assert among.value.shape == (3, 3)
    torch.testing.assert_close(among.value, grid("cca", layers))
    torch.testing.assert_close(among.calibrated, among.calibrated.T)
    assert bool((among.calibrated.diagonal() == 1).all())
    assert bool((among.chance.diagonal() < 0.6).all())
    assert float(among.p_value[0, 2]) == pytest.approx(1 / 40)
    between = calibrate("cca", layers[:1], layers[1:], permutations=39)
    torch.testing.assert_close(between.value[0], among.value[0, 1:])
    torch.testing.assert_close(grid(calibrated("cca", permutations=39), layers), among.calibrated)
    one_way = calibrate("linear_regression", layers[:2], permutations=39)
    assert float(one_way.value[0, 1]) != pytest.approx(float(one_way.value[1, 0]))


def test_calibrated_values_do_not_depend_on_width():
    """Unrelated representations are 0 but for one in twenty, however wide; related ones are not."""
    values = {}
    for width in (5, 80):
        found = [
            float(
                calibrate(
                    "cca", *[[m] for m in gaussians(100, width, width)], permutations=39
                ).calibrated
            )
            for _ in range(60)
        ]
        values[width] = np.mean(np.array(found) > 0)
        assert np.mean(found) < 0.01
    assert max(values.values()) <= 0.15  # 0.05 expected of 60 each
    x = torch.randn(100, 80)
    assert float(calibrate("cca", [x], [x + 0.5 * torch.randn(100, 80)]).calibrated) > 0.1


def test_in_a_comparison_of_models():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    result = compare([model, model], torch.randn(60, 6), measure=calibrated("cca", permutations=19))
    assert bool((torch.as_tensor(result.value).diagonal() == 1).all())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, "alpha: expected a number in"),
        ({"permutations": 10}, ValueError, r"permutations: expected 19 to .* for alpha 0.05"),
        ({"permutations": 9.5}, TypeError, "permutations: expected an int"),
    ],
)
def test_bad_options(arguments, error, message):
    with pytest.raises(error, match=message):
        calibrated("cca", **arguments)


def test_measures_that_cannot_be_calibrated():
    x, y = gaussians(20, 3, 3)
    with pytest.raises(ValueError, match="does not depend on which samples correspond"):
        calibrate("magnitude_difference", [x], [y])
    with pytest.raises(ValueError, match="does not depend on which samples correspond"):
        chance_level("intrinsic_multiscale_distance", [x], [y])


RATIO = r"p = 25 and q = 30 independent features of n = 100 samples: with \(p \+ q\)/n = 0.55 above"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cca", {}, RATIO),
        ("svcca", {"variance": 1.0}, RATIO),
        ("pwcca", {}, RATIO),
        ("shape_distance", {"alpha": 0.0}, RATIO),
        ("gulp_distance", {"ridge": 0.0}, RATIO),
        ("linear_regression", {}, r"q = 30 independent features of n = 100 samples explain 0.30"),
        ("eigenspace_overlap", {}, r"p = 25 and q = 30 .* n = 100 samples overlap by 0.25"),
    ],
    ids=lambda v: v if isinstance(v, str) and " " not in v else "",
)
def test_few_samples_are_warned_of_once(name, options, message):
    x, y = gaussians(100, 25, 30)
    for call in (
        lambda: getattr(similarity, name)(x, y, **options),
        lambda: grid(name, [x], [y, y], **options),
        lambda: similarity.jackknife(name, [x], [y], groups=3, **options),
        lambda: similarity.bootstrap(name, [x], [y], resamples=3, **options),
    ):
        with pytest.warns(UserWarning, match=f"^{name}: {message}") as found:
            call()
        assert len(found) == 1
        assert found[0].filename == __file__


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svcca", {"components": 5}),
        ("shape_distance", {"alpha": 0.5}),
        ("gulp_distance", {}),
        ("cka", {}),
        ("procrustes_similarity", {}),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_not_warned_of_where_it_does_not_apply(name, options):
    x, y = gaussians(100, 25, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(similarity, name)(x, y, **options)
        grid(name, [x], [y], **options)
        for calibrated_too in ("cca", "linear_regression"):
            grid(calibrated(get_measure(calibrated_too), permutations=19), [x], [y])
            permutation_test(calibrated_too, x, y, permutations=5)
        similarity.linear_regression(y, x[:, :9])  # few that predict


@pytest.mark.parametrize(
    "name",
    [
        "cross_validated_cca",
        "cross_validated_svcca",
        "cross_validated_pwcca",
        "linear_predictivity",
        "ridge_predictivity",
    ],
)
def test_cross_validated_forms_are_near_nothing_for_unrelated_representations(name):
    """Where the forms that are not have 0.45 to 0.55."""
    plain = {"linear_predictivity": "linear_regression", "ridge_predictivity": "linear_regression"}
    found, fitted = [], []
    for _ in range(12):
        x, y = gaussians(200, 40, 50)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted.append(float(grid(plain.get(name, name[16:]), [x], [y])))
            warnings.simplefilter("error")
            found.append(float(grid(name, [x], [y])))
    assert np.mean(fitted) > 0.2
    if name == "linear_predictivity":  # least squares predicts worse than the mean
        assert np.mean(found) == pytest.approx(-50 / (160 - 50 - 2), abs=0.1)
    else:
        assert abs(np.mean(found)) < 0.03
    x = torch.randn(200, 10)
    related = float(grid(name, [x], [x @ torch.randn(10, 12) + 0.2 * torch.randn(200, 12)]))
    assert related > 0.8


def test_variates_that_are_not_unique_are_said():
    x, y = gaussians(60, 30, 30)
    with pytest.warns(UserWarning, match="13 canonical correlations of the n = 48 samples fitted"):
        similarity.cross_validated_cca(x, y)
