"""Standard errors whose value is known otherwise."""

import numpy as np
import pytest

from repsim_fast.analysis import estimates
from repsim_fast.analysis.estimates import Estimate

NAN = float("nan")


def test_jackknife_of_a_mean_is_its_standard_error():
    sample = np.random.default_rng(0).normal(size=20)
    left_out = [np.delete(sample, i).mean() for i in range(20)]
    found = estimates.jackknife(sample.mean(), left_out)
    assert found.value == sample.mean()
    assert found.standard_error == pytest.approx(sample.std(ddof=1) / np.sqrt(20))


def test_jackknife_errors_are_those_of_each_cell():
    left_out = np.random.default_rng(1).normal(size=(5, 2, 3))
    errors = estimates.jackknife_error(left_out)
    assert errors.shape == (2, 3)
    assert errors[1, 2] == estimates.jackknife(0.0, left_out[:, 1, 2]).standard_error


def test_one_group_says_nothing_of_the_error():
    assert np.isnan(estimates.jackknife(1.0, [1.0]).standard_error)
    assert np.isnan(estimates.jackknife_error(np.ones((1, 2, 3)))).all()
    assert estimates.jackknife_error(np.ones((0, 2, 3))).shape == (2, 3)


def test_a_share_of_none_has_an_error():
    assert estimates.share(0.2, 400) == Estimate(0.2, pytest.approx(0.02, rel=0.01))
    assert estimates.share(0.0, 400).standard_error == pytest.approx(1 / 400, rel=0.01)


@pytest.mark.parametrize(
    ("right", "n", "message"),
    [
        (1.2, 10, r"right: expected a share in \[0, 1\], got 1.2"),
        (NAN, 10, "right: expected a share"),
        (0.5, 0, "n: expected at least one image, got 0"),
    ],
)
@pytest.mark.parametrize("of", [estimates.share, estimates.wilson_interval])
def test_what_is_no_share(of, right, n, message):
    with pytest.raises(ValueError, match=message):
        of(right, n)


def test_numbers_of_several_seeds():
    own = [Estimate(v, 0.5) for v in (1.0, 2.0, 3.0)]
    over = estimates.over_seeds([1.0, 2.0, 3.0])
    assert over == Estimate(2.0, pytest.approx(3**-0.5))
    assert over.degrees == 2
    both = estimates.mean_over_seeds(own)
    assert both == Estimate(2.0, pytest.approx((1 / 3 + 0.25) ** 0.5))
    assert both.degrees == pytest.approx(2 * (1 + 0.75) ** 2)
    assert estimates.mean_over_seeds([Estimate(e.value, NAN) for e in own]) == over
    assert estimates.mean_over_seeds(own[:1]) == own[0]
    assert np.isnan(estimates.over_seeds([1.0]).standard_error)
    spread = estimates.spread_over_seeds([1.0, 2.0, 3.0])
    assert (spread.value, spread.standard_error) == (1.0, 0.5)
    assert np.isnan(estimates.spread_over_seeds([1.0]).value)
    with pytest.raises(ValueError, match="values: expected a number for each network"):
        estimates.over_seeds([])


def networks_on_images(random, networks=4, images=120, groups=12):
    """Networks whose figure is a mean over images, which move all of them alike in part."""
    networks_, shared = random.normal(0, 0.1, (networks, 1)), random.normal(0, 1, images)
    per_image = networks_ + shared + random.normal(0, 0.3, (networks, images))
    parts = per_image.reshape(networks, groups, -1)
    left_out = (parts.sum((1, 2), keepdims=False)[:, None] - parts.sum(2)) / (
        images - images // groups
    )
    return [estimates.jackknife(v, out) for v, out in zip(per_image.mean(1), left_out, strict=True)]


def test_a_mean_over_seeds_errs_by_seeds_and_by_the_images_that_they_share():
    random = np.random.default_rng(3)
    found = [estimates.mean_over_seeds(networks_on_images(random)) for _ in range(2000)]
    true = np.std([e.value for e in found])
    stated = np.sqrt(np.mean([e.standard_error**2 for e in found]))
    assert stated == pytest.approx(true, rel=0.05)
    # 0.05 is the error over seeds alone, half of it.
    assert true > 1.9 * 0.05


def test_a_difference_of_the_same_images_errs_by_what_they_do_to_it():
    random = np.random.default_rng(4)
    pairs = [networks_on_images(random, 2) for _ in range(2000)]
    stated = np.sqrt(np.mean([estimates.difference(*p).standard_error ** 2 for p in pairs]))
    assert stated == pytest.approx(0.3 * np.sqrt(2 / 120), rel=0.05)


def test_the_error_of_a_spread_is_that_of_normal_values():
    draws = np.random.default_rng(2).normal(size=(20_000, 30))
    stated = np.mean([estimates.spread_over_seeds(d).standard_error for d in draws])
    assert stated == pytest.approx(draws.std(1, ddof=1).std(), rel=0.03)


def test_differences_and_ratios_carry_both_errors():
    a, b = Estimate(6.0, 0.3), Estimate(2.0, 0.4)
    assert estimates.difference(a, b) == Estimate(4.0, pytest.approx(0.5))
    found = estimates.ratio(a, b)
    assert found.value == 3
    assert found.standard_error == pytest.approx(3 * np.hypot(0.3 / 6, 0.4 / 2))
    assert estimates.ratio(a, Estimate(0.0, 0.1)).value == np.inf
    assert estimates.ratio(Estimate(0.0, 0.3), b) == Estimate(0.0, 0.15)
    assert estimates.ratio(Estimate(-6.0, 0.3), b).standard_error == found.standard_error


@pytest.mark.parametrize(
    ("low", "high", "p"),
    [
        ((1, 2, 3), (4, 5, 6), 1 / 20),
        ((4, 5, 6), (1, 2, 3), 1.0),
        ((1, 1, 1), (1, 1, 1), 1.0),
        ((0.1, 0.2), (0.3,), 1 / 3),
        ((1e-14, 2e-14, 3e-14), (4e-14, 5e-14, 6e-14), 1 / 20),
    ],
)
def test_permutation_p_is_exact(low, high, p):
    assert estimates.permutation_p(low, high) == pytest.approx(p)


@pytest.mark.parametrize("unknown", [NAN, np.inf])
def test_permutation_p_of_unknown_values_is_unknown(unknown):
    assert np.isnan(estimates.permutation_p([0.1, unknown], [0.2, 0.3]))
    assert np.isnan(estimates.permutation_p([0.1, 0.2], [unknown]))


def test_permutation_p_needs_both_groups():
    with pytest.raises(ValueError, match="high: expected a number for each network"):
        estimates.permutation_p([1.0], [])


def test_one_sided_p():
    assert estimates.one_sided_p(Estimate(1.645, 1.0)) == pytest.approx(0.05, abs=1e-4)
    assert estimates.one_sided_p(Estimate(-1.645, 1.0)) == pytest.approx(0.95, abs=1e-4)
    assert np.isnan(estimates.one_sided_p(Estimate(1.0, NAN)))
    # The known quantile of Student's distribution with three degrees of freedom.
    assert estimates.one_sided_p(Estimate(2.353, 1.0, 3)) == pytest.approx(0.05, abs=1e-4)


def test_degrees_of_a_sum_are_those_of_welch():
    a, b = Estimate(1.0, 0.2, 3), Estimate(1.0, 0.2, 5)
    assert estimates.difference(a, b).degrees == pytest.approx(4 / (1 / 3 + 1 / 5))
    assert estimates.difference(a, Estimate(1.0, 0.2)).degrees == pytest.approx(12)
    assert estimates.difference(Estimate(1.0, 0.2), Estimate(1.0, 0.2)).degrees == np.inf
    assert estimates.jackknife(1.0, [0.9, 1.0, 1.1]).degrees == 2
