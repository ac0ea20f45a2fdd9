"""Packed centred Grams of the layers of one batch, taken where the activations are."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from repsim_fast.ops import (
    Centering,
    Precision,
    centered_gram,
    products_in,
    resolve_precision,
)
from repsim_fast.ops.gram.writer import GramWriter
from repsim_fast.similarity.base.estimator import CENTERING, Estimator

_centered_gram_out = torch.ops.repsim_fast.centered_gram_out.default


_Kind = tuple[int, torch.dtype, torch.device]  # samples, dtype and device of features
_Served = tuple[Precision, GramWriter | None]  # precision of their products; on the CPU a writer


def packed_size(n: int, centering: Centering) -> int:
    """Entries of the packed Gram of n samples."""
    return n * (n - 1) // 2 if centering == "unbiased" else n * (n + 1) // 2


def _gram_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


class GramBuffer:
    """A buffer (L, m) of packed Grams, m about n²/2, reused by every batch.

    Args:
        estimator: "unbiased" (HSIC₁, needs 4 samples a batch) or "biased".
        precision: Precision of the Gram products, as in ``ops.centered_gram``.
        capacity: Expected number of layers.
    """

    any_feature_order = True
    samples_may_return = True
    capturable = True

    def __init__(
        self,
        *,
        estimator: Estimator = "unbiased",
        precision: Precision | None = None,
        capacity: int = 0,
    ) -> None:
        self.description: str = estimator
        self.min_samples = 4 if estimator == "unbiased" else 2
        self.centering: Centering = CENTERING[estimator]
        self._precision = precision
        self._gram = functools.partial(
            centered_gram, centering=self.centering, packed=True, precision=precision
        )
        self._capacity = capacity
        self._buffer = torch.empty(0, 0)
        self._rows: tuple[Tensor, ...] = ()  # of the buffer
        self._addresses: list[int] = []  # of the rows
        self._width = 0  # of the buffer: entries of one packed Gram
        # Features whose Grams can go straight to their rows.
        self._served: dict[_Kind, _Served] = {}
        self._size = 0  # layers seen
        self.products: set[str] = set()  # what those of any features were taken in
        self.scales: list[Tensor] = []  # Euclidean norm of one sample's features, by layer

    @property
    def grams(self) -> Tensor:
        """Those (L, m) of the current batch; valid until the next one."""
        return self._buffer[: self._size]

    def add(self, layer: int, features: Tensor) -> None:
        """Take the Gram of the features and write it to its row of the buffer."""
        if features.requires_grad:
            features = features.detach()
        if layer >= self._size:
            self.scales.append(torch.linalg.vector_norm(features[0], dtype=_gram_dtype(features)))
            self._size = layer + 1
        n = features.shape[0]
        kind = (n, features.dtype, features.device)
        served = self._served.get(kind)
        if served is None or layer >= len(self._rows):
            self._serve(kind, layer, features.flatten(1))
            return
        # What `centered_gram` would check has been checked for features of this kind.
        precision, writer = served
        if writer is not None and type(features) is Tensor and features.is_contiguous():
            writer.write(features.data_ptr(), n, features.numel() // n, self._addresses[layer])
        else:
            x, out = features.flatten(1), self._rows[layer]
            _centered_gram_out(x, self.centering, True, precision, out)

    def repeat(self, layer: int, of: int) -> None:
        """Copy the Gram of another layer."""
        if layer >= self._size:
            self.scales.append(self.scales[of])
            self._size = layer + 1
            if layer >= len(self._rows):
                self._fit_buffer(self._width, self._buffer.dtype, self._buffer.device)
        self._rows[layer].copy_(self._rows[of])

    def add_grams(
        self,
        first: int,
        grams: Tensor,  # (k, m)
        scales: Sequence[Tensor],  # k of ()
    ) -> None:
        """Take packed Grams that were taken before, of successive layers, of features one sample
        of which had a norm of its scale."""
        end = first + len(grams)
        if end > self._size:
            self.scales += scales[self._size - first :]
            self._size = end
        device = self._buffer.device if self._width else grams.device
        if grams.shape[1] != self._width or end > len(self._rows):
            self._fit_buffer(grams.shape[1], grams.dtype, device)
        elif grams.dtype == torch.float64 != self._buffer.dtype:
            self._fit_buffer(self._width, grams.dtype, device)
        self._buffer[first:end].copy_(grams)

    def _serve(self, kind: _Kind, layer: int, features: Tensor) -> None:
        """Take the first Gram of a kind of features, and make room for it where there is none."""
        self.products.add(products_in(features, self._precision))
        n, dtype = len(features), _gram_dtype(features)
        width = packed_size(n, self.centering)
        if width != self._width or layer >= len(self._rows):
            self._fit_buffer(width, dtype, features.device)
        elif dtype == torch.float64 != self._buffer.dtype:
            self._fit_buffer(width, dtype, self._buffer.device)
        if self._buffer.dtype == dtype and self._buffer.device == features.device:
            self._gram(features, out=self._rows[layer])
            resolved = resolve_precision(features, self._precision)
            word = str(features.dtype).removeprefix("torch.")
            writer = GramWriter(word, self.centering, resolved) if features.is_cpu else None
            self._served[kind] = resolved, writer
        else:
            self._rows[layer].copy_(self._gram(features))

    def _fit_buffer(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        """Make the buffer anew: it was too small, too narrow or of too low a precision."""
        old = self._buffer
        if self._capacity < self._size:
            self._capacity = math.ceil(1.5 * self._size)
        dtype = torch.promote_types(old.dtype, dtype)
        self._buffer = torch.empty(self._capacity, width, dtype=dtype, device=device)
        self._width = width
        self._served.clear()
        if old.shape[1] == width:
            self._buffer[: len(old)] = old
        self._rows = self._buffer.unbind()
        self._addresses = [row.data_ptr() for row in self._rows]
