"""Features of many layers, kept in memory up to a budget and beyond it in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from repsim_fast._core.scratch import Scratch

GIB = 2**30

# A header this long has room for any number of rows, which are only known in the end.
_HEADER = 128


View = TypeVar("View")


class FeatureStore:
    """Collects rows of features, batch by batch, under any number of keys.

    While all rows together fit into ``memory`` bytes they stay tensors. When they do not, the
    largest matrices move to ``.npy`` files, which `matrix` maps into memory without reading them:
    the operating system then loads and drops pages as they are used.

    Args:
        memory: Bytes of features that may be held in memory, at least 0.
        folder: Where files go, into a new folder inside that is removed by `close`, or after a
            crash by the next store there; made if missing. Default: the place for temporary files.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import FeatureStore, cca
        >>> with FeatureStore(memory=1000) as store:
        ...     for _ in range(10):
        ...         store.append("a", torch.randn(20, 5))
        ...         store.append("b", torch.randn(20, 7))
        ...     value = cca(store.matrix("a"), store.matrix("b"))
    """

    def __init__(self, *, memory: int = 4 * GIB, folder: str | Path | None = None) -> None:
        self._scratch: Scratch | None = None  # first of all, for __del__
        self.memory = memory
        self._given = None if folder is None else Path(folder)
        self._parts: dict[Hashable, list[Tensor]] = {}
        self._files: dict[Hashable, Path] = {}
        self._shape: dict[Hashable, tuple[int, int]] = {}
        self._dtype: dict[Hashable, torch.dtype] = {}
        self._device: dict[Hashable, torch.device] = {}
        if memory < 0:
            raise ValueError(f"memory: expected at least 0 bytes, got {memory}")

    def keys(self) -> tuple[Hashable, ...]:
        """Keys in the order of their first rows."""
        return tuple(self._shape)

    @property
    def in_memory(self) -> int:
        """Bytes of features held in memory."""
        return sum(part.nbytes for parts in self._parts.values() for part in parts)

    @property
    def in_files(self) -> int:
        """Bytes of features in files."""
        return sum(
            self._shape[key][0] * self._shape[key][1] * self._dtype[key].itemsize
            for key in self._files
        )

    def append(
        self,
        key: Hashable,
        rows: Tensor,  # (m, p)
        *,
        copy: bool = True,
    ) -> None:
        """Adds rows to the matrix of a key.

        Rows are copied, unless they will not change (``copy=False``).

        Raises:
            ValueError: Not a matrix, or another width or dtype than before.
        """
        rows = rows.detach()
        if rows.dim() != 2:
            raise ValueError(f"rows: expected a matrix (m, p), got shape {tuple(rows.shape)}")
        known, width = self._shape.get(key, (0, rows.shape[1]))
        if width != rows.shape[1] or self._dtype.get(key, rows.dtype) != rows.dtype:
            raise ValueError(
                f"rows: expected {width} features of {self._dtype[key]} for key {key!r} as before, "
                f"got {rows.shape[1]} of {rows.dtype}"
            )
        self._shape[key] = (known + rows.shape[0], width)
        self._dtype[key] = rows.dtype
        self._device.setdefault(key, rows.device)
        if key in self._files:
            self._write(key, rows)
            return
        kept = rows.clone(memory_format=torch.contiguous_format) if copy else rows
        self._parts.setdefault(key, []).append(kept)
        while self.in_memory > self.memory:
            self._spill(max(self._parts, key=lambda k: sum(p.nbytes for p in self._parts[k])))

    def matrix(self, key: Hashable) -> Tensor:
        """All rows of a key so far (n, p): a tensor in memory, or a file mapped into it.

        What was added on a GPU is there again; from a file it is read whole.

        Raises:
            KeyError: Nothing was added under this key.
        """
        if key in self._files:
            self._write_header(key)
            # Copy-on-write: the tensor may be written to, the file stays as it is.
            mapped = torch.from_numpy(np.load(self._files[key], mmap_mode="c"))
            return mapped.view(self._dtype[key]).to(self._device[key])
        parts = self._parts[key]
        if len(parts) > 1:
            self._parts[key] = parts = [torch.cat(parts)]
        return parts[0]

    def close(self) -> None:
        """Forgets everything; removes the files. Matrices in them live on as long as they are
        used."""
        self._parts.clear()
        self._files.clear()
        self._shape.clear()
        self._dtype.clear()
        self._device.clear()
        if self._scratch is not None:
            self._scratch.close()
        self._scratch = None

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _spill(self, key: Hashable) -> None:
        if self._scratch is None:
            self._scratch = Scratch(self._given)
        file = self._scratch.path / f"{len(self._files)}.npy"
        with file.open("xb") as new:
            new.write(b"\0" * _HEADER)
        self._files[key] = file
        for part in self._parts.pop(key):
            self._write(key, part)

    def _write(self, key: Hashable, rows: Tensor) -> None:
        with self._files[key].open("ab") as file:
            rows.cpu().contiguous().view(_named(rows.dtype)).numpy().tofile(file)

    def _write_header(self, key: Hashable) -> None:
        dtype = torch.empty(0, dtype=_named(self._dtype[key])).numpy().dtype
        text = repr(
            {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": self._shape[key]}
        ).encode("latin1")
        magic = npy.magic(1, 0)
        padded = text.ljust(_HEADER - len(magic) - 3) + b"\n"
        with self._files[key].open("r+b") as file:
            file.write(magic + len(padded).to_bytes(2, "little") + padded)


def _named(dtype: torch.dtype) -> torch.dtype:
    """A dtype of the same size that npy has a name for."""
    return torch.int16 if dtype == torch.bfloat16 else dtype


class Spill:
    """Keeps views of representations, in memory up to a budget and in mapped files beyond it.

    Args:
        memory: Bytes of tensors that may stay in memory; None for all.
    """

    def __init__(self, memory: int | None) -> None:
        self._left = memory
        self._store = FeatureStore(memory=0)

    def keep(self, view: View) -> View:
        """The view itself, or one like it with its tensors in files."""
        if self._left is None:
            return view
        self._left -= sum(tensor.nbytes for tensor in _tensors(view))
        return view if self._left >= 0 else self._moved(view)

    def close(self) -> None:
        """Removes the files; views in them must not be used afterwards."""
        self._store.close()

    def _moved(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() in (1, 2) and value.nbytes >= MIN_SPILL:
            key = len(self._store.keys())
            self._store.append(key, value if value.dim() == 2 else value[None])
            matrix = self._store.matrix(key)
            return matrix if value.dim() == 2 else matrix[0]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return dataclasses.replace(value, **{k: self._moved(v) for k, v in fields.items()})
        if isinstance(value, tuple):
            return tuple(self._moved(part) for part in value)
        return value


# Smaller tensors stay in memory: a page of a file is not smaller.
MIN_SPILL = 1 << 16


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for f in dataclasses.fields(value) for t in _tensors(getattr(value, f.name))]
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
