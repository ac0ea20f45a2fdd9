"""Linear CKA from the Grams of batches: nothing of a layer outlives its batch but n²/2 numbers."""

from __future__ import annotations

import functools
import math

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
from repsim_fast.similarity.base.accumulator import (
    BY_CONSTRUCTION,
    SEVERAL_ROWS,
    NotFiniteError,
    Similarities,
)
from repsim_fast.similarity.base.estimator import CENTERING, Estimator, hsic_scale
from repsim_fast.similarity.streaming.minibatch import MinibatchCKA, least_entry

_centered_gram_out = torch.ops.repsim_fast.centered_gram_out.default
CONSTANT = "they do not vary over the data, or too little for their dtype"
VARIES_ONCE = "without some of the batches they do not vary; use larger batches or more samples"
EXACT = "exact, the mean over all orders of the samples of a batch"
_EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


def _gram_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


class GramAccumulator:
    """Linear CKA from minibatch HSIC: a packed Gram for each layer, then all pairs at once.

    Memory: one buffer (L, m) of packed Grams, m about n²/2, reused by every batch.

    Args:
        estimator: "unbiased" (HSIC₁, needs 4 samples a batch) or "biased".
        precision: Precision of the Gram products, as in ``ops.centered_gram``.
        capacity: Expected number of layers.
    """

    any_feature_order = True
    samples_may_return = True
    capturable = True

    # Features that vary by less than this, in units of float rounding of their own size, are
    # constant: what is left after centring is the rounding error of the mean.
    _CONSTANT_ULPS = 8

    def __init__(
        self,
        *,
        estimator: Estimator = "unbiased",
        precision: Precision | None = None,
        capacity: int = 0,
    ) -> None:
        self.description: str = estimator
        self.min_samples = 4 if estimator == "unbiased" else 2
        self._centering: Centering = CENTERING[estimator]
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
        # (L, L) of the biased form: Σ n HSIC of batches, on average over all orders of their
        # samples in one of two layers.
        self._by_chance: Tensor | None = None
        self._n_batches = 0
        self._rows_are_samples = True
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

    def end_batch(self, n: int, *, of: int | None = None) -> None:
        """Add the HSIC of all pairs of layers; refuse the batch if a Gram is not finite."""
        hsic = self._cka.batch_hsic(self._buffer[: self._size], n=n)
        mean_square = hsic.diagonal() / (hsic_scale(n, self._cka.estimator) * self._width)
        finite = torch.isfinite(mean_square)
        if not bool(finite.all()):
            raise NotFiniteError((~finite).nonzero().flatten().tolist())
        self._cka.add(hsic, n=n)
        if self._centering == "double":
            by_chance = n * self._hsic_by_chance(n)
            self._by_chance = by_chance + (0 if self._by_chance is None else self._by_chance)
        rms = mean_square.sqrt()
        self._largest = torch.maximum(self._largest, rms) if self._n_batches else rms
        self._n_batches += 1
        self._rows_are_samples &= of in (None, n)

    def _hsic_by_chance(self, n: int) -> Tensor:
        """Mean HSIC (L, L) of a batch over all orders of samples: tr K tr L / (n - 1), scaled.

        Permuted, a Gram L has tr L / n on its diagonal on average and, since its entries add up to
        0, -tr L / (n(n - 1)) off it.
        """
        position = torch.arange(n, device=self._buffer.device)
        diagonal = position * (position + 3) // 2  # of a packed triangle
        traces = self._buffer[: self._size, diagonal].double().sum(dim=1)
        return torch.outer(traces, traces) * (hsic_scale(n, self._cka.estimator) / (n - 1))

    def _chance(self, constant: Tensor) -> tuple[Tensor | None, str]:
        """Chance level (L, L), and how it was found or why not."""
        if not self._rows_are_samples:
            return None, SEVERAL_ROWS
        if self._by_chance is None:
            level, note = torch.zeros_like(self._cka.hsic()), BY_CONSTRUCTION
        else:
            sizes = (self._cka.hsic().diagonal() * self._cka.n_samples).sqrt()
            level, note = self._by_chance / torch.outer(sizes, sizes), EXACT
        return _without_value(level, constant), note

    def compute(self, *, bare: bool = False) -> Similarities:
        """CKA and jackknife standard errors; NaN for constant layers."""
        cka = self._cka.compute()
        constant = self._constant_layers()
        value = _without_value(cka.value, constant)
        error = _without_value(cka.standard_error, constant)
        chance, chance_note = self._chance(constant)
        one_batch = len(cka.group_samples) < 2
        unsure = ~value.diagonal().isnan() & error.diagonal().isnan() & (not one_batch)
        return Similarities(
            value,
            error,
            cka.n_samples,
            cka.n_batches,
            undefined=dict.fromkeys(constant.tolist(), CONSTANT),
            no_error="all samples were one batch; several, by a smaller batch_size, give standard "
            "errors" * one_batch,
            no_error_of=dict.fromkeys(unsure.nonzero().flatten().tolist(), VARIES_ONCE),
            chance=chance,
            chance_note=chance_note,
            hsic=cka.hsic,
            group_samples=cka.group_samples,
            settings={"products": ", ".join(sorted(self._products))},
        )

    def _constant_layers(self) -> Tensor:
        """Numbers of the layers of which no batch left more than rounding after centring."""
        scales = torch.stack([scale.to(self._largest) for scale in self._scales])
        eps = torch.tensor([_EPS[scale.dtype] for scale in self._scales]).to(scales)
        # What rounding leaves of features that do not vary, squared as in a Gram.
        resolution = (self._CONSTANT_ULPS * eps * scales).square()
        resolution = resolution.clamp_min(least_entry(self._buffer.dtype))
        return (self._largest <= resolution).nonzero().flatten()


def _without_value(
    matrix: Tensor,  # (L, L)
    layers: Tensor,
) -> Tensor:
    """A copy with NaN in the rows and columns of some layers."""
    matrix, layers = matrix.clone(), layers.to(matrix.device)
    matrix[layers] = math.nan
    matrix[:, layers] = math.nan
    return matrix
