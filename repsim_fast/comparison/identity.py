"""Which samples a batch has: told by its inputs, or by names that were given for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from repsim_fast.data.batches import Batch, Feed, open_data
from repsim_fast.data.fingerprint import Fingerprint
from repsim_fast.data.share import Share

# Of a sample's name; as many as float64 holds exactly.
_DIGEST_BYTES = 6


class Identity(Fingerprint):
    """A ``Fingerprint`` that goes by the samples' ids where they are given.

    Args:
        ids: Those of each batch (n, 1), in the order in which batches come.
        kinds: Their types, in words.

    Attributes:
        kinds: Types of the ids; False without any.
    """

    def __init__(self, ids: Iterator[Tensor] | None = None, kinds: str | bool = False) -> None:
        super().__init__()
        self._ids, self.kinds = ids, kinds

    def look(self, batch: Batch) -> None:
        """See what the batch is.

        Raises:
            ValueError: Not as many ids as samples.
        """
        if self._ids is None:
            super().look(batch)
            return
        ids = next(self._ids, torch.empty(0, 1))
        if len(ids) != batch.n:
            raise ValueError(
                f"ids: expected one for each sample, got {len(ids)} for a batch of {batch.n}"
            )
        super().look(Batch(ids, None, batch.n))


def identify(
    ids: Sequence[object] | None,
    feed: Feed,
    *,
    passes: int,
    shuffle: bool | None,
    batch_size: int | None,
    seed: int,
    share: Share | None = None,
) -> Identity:
    """What tells the batches of a feed; the further arguments are those it was opened with.

    Raises:
        ValueError: Ids that are not different or not one for each sample, or data that come in
            batches.
    """
    if ids is None:
        return Identity()
    plain = [*map(_plain, ids)]
    names = [f"{type(name).__name__} {name}" for name in plain]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"ids: expected different ones, got {twice.split(' ', 1)[1]!r} twice")
    digests = torch.tensor([[_digest(name)] for name in names], dtype=torch.float64)
    if feed.n_samples is not None:
        if len(names) != feed.n_samples:
            raise ValueError(
                f"ids: expected one for each sample, got {len(names)} for {feed.n_samples} samples"
            )
        opened = open_data(
            digests,
            batch_size=batch_size,
            passes=passes,
            shuffle=shuffle,
            seed=seed,
            share=share,
        )
        kinds = " and ".join(sorted({type(name).__name__ for name in plain}))
        return Identity((batch.x for batch in opened.batches), kinds)
    raise ValueError(
        "ids: expected data that are read by number, to which ids belong, got batches; pass the "
        "data set itself"
    )


def _plain(name: object) -> object:
    """Python's own number for one of torch or NumPy, or for a tensor of one: equal ones are one."""
    if isinstance(name, (Tensor, np.ndarray, np.generic)) and name.ndim == 0:
        return name.item()
    return name


def _digest(name: str) -> float:
    return float(int.from_bytes(hashlib.sha256(name.encode()).digest()[:_DIGEST_BYTES], "big"))
