"""Digests tell samples, their order and weights apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.data.batches import Batch, PerModel
from repsim_fast.data.digests import digests
from repsim_fast.data.fingerprint import (
    Fingerprint,
    digest_of,
    digest_of_labels,
    merged_samples,
    share_samples,
)


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


def test_all_numbers_of_a_large_sample_count() -> None:
    x = torch.rand(5, 3000)
    before = seen(x).order
    changed = torch.randperm(3000, generator=torch.Generator().manual_seed(0))[:40]
    for column in changed.tolist():
        y = x.clone()
        y[2, column] += 0.01
        assert seen(y).order != before, column
    assert seen(x.view(5, 10, 10, 30)).order == before


@pytest.mark.parametrize("size", [1, 511, 512, 513, 70_000, 300_000])
def test_digests_of_every_size(size: int) -> None:
    x = torch.randint(0, 3, (3, size), generator=torch.Generator().manual_seed(size))
    some = digests(torch.cat([x, x]))
    assert torch.equal(some[:3], some[3:])
    assert torch.equal(some[:3], torch.cat([digests(row[None]) for row in x]))
    x[1, -1] += 7
    assert (digests(x) == some[:3]).tolist() == [True, False, True]
    assert digests(torch.cat([x, torch.zeros(3, 1).long()], 1))[0] != some[0]
    assert torch.equal(digests(x.t().contiguous().t()), digests(x))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0.0], [-0.0]),
        ([1.0, 2.0], [2.0, 1.0]),
        ([0], [-1]),
        ([2**53], [2**53 + 1]),
        ([1j], [1.0 + 0j]),
        ([True], [False]),
        ([float("nan")], [float("inf")]),
    ],
)
def test_numbers_that_are_told_apart(one: list[Any], other: list[Any]) -> None:
    assert digests(torch.tensor([one])) != digests(torch.tensor([other]))
    assert torch.equal(digests(torch.tensor([one])), digests(torch.tensor([one])))


def test_samples_along_another_dimension() -> None:
    lengths, seq = torch.arange(6), torch.randn(9, 6, 4)

    def of(seq: Tensor) -> Fingerprint:
        found = Fingerprint()
        found.add(Batch({"lengths": lengths, "seq": seq}, None, 6))
        return found

    assert of(seq).order == of(seq.clone()).order
    changed = seq.clone()
    changed[8, 2, 3] += 1
    assert len({*of(seq).samples} & {*of(changed).samples}) == 5
    for other in (changed, seq.flip(0), seq.flip(1)):
        assert of(other).order != of(seq).order


@pytest.mark.parametrize("one", [torch.tensor(3), torch.rand(2, 6, 6), torch.rand(4, 4), "a", 2.5])
def test_what_a_batch_has_as_a_whole(one: Any) -> None:
    def of(whole: Any) -> Fingerprint:
        found = Fingerprint()
        found.add(Batch({"whole": whole}, None, 6))
        return found

    found, other = of(one), of(one + one)
    assert found.order != other.order
    assert found.repeated == 0
    assert not share_samples(found.samples, other.samples)


def test_what_cannot_be_read_of_a_batch_is_not_known_of_it() -> None:
    found = Fingerprint()
    found.add(Batch({"x": X, "graph": X.to_sparse()}, None, len(X)))
    assert (found.order, found.samples) == ("", ())


def test_labels() -> None:
    def of(y: Any) -> str:
        return digest_of_labels(Batch(X, y, len(X)))

    y = torch.arange(60) % 4
    assert of(None) == ""
    assert of(y) == of(y.int()) != of((y + 1) % 4)
    assert of(["cat", *"dog" * 19]) != of([*"dog" * 19, "cat"])


def test_every_weight_counts() -> None:
    model = nn.Embedding(5000, 8)
    before = digest_of(model.parameters())
    with torch.no_grad():
        model.weight[17, 3] += 1
    assert digest_of(model.parameters()) != before
    assert digest_of([torch.rand(2, 3)]) != digest_of([torch.rand(3, 2)])
    x = torch.rand(2, 3)
    assert digest_of([x]) != digest_of([x.view(3, 2)])
