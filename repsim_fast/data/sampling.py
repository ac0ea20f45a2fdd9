"""What order a DataLoader reads its samples in, as far as its sampler tells."""

from __future__ import annotations

import hashlib
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

# Exactly these are known to give random orders: a class derived from one may give any other.
_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def draws_random_order(data: Any) -> bool:
    """Whether ``data`` is a loader that is known to read its samples in random order."""
    sampler = _sampler(data)
    if type(sampler) is DistributedSampler:
        return bool(sampler.shuffle)
    return type(sampler) in _RANDOM


def draws_with_replacement(data: Any) -> bool:
    """Whether ``data`` is a loader that reads samples several times in one pass."""
    sampler = _sampler(data)
    return type(sampler) in _RANDOM and bool(getattr(sampler, "replacement", False))


def drawn_by(data: Any) -> str:
    """The same for two loaders only if what their samplers draw from is the same, as far as they
    tell; empty for other data."""
    sampler = _sampler(data)
    generator = getattr(sampler, "generator", None)
    own = [getattr(sampler, name, None) for name in ("indices", "weights")]
    if generator is None and own == [None, None]:
        return ""
    state = b"" if generator is None else generator.get_state().numpy().tobytes()
    numbers = [None if some is None else [float(value) for value in some] for some in own]
    return hashlib.sha256(state + repr(numbers).encode()).hexdigest()[:16]


def processes_of(data: Any) -> int:
    """Of a loader with torch's ``DistributedSampler`` the number of processes that it gives
    different samples; 1 for other data."""
    sampler = _sampler(data)
    return int(sampler.num_replicas) if isinstance(sampler, DistributedSampler) else 1


def draw_the_same_order(first: Any, second: Any) -> bool:
    """Whether two streams, of which one is a loader in random order at least, are known to
    give the same one when they are read side by side."""
    one, other = _sampler(first), _sampler(second)
    if type(one) is not type(other) or one is None or len(one) != len(other):
        return False
    if type(one) is DistributedSampler:
        return all(
            getattr(one, name) == getattr(other, name)
            for name in ("seed", "epoch", "rank", "num_replicas", "shuffle")
        )
    generator, another = getattr(one, "generator", None), getattr(other, "generator", None)
    # Without a generator, or with one in common, the second loader draws after the first.
    if generator is None or another is None or generator is another:
        return False
    return bool(
        generator.get_state().equal(another.get_state())
        and getattr(one, "replacement", None) == getattr(other, "replacement", None)
        and _same(getattr(one, "indices", None), getattr(other, "indices", None))
        and _same(getattr(one, "weights", None), getattr(other, "weights", None))
    )


def _sampler(data: Any) -> Any:
    """What gives the numbers of single samples; None where batches come from elsewhere."""
    if not isinstance(data, DataLoader) or type(data.batch_sampler) is not BatchSampler:
        return None
    return data.batch_sampler.sampler


def _same(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return [float(value) for value in first] == [float(value) for value in second]
