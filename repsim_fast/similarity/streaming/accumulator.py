"""From the features of layers, batch by batch, to the similarities of all pairs of layers.

This is the seam between the engine, which runs models and knows nothing of measures, and the
measures, which know nothing of models. A new measure for ``compare`` is one class with the methods
of :class:`Accumulator` and a line in :data:`MEASURES`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from repsim_fast.ops import (
    Centering,
    GramWriter,
    Precision,
    centered_gram,
    products_in,
    resolve_precision,
)
from repsim_fast.similarity import Measure, MinibatchCKA, measure_names
from repsim_fast.similarity.measures.cka import hsic_scale
from repsim_fast.similarity.streaming.minibatch import least_entry

Estimator = Literal["unbiased", "biased"]


class Estimate(NamedTuple):
    """What is known after some batches: (L, L) matrices over all L layers of all models."""

    value: Tensor  # (L, L) float64
    standard_error: Tensor  # (L, L) float64, NaN where there is none
    n_samples: int
    n_batches: int
    constant: tuple[int, ...]  # layers whose features do not vary, where similarity is undefined
    hsic: Tensor | None = None  # (G, L, L) float64 sums over groups of batches, of minibatch CKA
    group_samples: tuple[int, ...] = ()  # of each group of batches or samples that is left out
    left_out: Tensor | None = None  # (G, L, L) float64 without each group, where there is no hsic


class NotFiniteError(ArithmeticError):
    """Layers whose features made something infinite or undefined, by number."""

    def __init__(self, layers: list[int]) -> None:
        super().__init__(f"not finite: layers {layers}")
        self.layers = layers


class Accumulator(Protocol):
    """A measure that is fed the features of one batch after the other.

    Layers have numbers 0, 1, ... in the order in which ``add`` first sees them; every batch brings
    each layer once, in any order after the first batch. A batch counts only when ``end_batch`` was
    called, and ``estimate`` may be called after any batch.
    """

    min_samples: int
    """Samples that a batch needs at least."""

    any_feature_order: bool
    """Whether features may come in another order in each batch, and in several dimensions."""

    only_queues: bool
    """Whether ``add`` and ``repeat`` leave the work on a GPU to its current stream, and write to
    the same memory for every batch of as many samples as the one before."""

    def add(self, layer: int, features: Tensor) -> None:
        """Take the features (n, p) of one layer, valid during the call only; (n, ...) contiguous
        ones too if ``any_feature_order``."""

    def repeat(self, layer: int, of: int) -> None:
        """Take for one layer the features that another one brought in this batch."""

    def end_batch(self, n: int) -> None:
        """Close a batch of n samples. Raises NotFiniteError and then forgets the batch."""

    def estimate(self) -> Estimate:
        """Similarities of all pairs of layers, over the batches closed so far."""


_centered_gram_out = torch.ops.repsim_fast.centered_gram_out.default
_EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


def _gram_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


class CKAAccumulator:
    """Linear CKA from minibatch HSIC: a packed Gram for each layer, then all pairs at once.

    Memory: one buffer (L, m) of packed Grams, m about n²/2, reused by every batch.

    Args:
        estimator: "unbiased" (HSIC₁, needs 4 samples a batch) or "biased".
        precision: Precision of the Gram products, as in ``ops.centered_gram``.
        capacity: Expected number of layers.
    """

    any_feature_order = True
    only_queues = True

    # Features that vary by less than this, in units of float rounding of their own size, are
    # constant: what is left after centring is the rounding error of the mean.
    _CONSTANT_ULPS = 8

    def __init__(self, *, estimator: Estimator, precision: Precision | None, capacity: int) -> None:
        self.min_samples = 4 if estimator == "unbiased" else 2
        self._centering: Centering = "unbiased" if estimator == "unbiased" else "double"
        self._precision = precision
        self._gram = functools.partial(
            centered_gram, centering=self._centering, packed=True, precision=precision
        )
        self._capacity = capacity
        self._buffer = torch.empty(0, 0)
        self._rows: tuple[Tensor, ...] = ()  # of the buffer
        self._addresses: list[int] = []  # of the rows
        self._width = 0  # of the buffer: entries of one packed Gram
        # Samples, dtype and device of features whose Grams can go straight to their rows.
        self._served: tuple[int, torch.dtype, torch.device] | None = None
        self._resolved: Precision = "float32"  # precision of their products
        self._products: set[str] = set()  # what those of any features were taken in
        self._writer: GramWriter | None = None  # of their Grams, on the CPU
        self._cka = MinibatchCKA(estimator=estimator)
        self._n_batches = 0
        self._size = 0  # layers seen
        self._scales: list[Tensor] = []  # Euclidean norm of one sample's features, by layer
        self._largest = torch.zeros(0)  # (L,) largest root mean square Gram entry of any batch

    def add(self, layer: int, features: Tensor) -> None:
        """Take the Gram of the features and write it to its row of the buffer."""
        if features.requires_grad:
            features = features.detach()
        if layer >= self._size:
            self._scales.append(torch.linalg.vector_norm(features[0], dtype=_gram_dtype(features)))
            self._size = layer + 1
        n = features.shape[0]
        kind = (n, features.dtype, features.device)
        if kind != self._served or layer >= len(self._rows):
            self._serve(kind, layer, features.flatten(1))
        # What `centered_gram` would check has been checked for features of this kind.
        elif self._writer is not None and type(features) is Tensor and features.is_contiguous():
            p = features.numel() // n
            self._writer.write(features.data_ptr(), n, p, self._addresses[layer])
        else:
            x, out = features.flatten(1), self._rows[layer]
            _centered_gram_out(x, self._centering, True, self._resolved, out)

    def repeat(self, layer: int, of: int) -> None:
        """Copy the Gram of another layer."""
        if layer >= self._size:
            self._scales.append(self._scales[of])
            self._size = layer + 1
            if layer >= len(self._rows):
                self._fit_buffer(self._width, self._buffer.dtype, self._buffer.device)
        self._rows[layer].copy_(self._rows[of])

    def _serve(
        self, kind: tuple[int, torch.dtype, torch.device], layer: int, features: Tensor
    ) -> None:
        """Take the first Gram of a kind of features, and make room for it where there is none."""
        self._products.add(products_in(features, self._precision))
        n, dtype = len(features), _gram_dtype(features)
        width = n * (n - 1) // 2 if self._centering == "unbiased" else n * (n + 1) // 2
        if width != self._width or layer >= len(self._rows):
            self._fit_buffer(width, dtype, features.device)
        elif dtype == torch.float64 != self._buffer.dtype:
            self._fit_buffer(width, dtype, self._buffer.device)
        if self._buffer.dtype == dtype and self._buffer.device == features.device:
            self._gram(features, out=self._rows[layer])
            self._resolved = resolve_precision(features, self._precision)
            self._served = kind
            word = str(features.dtype).removeprefix("torch.")
            self._writer = (
                GramWriter(word, self._centering, self._resolved) if features.is_cpu else None
            )
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
        self._served = self._writer = None
        if old.shape[1] == width:
            self._buffer[: len(old)] = old
        self._rows = self._buffer.unbind()
        self._addresses = [row.data_ptr() for row in self._rows]

    @property
    def products(self) -> str:
        """What the products of features were taken in; of several dtypes all."""
        return ", ".join(sorted(self._products))

    def end_batch(self, n: int) -> None:
        """Add the HSIC of all pairs of layers; refuse the batch if a Gram is not finite."""
        hsic = self._cka.batch_hsic(self._buffer[: self._size], n=n)
        mean_square = hsic.diagonal() / (hsic_scale(n, self._cka.estimator) * self._width)
        finite = torch.isfinite(mean_square)
        if not bool(finite.all()):
            raise NotFiniteError((~finite).nonzero().flatten().tolist())
        self._cka.add(hsic, n=n)
        rms = mean_square.sqrt()
        self._largest = torch.maximum(self._largest, rms) if self._n_batches else rms
        self._n_batches += 1

    def estimate(self) -> Estimate:
        """CKA and jackknife standard errors; NaN for constant layers."""
        cka = self._cka.compute()
        scales = torch.stack([scale.to(self._largest) for scale in self._scales])
        eps = torch.tensor([_EPS[scale.dtype] for scale in self._scales]).to(scales)
        # What rounding leaves of features that do not vary, squared as in a Gram.
        resolution = (self._CONSTANT_ULPS * eps * scales).square()
        resolution = resolution.clamp_min(least_entry(self._buffer.dtype))
        constant = (self._largest <= resolution).nonzero().flatten()
        value, error = cka.value.clone(), cka.standard_error.clone()
        for matrix in (value, error):
            matrix[constant.to(matrix.device)] = math.nan
            matrix[:, constant.to(matrix.device)] = math.nan
        return Estimate(
            value,
            error,
            cka.n_samples,
            cka.n_batches,
            tuple(constant.tolist()),
            cka.hsic,
            cka.group_samples,
        )


def of_all_samples(measure: str | Measure[Any]) -> Callable[..., Accumulator]:
    """What makes accumulators for a measure that needs the features of all batches at once."""

    def make(**settings: Any) -> Accumulator:
        from repsim_fast.similarity.streaming.samples import (
            SampleAccumulator,  # it needs this module
        )

        return SampleAccumulator(measure, **settings)

    return make


MEASURES: Mapping[str, Callable[..., Accumulator]] = {"cka": CKAAccumulator} | {
    name: of_all_samples(name) for name in measure_names() if name != "cka"
}
"""Accumulators by the name of their measure."""
