"""Which samples came, and in what order, in few numbers: whether results are over the same ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor

from repsim_fast._core.nested import readable, tensors_in
from repsim_fast.data.batches import Batch, PerModel
from repsim_fast.data.digests import digests

# Samples that are kept: those of the smallest digests, which are the same ones in any order, so
# that common ones are seen.
_KEPT = 256
_WORD = 2**64
_ODD = 6364136223846793005
_SHARED = 0.1


class Fingerprint:
    """Digests of the samples of batches, by their inputs; of models with inputs of their own, those
    of the first.

    Attributes:
        latest: Digest of the batch that was looked at last, of its samples in their order; empty
            where that is not known, as of sparse inputs.

    Example:
        >>> import torch
        >>> from repsim_fast.data.batches import Batch
        >>> from repsim_fast.data.fingerprint import Fingerprint
        >>> seen = Fingerprint()
        >>> seen.add(Batch(torch.arange(12.0).view(4, 3), None, 4))
        >>> len(seen.samples)
        4
    """

    def __init__(self) -> None:
        self._known = True
        self._batches: dict[int, int] = {}  # digest of each that counts, by its number
        # How often each of the smallest digests came, of which none has been left out before.
        self._smallest: dict[int, int] = {}
        self._looked_at: list[int] = []  # digests of the samples of a batch that may be counted
        self.latest = ""

    def add(self, batch: Batch) -> None:
        """Take a batch as the next one."""
        self.look(batch)
        self.count()

    def look(self, batch: Batch) -> None:
        """See what the batch is, as ``latest``; ``count`` takes it as the next one."""
        x = next(iter(batch.x.values())) if isinstance(batch.x, PerModel) else batch.x
        samples = _digests_of(x, batch.n)
        self.latest = _in_order(samples)
        self._looked_at = [0] * batch.n if samples is None else samples.tolist()

    def count(self, number: int | None = None) -> None:
        """Take the batch that was looked at, by default as the next one."""
        self._known = self._known and bool(self.latest)
        number = len(self._batches) if number is None else number
        self._batches[number] = int(self.latest or "0", 16)
        self._keep(Counter(digest % _WORD for digest in self._looked_at))

    @classmethod
    def joined(cls, parts: Iterable[Fingerprint]) -> Fingerprint:
        """What one would be that had taken the batches of all, by their numbers."""
        whole = Fingerprint()
        for part in parts:
            whole._known = whole._known and part._known
            whole._batches.update(part._batches)
            whole._keep(part._smallest)
        return whole

    def _keep(self, more: Mapping[int, int]) -> None:
        counts = Counter(self._smallest)
        counts.update(more)
        self._smallest = {digest: counts[digest] for digest in sorted(counts)[:_KEPT]}

    @property
    def repeated(self) -> float:
        """Share of the samples that came more than once, of those that are kept; 0 where that is
        not known."""
        several = sum(count > 1 for count in self._smallest.values())
        return several / len(self._smallest) if self._smallest and self._known else 0.0

    @property
    def has_repetitions(self) -> bool:
        """Whether more samples came again than a data set has twice by chance."""
        return self.repeated > _SHARED

    @property
    def order(self) -> str:
        """The same for the same batches in the same order only; empty where that is not known, as
        of sparse inputs."""
        if not (self._smallest and self._known):
            return ""
        order = 0
        for number in sorted(self._batches):
            order = _then(order, self._batches[number])
        return f"{order:016x}"

    @property
    def samples(self) -> tuple[str, ...]:
        """Some of the samples, the same ones in any order."""
        return tuple(f"{digest:016x}" for digest in self._smallest if self._known)


def order_of(batches: Iterable[str]) -> str:
    """What ``Fingerprint.order`` is of batches whose digests, its ``latest``, were these."""
    order = 0
    for digest in batches:
        if not digest:
            return ""
        order = _then(order, int(digest, 16))
    return f"{order:016x}"


def _then(order: int, batch: int) -> int:
    return (order * _ODD + batch) % _WORD


def merged_samples(ours: Iterable[str], theirs: Iterable[str]) -> tuple[str, ...]:
    """What ``Fingerprint.samples`` is of both."""
    return tuple(sorted({*ours, *theirs})[:_KEPT])


def share_samples(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    """Whether more samples are in both than a data set has twice by chance."""
    one, other = sorted(set(ours)), sorted(set(theirs))
    # What lies beyond the last of a full list may have come too.
    for full in (one, other):
        if len(full) == _KEPT:
            one, other = ([d for d in some if d <= full[-1]] for some in (one, other))
    return len({*one} & {*other}) > _SHARED * min(len(one), len(other))


def digest_of(tensors: Iterable[Tensor]) -> str:
    """One digest of tensors, such as the weights of a model, by all their bytes."""
    known = [t.detach() for t in tensors if readable(t) and t.numel()]
    if not known:
        return ""
    found = [[_digest(t), str(t.dtype), *t.shape] for t in known]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def _digest(x: Tensor) -> int:
    raw: Any = (
        x.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    )
    # As fast as memory: a comparison looks at all weights of its models.
    return int(xxhash.xxh3_64_intdigest(raw))


def digest_of_labels(batch: Batch) -> str:
    """One digest of a batch's labels, in their order; empty without any."""
    return "" if batch.y is None else _in_order(_digests_of(batch.y, batch.n))


def with_all(latest: str, batch: Batch, *, labels: bool) -> str:
    """``Fingerprint.latest`` of a batch, and what it does not tell: inputs of models after the
    first, and labels where they count."""
    further = [*batch.x.values()][1:] if isinstance(batch.x, PerModel) else []
    found = [_in_order(_digests_of(x, batch.n)) for x in further]
    found += [digest_of_labels(batch)] if labels else []
    if not latest or not any(found):
        return latest
    return hashlib.sha256(" ".join([latest, *found]).encode()).hexdigest()[:16]


def _in_order(
    samples: Tensor | None,  # (n,)
) -> str:
    """One digest of samples in their order; empty where they are not known."""
    if samples is None:
        return ""
    place = 2 * torch.arange(len(samples)) + 1
    return f"{(int((samples * place).sum()) + len(samples)) % _WORD:016x}"


def _digests_of(x: Any, n: int) -> Tensor | None:
    """(n,) int64, one of each sample, of all that x holds; None where that is not known.

    What belongs to a batch as a whole enters that of each of its samples.
    """
    parts = [part.detach() for part in tensors_in(x)]
    texts = [*_plain_in(x)]
    if not all(map(readable, parts)) or not (parts or texts):
        return None
    total, told_apart = torch.zeros(n, dtype=torch.int64), False
    if texts:
        total += int.from_bytes(hashlib.sha256(repr(texts).encode()).digest()[:7], "big")
    for number, part in enumerate(parts):
        along = _dimension_of_samples(part, n)
        told_apart |= along is not None
        total += (2 * number + 1) * digests(part[None] if along is None else part.movedim(along, 0))
    # Without a part for each, by their places, which the same batch has again.
    return total if told_apart else total + digests(torch.arange(n)[:, None])


def _dimension_of_samples(x: Tensor, n: int) -> int | None:
    """The dimension that samples have; None where it is not known."""
    sizes = [*x.shape]
    if sizes[:1] == [n]:
        return 0
    return sizes.index(n) if sizes.count(n) == 1 else None


def _plain_in(x: Any) -> Iterator[Any]:
    """Texts and numbers that are no tensors, in order."""
    if isinstance(x, (Mapping, tuple, list)):
        for part in x.values() if isinstance(x, Mapping) else x:
            yield from _plain_in(part)
    elif isinstance(x, (str, bytes, int, float, complex)):
        yield x
