"""Digests tell samples, their order and weights apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.data.batches import Batch, PerModel
from repsim_fast.data.fingerprint import Fingerprint, digest_of, merged_samples, share_samples


def seen(*batches: Any) -> Fingerprint:
    found = Fingerprint()
    for x in batches:
        part = next(iter(x.values())) if isinstance(x, dict) else x
        found.add(Batch(x, None, len(part)))
    return found


def numbers(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(seed))


X = numbers(60)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.int64, torch.uint8])
def test_samples_of_every_dtype_are_told_apart(kind: torch.dtype) -> None:
    x = torch.arange(200).view(100, 2).to(kind)
    assert len(seen(x).samples) == len(x.unique(dim=0))


def test_order_is_that_of_samples_and_batches() -> None:
    order = seen(X[:30], X[30:]).order
    assert order == seen(X[:30].double(), X[30:].clone()).order
    others = [seen(X[30:], X[:30]), seen(X[:30].flip(0), X[30:]), seen(X), seen(X[:30], X[30:] + 1)]
    assert len({order, *(other.order for other in others)}) == 5
    assert others[0].samples == seen(X[:30], X[30:]).samples


def test_mappings_and_inputs_of_each_model() -> None:
    a, b = numbers(8), numbers(8, 1)
    assert seen({"a": a, "b": b}).order != seen({"a": b, "b": a}).order
    assert seen(PerModel({"m": a, "n": b})).order == seen(a).order


def test_what_cannot_be_read_is_not_known() -> None:
    found = seen(X[:9].to_sparse())
    assert (found.order, found.samples) == ("", ())
    assert Fingerprint().order == ""


@pytest.mark.parametrize(("n", "m"), [(40, 40), (2000, 2000), (4000, 500)])
def test_common_samples(n: int, m: int) -> None:
    many = numbers(n + m)
    one, apart, within = (seen(x).samples for x in (many[:n], many[n:], many[n - m : n]))
    assert share_samples(one, within)
    assert share_samples(within, one)
    assert not share_samples(one, apart)
    assert share_samples(merged_samples(one, apart), within)
    assert merged_samples(one, apart) == seen(many).samples


def test_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    before = digest_of(model.parameters())
    with torch.no_grad():
        model[0].bias[2] += 1e-6
    assert digest_of(model.parameters()) != before
    assert digest_of([]) == digest_of([torch.zeros(0)]) == ""
    assert digest_of([torch.tensor([1j])]) != digest_of([torch.tensor([2j])])


def test_samples_that_come_again_are_counted() -> None:
    assert seen(X[:30], X[30:]).repeated == 0
    twice = seen(X[:30], X[:30].flip(0), X[30:])
    assert twice.repeated == 0.5
    assert twice.has_repetitions
    assert seen(X[:30], X[25:]).repeated == 5 / 60
    assert not seen(X[:30], X[25:]).has_repetitions


def test_repetitions_among_many_samples_and_parts() -> None:
    many = numbers(2000)
    halves = [seen(many[:1200]), seen(many[800:])]
    whole = Fingerprint.joined(halves)
    assert whole.repeated == pytest.approx(0.2, abs=0.08)
    assert whole.samples == seen(many).samples
