"""Linear CKA from the Grams of batches: nothing of a layer outlives its batch but n²/2 numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from repsim_fast._core.processes import Processes
from repsim_fast.ops import Precision
from repsim_fast.similarity.base.accumulator import (
    BY_CONSTRUCTION,
    SEVERAL_ROWS,
    NotFiniteError,
    Similarities,
)
from repsim_fast.similarity.base.estimator import Estimator, hsic_scale
from repsim_fast.similarity.streaming.gram_buffer import GramBuffer
from repsim_fast.similarity.streaming.minibatch import MinibatchCKA, least_entry

CONSTANT = "they do not vary over the data, or too little for their dtype"
VARIES_ONCE = "without some of the batches they do not vary; use larger batches or more samples"
EXACT = "exact, the mean over all orders of the samples of a batch"
_EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


class GramAccumulator(GramBuffer):
    """Linear CKA from minibatch HSIC: a packed Gram for each layer, then all pairs at once.

    Args:
        estimator: "unbiased" (HSIC₁, needs 4 samples a batch) or "biased".
        precision: Precision of the Gram products, as in ``ops.centered_gram``.
        capacity: Expected number of layers.
    """

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
        super().__init__(estimator=estimator, precision=precision, capacity=capacity)
        self._cka = MinibatchCKA(estimator=estimator)
        # (L, L) of the biased form: Σ n HSIC of batches, on average over all orders of their
        # samples in one of two layers.
        self._by_chance: Tensor | None = None
        self._product = torch.empty(0, 0)  # (L, L) of the latest batch
        self._n_batches = 0
        self._rows_are_samples = True
        self._largest = torch.zeros(0)  # (L,) largest root mean square Gram entry of any batch

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        """Add the HSIC of all pairs of layers; refuse the batch if a Gram is not finite."""
        grams, scale = self.grams, hsic_scale(n, self._cka.estimator)
        if grams.dtype == torch.float32 and self._product.shape[0] != len(grams):
            self._product = grams.new_empty(len(grams), len(grams))
        out = self._product if grams.dtype == torch.float32 else None
        product = self._cka.batch_product(grams, n=n, out=out)
        mean_square = product.diagonal().double() / self._width
        finite = torch.isfinite(mean_square)
        if not bool(finite.all()):
            raise NotFiniteError((~finite).nonzero().flatten().tolist())
        self._cka.add(product, n=n, number=number, scale=scale)
        if self.centering == "double":
            by_chance = n * self._hsic_by_chance(n)
            self._by_chance = by_chance + (0 if self._by_chance is None else self._by_chance)
        rms = mean_square.sqrt()
        self._largest = torch.maximum(self._largest, rms) if self._n_batches else rms
        self._n_batches += 1
        self._rows_are_samples &= of in (None, n)

    def pool(self, layers: Sequence[int], processes: Processes) -> None:
        """Add the sums of all processes, see `Accumulator.pool`."""
        self._cka.pool(layers, processes)
        chosen, size = torch.tensor(layers, dtype=torch.int64), len(layers)

        def own(vector: Tensor) -> Tensor:
            """A vector or matrix of the layers, to be sent; zeros where there was no batch."""
            if not self._n_batches:
                return torch.zeros(*[size] * vector.ndim, dtype=torch.float64).to(processes.device)
            for dimension in range(vector.ndim):
                vector = vector.index_select(dimension, chosen.to(vector.device))
            return vector.to(processes.device, torch.float64)

        self._largest = processes.largest(own(self._largest)).cpu()
        if self.centering == "double":
            by_chance = torch.zeros(0, 0) if self._by_chance is None else self._by_chance
            self._by_chance = processes.sum(own(by_chance)).cpu()
        scales = [self.scales[layer].cpu() for layer in layers] if self._n_batches else []
        found = processes.gather(
            (scales, self.products, self._rows_are_samples, self._n_batches, self._buffer.dtype)
        )
        # As in one process, the first sample of all tells how large features are.
        self.scales = next(scales for scales, *_ in found if scales)
        self.products = set().union(*(products for _, products, *_ in found))
        self._rows_are_samples = all(rows for *_, rows, _, _ in found)
        self._n_batches = sum(n_batches for *_, n_batches, _ in found)
        self._size = size
        for *_, dtype in found:
            self._buffer = self._buffer.to(torch.promote_types(self._buffer.dtype, dtype))

    @property
    def n_batches(self) -> int:
        """Batches closed so far."""
        return self._n_batches

    def kept(self) -> dict[str, Tensor]:
        """All that batches have added up to but for ``products``, for `go_on`; of one at least."""
        by_chance = {} if self._by_chance is None else {"by_chance": self._by_chance.cpu()}
        rows = torch.tensor(self._rows_are_samples)
        return {**self._cka.kept(), **by_chance, "largest": self._largest.cpu(), "rows": rows}

    def go_on(self, kept: Mapping[str, Tensor], products: Iterable[str]) -> None:
        """Be what had added up to this, after a first batch, which is forgotten.

        Raises:
            ValueError: It is nothing that `kept` gave, or of other layers.
        """
        wanted = self.kept()
        if missing := sorted(wanted.keys() - kept.keys()):
            raise ValueError(f"{missing[0]}: expected sums over batches, got none")
        size = len(self._largest)
        for name, shape in (("largest", (size,)), ("by_chance", (size, size)), ("rows", ())):
            if name in wanted and kept[name].shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {tuple(kept[name].shape)}")
        self._cka.go_on(kept)
        self._largest = kept["largest"].to(self._largest)
        if self._by_chance is not None:
            self._by_chance = kept["by_chance"].to(self._by_chance)
        self._rows_are_samples = bool(kept["rows"])
        self._n_batches = self._cka.n_batches
        self.products |= set(products)

    def _hsic_by_chance(self, n: int) -> Tensor:
        """Mean HSIC (L, L) of a batch over all orders of samples: tr K tr L / (n - 1), scaled.

        Permuted, a Gram L has tr L / n on its diagonal on average and, since its entries add up to
        0, -tr L / (n(n - 1)) off it.
        """
        position = torch.arange(n, device=self._buffer.device)
        diagonal = position * (position + 3) // 2  # of a packed triangle
        traces = self._buffer[: self._size, diagonal].double().sum(dim=1)
        return torch.outer(traces, traces) * (hsic_scale(n, self._cka.estimator) / (n - 1))

    def _chance(self, value: Tensor, constant: Tensor) -> tuple[Tensor | None, str]:
        """Chance level (L, L), and how it was found or why not."""
        if not self._rows_are_samples:
            return None, SEVERAL_ROWS
        if self._by_chance is None:
            level, note = torch.zeros_like(value), BY_CONSTRUCTION
        else:
            sizes = (self._cka.hsic().diagonal() * self._cka.n_samples).sqrt()
            level, note = self._by_chance / torch.outer(sizes, sizes), EXACT
        return _drop(level, constant), note

    def compute(self, *, bare: bool = False) -> Similarities:
        """CKA and jackknife standard errors; NaN for constant layers."""
        cka = self._cka.compute()
        constant = self._constant_layers()
        value = _drop(cka.value, constant)
        error = _drop(cka.standard_error, constant)
        chance, chance_note = self._chance(value, constant)
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
            settings={"products": ", ".join(sorted(self.products))},
        )

    def _constant_layers(self) -> Tensor:
        """Numbers of the layers of which no batch left more than rounding after centring."""
        scales = torch.stack([scale.to(self._largest) for scale in self.scales])
        eps = torch.tensor([_EPS[scale.dtype] for scale in self.scales]).to(scales)
        # What rounding leaves of features that do not vary, squared as in a Gram.
        resolution = (self._CONSTANT_ULPS * eps * scales).square()
        resolution = resolution.clamp_min(least_entry(self._buffer.dtype))
        return (self._largest <= resolution).nonzero().flatten()


def _drop(
    matrix: Tensor,  # (L, L)
    layers: Tensor,
) -> Tensor:
    """Put NaN into the rows and columns of some layers."""
    layers = layers.to(matrix.device)
    matrix[layers] = math.nan
    matrix[:, layers] = math.nan
    return matrix
