"""One shape for every kind of data a user may hand in: batches of inputs and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice, zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from repsim_fast._core.checks import check_seed
from repsim_fast._core.randomness import seeded

from .afresh import afresh
from .indexed import Indexed, indexed
from .items import Batch, PerModel, as_batch
from .order import OrderCheck
from .sampling import (
    draw_the_same_order,
    drawn_by,
    draws_random_order,
    draws_with_replacement,
    processes_of,
)
from .share import Share

__all__ = ["Batch", "Feed", "PerModel", "open_data"]

# Where batches are not given: errors come from differences between batches, of which there should
# be ten, and estimates of small ones are noisy.
_BATCHES, _SMALLEST, _LARGEST = 10, 8, 128


@dataclass(frozen=True)
class Feed:
    """Batches to iterate over once, and what they are.

    Attributes:
        batches: The batches, those of the own share.
        n_batches: How many; None if unknown.
        n_of_all: How many all shares have together; None if unknown.
        description: What they come from.
        order: "random" or "as given".
        batch_size: Samples in a batch, the largest; None where data come in batches.
        check: What the batches read so far tell of the order; None for a random one.
        paired: Whether each model has inputs of its own.
        replacement: Whether a sample may come several times in one pass.
        split_over: Processes that a loader gives different samples, each a part of them.
        drawn_by: The same for the same random order of a loader, as far as its sampler tells.
        n_samples: Samples of one pass; None where data come in batches.
    """

    batches: Iterator[Batch]
    n_batches: int | None
    n_of_all: int | None
    description: str
    order: str
    batch_size: int | None
    check: OrderCheck | None
    paired: bool = False
    replacement: bool = False
    split_over: int = 1
    drawn_by: str = ""
    n_samples: int | None = None


def open_data(
    data: Any,
    *,
    batch_size: int | None = None,
    passes: int = 1,
    shuffle: bool | None = None,
    seed: int = 0,
    models: Sequence[str] = (),
    share: Share | None = None,
    max_batches: int | None = None,
    raw: bool = False,
) -> Feed:
    """Make ``data`` a stream of batches.

    Args:
        data: ``ImageData``, a tensor or array (N, ...), a tuple (x, y) or a mapping of them by the
            names of a model's arguments, a ``Dataset`` or another object with length and
            numbered samples (all of these are cut into batches), or a ``DataLoader`` or other
            iterable of batches, see :func:`~repsim_fast.data.items.as_batch`; or a mapping from
            the name of each model to one of these, which must hold the same samples in the same
            order.
        batch_size: Samples in a batch, where ``data`` does not come in batches. Default: as many as
            give ten batches of equal size, at least 8 and at most 128.
        passes: How often to go through the data; more than once in a new order each time.
        shuffle: Whether samples come in random order. Default: wherever they can. Neighbours in an
            order of their own, such as a folder's class by class, are alike, and what tells one
            batch from another is lost to estimates from batches.
        seed: Seed of the order.
        models: Names that a mapping must have.
        share: Batches that are read, of the same data in all processes. Default: all of them.
        max_batches: Read no more than so many batches, all shares together. Default: all.
        raw: Batches may be anything; see ``as_batch``.

    Raises:
        ValueError: Empty data, no positive batch size or number of passes, x and y of different
            lengths, paired data that do not belong together (loaders that each draw a random order
            of their own among them), a second stream of inputs or a mask in place of labels, an
            order wanted that the data cannot have, or a share of a loader that already gives each
            process other samples.
        TypeError: ``data`` is nothing of the above, or ``seed`` no integer.
    """
    _check_numbers(batch_size, passes, seed, max_batches)
    if shuffle not in (None, True, False):
        raise TypeError(f"shuffle must be True, False or None, got {shuffle!r}")
    share = share or Share()
    streams, pair = _streams(data, models, raw)
    sources = [indexed(stream) for stream in streams]
    found = [source for source in sources if source is not None]
    if found and len(found) < len(sources):
        raise ValueError(
            "data: streams of several models must all come in batches, or all as samples by number"
        )
    if found:
        feed = _open_indexed(found, pair, batch_size, passes, shuffle, seed, share)
    else:
        for stream in streams:
            _check_batched(stream, passes, shuffle)
        _check_orders(streams)
        feed = _open_batched(streams, pair, passes, share)
    feed = replace(feed, paired=bool(_by_model(data, models)))
    if max_batches is None:
        return feed
    most = len(share.numbers(after=0, until=max_batches))
    known = most if feed.n_batches is None else min(feed.n_batches, most)
    of_all = max_batches if feed.n_of_all is None else min(feed.n_of_all, max_batches)
    some = islice(feed.batches, most)
    return replace(feed, batches=some, n_batches=known, n_of_all=of_all)


def _check_numbers(batch_size: int | None, passes: int, seed: int, max_batches: int | None) -> None:
    numbers = {"batch_size": batch_size, "passes": passes, "max_batches": max_batches}
    for argument, value in numbers.items():
        if value is None and argument != "passes":
            continue
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{argument} must be a positive integer, got {value!r}")
    check_seed(seed)


Pair = Callable[[Sequence[Any], int], Batch]
"""Items of all streams, and the number of the batch -> the batch."""


def _by_model(data: Any, models: Sequence[str]) -> bool:
    """Whether data are a mapping with inputs of their own for each model."""
    return isinstance(data, Mapping) and bool(set(data) & set(models))


def _streams(data: Any, models: Sequence[str], raw: bool) -> tuple[list[Any], Pair]:
    """The streams that data consist of, and what makes a batch of their items."""
    if not _by_model(data, models):
        return [data], lambda items, number: as_batch(items[0], number, raw=raw)
    if set(data) != set(models):
        raise ValueError(
            "data: a mapping must have the inputs of each model by its name, "
            f"{sorted(models)}, got {sorted(map(str, data))}"
        )
    names = list(data)
    return list(data.values()), lambda items, number: _as_paired(names, items, number, raw)


def _open_indexed(
    sources: Sequence[Indexed],
    pair: Pair,
    batch_size: int | None,
    passes: int,
    shuffle: bool | None,
    seed: int,
    share: Share,
) -> Feed:
    n = sources[0].n
    if n == 0:
        raise ValueError("data is empty: there is no sample to compare on")
    if any(source.n != n for source in sources):
        raise ValueError(
            "data: the streams of all models must hold the same samples in the same order, "
            f"got {[source.n for source in sources]} samples"
        )
    if shuffle is False and passes > 1:
        raise ValueError(f"passes={passes} needs a new order each time, got shuffle=False")
    sizes = _even_sizes(n) if batch_size is None else _sizes(n, batch_size)
    check = OrderCheck() if shuffle is False else None
    generator = seeded(seed)

    def batches() -> Iterator[Batch]:
        for done in range(0, passes * len(sizes), len(sizes)):
            order = torch.arange(n) if check else torch.randperm(n, generator=generator)
            rows = order.split(sizes)  # type: ignore[no-untyped-call]
            numbers = share.numbers(after=done, until=done + len(rows))
            own = [rows[number - done] for number in numbers]
            read = zip(*(source.read(own) for source in sources), strict=True)
            for number, items in zip(numbers, read, strict=True):
                yield _checked(pair(items, number), check)

    return Feed(
        batches=batches(),
        n_batches=len(share.numbers(after=0, until=passes * len(sizes))),
        n_of_all=passes * len(sizes),
        description=" and ".join(dict.fromkeys(source.description for source in sources)),
        order="as given" if check else "random",
        batch_size=max(sizes),
        check=check,
        n_samples=sources[0].n,
    )


def _sizes(n: int, batch_size: int) -> list[int]:
    whole, rest = divmod(n, batch_size)
    return [batch_size] * whole + [rest] * (rest > 0)


def _even_sizes(n: int) -> list[int]:
    """Sizes of batches that differ by one at most, where none is asked for."""
    size = min(_LARGEST, max(_SMALLEST, n // _BATCHES))
    count = max(1, n // size)
    return [n // count + (i < n % count) for i in range(count)]


def _open_batched(streams: Sequence[Any], pair: Pair, passes: int, share: Share) -> Feed:
    split_over = max(map(processes_of, streams))
    if share.size > 1 and split_over > 1:
        raise ValueError(
            "data: expected the same loader in every process, of which each reads its share of the "
            f"batches, got one whose DistributedSampler gives {split_over} processes different "
            "samples, some of them twice; leave the sampler out (shuffle=True may stay)"
        )
    lengths = [_length(stream) for stream in streams]
    known = [length for length in lengths if length is not None]
    check = None if all(map(draws_random_order, streams)) else OrderCheck()

    def batches() -> Iterator[Batch]:
        number = share.rank
        for turn in range(passes):
            # Where there are several passes, lengths are known.
            after = turn * min(known) if turn else 0
            shared = (share.of(afresh(stream), after=after) for stream in streams)
            for items in zip_longest(*shared, fillvalue=_END):
                if _END in map(_identity, items):
                    raise ValueError(
                        f"data: a model's stream ended before the others, after {number} batches"
                    )
                if number == share.rank:
                    _check_first(streams, items)
                yield _checked(pair(items, number), check)
                number += share.size

    n_batches = passes * min(known) if len(known) == len(lengths) else None
    return Feed(
        batches=batches(),
        n_batches=None if n_batches is None else len(share.numbers(after=0, until=n_batches)),
        n_of_all=n_batches,
        description=" and ".join(dict.fromkeys(type(stream).__name__ for stream in streams)),
        order="as given" if check else "random",
        batch_size=None,
        check=check,
        replacement=any(map(draws_with_replacement, streams)),
        split_over=split_over,
        drawn_by=" ".join(map(drawn_by, streams)).strip(),
    )


def _check_orders(streams: Sequence[Any]) -> None:
    """Refuse loaders that are to be read side by side and draw different samples."""
    if any(map(draws_random_order, streams)) and not all(
        draw_the_same_order(one, other) for one, other in combinations(streams, 2)
    ):
        raise ValueError(
            "data: all models must see the same samples in the same order, got a loader that draws "
            "a random order of its own; pass the data sets themselves, which are then read in one "
            "random order, loaders with shuffle=False, or give each loader a generator of its own "
            "with the same seed"
        )


def _check_first(streams: Sequence[Any], items: Sequence[Any]) -> None:
    """Refuse a stream of samples that would be taken for batches: features are no samples."""
    for stream, item in zip(streams, items, strict=True):
        if isinstance(stream, IterableDataset) and isinstance(item, Tensor):
            raise ValueError(
                f"data: a bare {type(stream).__name__} that gives tensors "
                f"{tuple(item.shape)} may hold samples or batches; pass "
                "torch.utils.data.DataLoader(data, batch_size=...) of samples, or "
                "DataLoader(data, batch_size=None) of batches"
            )


_END = object()


def _identity(item: Any) -> Any:
    """What can be compared to the mark of an end, which tensors cannot."""
    return item if item is _END else None


def _checked(batch: Batch, check: OrderCheck | None) -> Batch:
    if check is not None:
        x = next(iter(batch.x.values())) if isinstance(batch.x, PerModel) else batch.x
        check.add(x[0] if isinstance(x, (tuple, list)) and x else x, batch.y)
    return batch


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # a DataLoader has a length only if its data set has
        return None


def _check_batched(data: Any, passes: int, shuffle: bool | None) -> None:
    kind = type(data).__name__
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, str)):
        raise TypeError(
            "data must be ImageData, a tensor or array, a tuple (x, y), a Dataset, a DataLoader or "
            f"an iterable of batches, got {kind}{_instead_of(data)}"
        )
    if passes > 1 and not draws_random_order(data):
        raise ValueError(
            f"passes={passes} needs data that can be shuffled, and a {kind} gives the same batches "
            "every time; pass the data set itself or a DataLoader with shuffle=True"
        )
    if shuffle and not draws_random_order(data):
        raise ValueError(
            f"shuffle=True needs samples that can be read in any order, and a {kind} gives its own "
            "batches; pass the data set itself or a DataLoader with shuffle=True"
        )


def _instead_of(data: Any) -> str:
    """What someone may have meant by data that are none."""
    if isinstance(data, str):
        return f": repsim_fast.data.load({data!r}) reads a data set by its name or path"
    if not isinstance(data, Mapping):
        return ""
    parts = [key for key, value in data.items() if indexed(value) is not None]
    if parts and len(parts) == len(data) and not any(isinstance(data[k], Tensor) for k in parts):
        return f": choose one of its parts, such as data[{parts[0]!r}]"
    return (
        ": a mapping has tensors or arrays of the same samples by the names of a model's "
        "arguments, or the data of each model by its name"
    )


def _as_paired(names: Sequence[str], items: Sequence[Any], number: int, raw: bool) -> Batch:
    batches = [as_batch(item, number, raw=raw) for item in items]
    sizes = {name: batch.n for name, batch in zip(names, batches, strict=True)}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"data: batch {number} must hold the same samples for all models, got {sizes}"
        )
    labels = [batch.y for batch in batches if isinstance(batch.y, Tensor)]
    if any(y.shape != labels[0].shape or bool((y.cpu() != labels[0].cpu()).any()) for y in labels):
        raise ValueError(
            f"data: labels of batch {number} differ between models; all models must see the same "
            "samples in the same order"
        )
    x = PerModel({name: batch.x for name, batch in zip(names, batches, strict=True)})
    item = PerModel({name: batch.item for name, batch in zip(names, batches, strict=True)})
    return Batch(x, labels[0] if labels else batches[0].y, batches[0].n, item)
