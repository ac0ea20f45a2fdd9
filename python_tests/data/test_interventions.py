"""Interventions do to images exactly what they say."""

from __future__ import annotations

import pytest
import scipy.fft
import torch

from repsim_fast import data
from repsim_fast.attacks import PGD
from repsim_fast.data.interventions import (
    carriers_alone,
    complement,
    dct_carriers,
    inject,
    low_pass,
    other_classes,
)

PUBLISHED = [(0, 1), (1, 0), (1, 1), (2, 1), (1, 2)]


def images(n=6, channels=3, side=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, channels, side, side, generator=generator)
    return x, torch.arange(n) % classes


def wave(u, v, side):
    coefficients = torch.zeros(side, side, dtype=torch.float64)
    coefficients[u, v] = 1.0
    return torch.from_numpy(scipy.fft.idctn(coefficients.numpy(), norm="ortho"))


@pytest.mark.parametrize("side", [8, 32])
def test_ten_classes_have_the_published_carriers(side):
    v = dct_carriers(10, (side, side))
    signs = torch.stack([wave(*pair, side).sign() for pair in PUBLISHED]).float()
    for channel in range(3):
        assert torch.equal(v[:5, channel], signs)
        assert torch.equal(v[5:, channel], -signs)


@pytest.mark.parametrize(
    ("n_classes", "size", "channels", "used"),
    [
        (2, (8, 8), 1, 64),
        (5, (4, 4), 2, 16),
        (7, (28, 28), 1, 28 * 28),
        (10, (32, 32), 3, 32 * 32),
        (10, (7, 9), 1, 4 * 8),
        (31, (64, 32), 1, 64 * 32),
        (100, (32, 32), 3, 32 * 32),
        (200, (64, 64), 3, 64 * 64),
        (1000, (48, 40), 1, 32 * 32),
    ],
)
def test_carriers_are_orthogonal_signs_of_full_rank(n_classes, size, channels, used):
    v = dct_carriers(n_classes, size, channels)
    assert v.shape == (n_classes, channels, *size)
    assert set(v.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert (v.abs().sum((1, 2, 3)) == used * channels).all()
    k = -(-n_classes // 2)
    gram = v[:k].double().flatten(1) @ v[:k].double().flatten(1).T
    assert torch.equal(gram, used * channels * torch.eye(k, dtype=torch.float64))
    assert torch.equal(v[k:], -v[: n_classes - k])
    assert torch.linalg.matrix_rank(v.double().flatten(1)) == k


def test_frequencies_of_an_axis_rise_with_those_of_the_cosine():
    """Walsh functions take the places of signs that correlate, with as many changes of sign."""
    v = dct_carriers(126, (16, 16), 1)[:63, 0]
    changes = sorted(
        (int((p[:, 1:] != p[:, :-1])[0].sum()), int((p[1:] != p[:-1])[:, 0].sum())) for p in v
    )
    assert changes == [(a, b) for a in range(8) for b in range(8)][1:]
    assert torch.equal(v[0], wave(0, 1, 16).sign().float())
    assert any(torch.equal(p, wave(4, 2, 16).sign().float()) for p in v)


@pytest.mark.parametrize("beta", [0.0, 1 / 255, 8 / 255, 0.9])
def test_injection_has_its_very_amplitude_and_no_clipping(beta):
    x, y = images()
    x[0], x[1] = 0.0, 1.0
    v = dct_carriers(4, (8, 8))
    changed, labels = inject((x, y), beta, v)
    assert torch.equal(labels, y)
    torch.testing.assert_close((changed - x).double(), (beta * v[y]).double(), rtol=0, atol=1e-7)
    assert changed.dtype == torch.float32
    if beta:
        assert changed.min() < 0
        assert changed.max() > 1


def test_bytes_and_other_precisions_are_images_too():
    digits = data.load("digits", "test", limit=20)
    v = dct_carriers(10, (8, 8), 1)
    x, y = inject(digits, 0.25, v)
    assert torch.equal(x, digits.tensors()[0] + 0.25 * v[digits.labels])
    for dtype, wanted in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        assert inject((digits.tensors()[0].to(dtype), y), 0.25, v)[0].dtype == wanted


def test_soft_labels_carry_the_most_probable_class():
    x, y = images()
    v = dct_carriers(4, (8, 8))
    soft = torch.nn.functional.one_hot(y, 4) * 0.7 + 0.075
    changed, labels = inject((x, soft), 0.1, v)
    assert torch.equal(changed, inject((x, y), 0.1, v)[0])
    assert torch.equal(labels, soft)


def test_mismatched_sets_have_features_of_another_class():
    x, y = images(400)
    v = dct_carriers(4, (8, 8))
    carried = other_classes(y, 4, seed=1)
    assert (carried != y).all()
    for own in range(4):  # every other class, evenly
        counts = carried[y == own].bincount(minlength=4)
        assert counts[own] == 0
        assert (counts[[c for c in range(4) if c != own]] > 15).all()
    assert torch.equal(carried, other_classes(y, 4, seed=1))
    assert not torch.equal(carried, other_classes(y, 4, seed=2))
    changed, labels = inject((x, y), 0.1, v, classes=carried)
    assert torch.equal(labels, y)
    assert torch.equal(changed, inject((x, carried), 0.1, v)[0])


def test_other_classes_leave_the_global_random_state():
    before = torch.random.get_rng_state()
    other_classes(torch.arange(5), 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_carriers_alone():
    v = dct_carriers(10, (8, 8), 1)
    x, y = carriers_alone(0.1, v, background=0.5)
    assert torch.equal(y, torch.arange(10))
    assert torch.equal(x, 0.5 + 0.1 * v)
    assert torch.equal(carriers_alone(0.1, v)[0], 0.1 * v)


@pytest.mark.parametrize(("n_classes", "side"), [(10, 8), (7, 9)])
def test_the_complement_has_nothing_of_the_carriers_and_all_of_the_rest(n_classes, side):
    x, y = images(5, side=side, classes=n_classes)
    v = dct_carriers(n_classes, (side, side))
    left, labels = complement((x, y), v)
    assert torch.equal(labels, y)
    unit = v.double().flatten(1) / torch.linalg.vector_norm(v.double().flatten(1), dim=1)[0]
    assert (left.double().flatten(1) @ unit.T).abs().max() < 1e-5
    # What was taken is the projection: as long as the products with the k orthogonal patterns.
    k = -(-n_classes // 2)
    along = x.double().flatten(1) @ unit[:k].T
    taken = (x - left).double().flatten(1)
    torch.testing.assert_close(taken, along @ unit[:k], rtol=0, atol=1e-5)
    assert torch.linalg.matrix_rank(taken, tol=1e-3) <= k
    torch.testing.assert_close(complement((left, y), v)[0], left, rtol=0, atol=1e-5)


def test_low_pass_is_the_truncated_dct_of_one_axis_or_both():
    x = images(2, side=12)[0].double()
    for axes, kept in (("rows", (slice(5), slice(None))), ("both", (slice(5), slice(5)))):
        coefficients = scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
        wanted = torch.zeros(x.shape, dtype=torch.float64)
        wanted[(..., *kept)] = torch.from_numpy(coefficients)[(..., *kept)]
        wanted = torch.from_numpy(scipy.fft.idctn(wanted.numpy(), axes=(2, 3), norm="ortho"))
        torch.testing.assert_close(low_pass(x, 5, axes=axes), wanted)


def test_rows_alone_leave_what_changes_from_column_to_column():
    """The published filter passes the highest frequency of one axis and stops it on the other."""
    across, down = (wave(*pair, 8)[None] for pair in ((0, 7), (7, 0)))
    torch.testing.assert_close(low_pass(across, 4, axes="rows"), across)
    for stopped in (low_pass(across, 4), low_pass(down, 4), low_pass(down, 4, axes="rows")):
        assert stopped.abs().max() < 1e-12


def test_low_pass_commutes_with_normalisation_and_keeps_all_with_all_frequencies():
    x = images()[0].double()
    mean, deviation = torch.tensor([0.4, 0.5, 0.6])[:, None, None].double(), 0.25
    torch.testing.assert_close(
        low_pass((x - mean) / deviation, 3), (low_pass(x, 3) - mean) / deviation
    )
    for bandwidth in (8, 100):
        torch.testing.assert_close(low_pass(x, bandwidth), x)


def test_low_pass_has_its_gradient():
    x = torch.rand(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: low_pass(a, 2), x)


def test_attacks_take_injected_images():
    x, y = images()
    changed, labels = inject((x, y), 0.1, dct_carriers(4, (8, 8)))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    attacked = PGD(0.05, steps=2, outside="clip", seed=0)(model, changed, labels)
    assert attacked.min() >= 0
    assert attacked.max() <= 1


V = dct_carriers(4, (8, 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dct_carriers(1, (8, 8)), ValueError, "n_classes must be at least 2, got 1"),
        (lambda: dct_carriers(4, (8, 8), 0), ValueError, "channels must be at least 1, got 0"),
        (
            lambda: dct_carriers(10, (3, 8)),
            ValueError,
            "n_classes: 10 classes need images of 4 x 4 at least, got 3 x 8",
        ),
        (lambda: dct_carriers(2**14, (64, 64)), ValueError, "need images of 128 x 128"),
        (lambda: inject(images(), -0.1, V), ValueError, r"beta must lie in \[0, 1\).*got -0.1"),
        (lambda: inject(images(), 8, V), ValueError, r"as 8 / 255, got 8"),
        (lambda: inject(images(), float("nan"), V), ValueError, "got nan"),
        (
            lambda: inject(images(side=9), 0.1, V),
            ValueError,
            r"carriers must be \(n_classes, 3, 9, 9\), got \(4, 3, 8, 8\)",
        ),
        (
            lambda: inject(images(classes=5), 0.1, V),
            ValueError,
            r"labels must lie in 0\.\.3, got 0\.\.4",
        ),
        (
            lambda: inject(images(), 0.1, V, classes=torch.full((6,), 4)),
            ValueError,
            r"classes must lie in 0\.\.3, got 4\.\.4",
        ),
        (
            lambda: inject(images(), 0.1, V, classes=torch.zeros(5, dtype=torch.int64)),
            ValueError,
            r"classes must be one for each of 6 images, got \(5,\)",
        ),
        (lambda: inject([images(), images()], 0.1, V), TypeError, "data must be in memory"),
        (lambda: other_classes(torch.arange(3), 1), ValueError, "n_classes must be at least 2"),
        (lambda: other_classes(torch.arange(3), 2), ValueError, r"labels must lie in 0\.\.1"),
        (lambda: complement(images(side=4), V), ValueError, "carriers must be"),
        (lambda: low_pass(images()[0], 0), ValueError, "bandwidth must be at least 1, got 0"),
        (lambda: low_pass(images()[0], 3, axes="columns"), ValueError, "axes: expected one of"),
        (lambda: low_pass(images()[1], 3), TypeError, "images must be floating point"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
