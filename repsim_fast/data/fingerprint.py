"""Which samples came, and in what order, in few numbers: whether results are over the same ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from repsim_fast._core.nested import readable, tensors_in
from repsim_fast.data.batches import Batch, PerModel

# Numbers of a sample that are looked at, evenly spread, and samples that are kept: those of the
# smallest digests, which are the same ones in any order, so that common ones are seen.
_NUMBERS = 1024
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
        digests = torch.zeros(batch.n, dtype=torch.int64)
        parts = [t for t in tensors_in(x) if readable(t) and t.ndim and len(t) == batch.n]
        for number, part in enumerate(parts):
            digests += (2 * number + 1) * _digests(part.detach())
        place = 2 * torch.arange(batch.n) + 1
        own = (int((digests * place).sum()) + batch.n) % _WORD
        self.latest = f"{own:016x}" if parts else ""
        self._looked_at = digests.tolist()

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
    """One digest of tensors, such as the weights of a model, by some numbers of each."""
    known = (t.detach() for t in tensors if readable(t) and t.numel())
    rows = [_real(_some(t.reshape(1, -1), 64))[0].double() for t in known]
    if not rows:
        return ""
    # One copy from each device, and not one for each tensor.
    by_device = {row.device: [r for r in rows if r.device == row.device] for row in rows}
    whole = torch.cat([torch.cat(some).cpu() for some in by_device.values()])
    return f"{int(_digests(whole[None], len(whole))) % _WORD:016x}"


def _digests(x: Tensor, numbers: int = _NUMBERS) -> Tensor:
    """(n,) int64, one of each sample."""
    rows = x.reshape(len(x), math.prod(x.shape[1:]))  # also of no samples
    words = _real(_some(rows, numbers)).cpu().double().contiguous().view(torch.int64)
    generator = torch.Generator().manual_seed(words.shape[1])
    odd = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator) * 2 + 1
    # The low bits of small whole numbers in float64 are zeros, which products would keep.
    mixed = (words ^ (words >> 32)) * odd
    mixed = ((mixed ^ (mixed >> 29)) * odd).sum(1)
    mixed = (mixed ^ (mixed >> 32)) * _ODD
    return mixed ^ (mixed >> 29)


def _some(rows: Tensor, numbers: int) -> Tensor:
    return rows[:, :: max(1, math.ceil(rows.shape[1] / numbers))]


def _real(rows: Tensor) -> Tensor:
    return torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows
