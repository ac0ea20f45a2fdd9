"""What a measure is for whole models: fed the features of layers batch by batch, asked for all
pairs of layers. The one who runs models knows only this, and no measure knows of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from repsim_fast._core.processes import Processes
from repsim_fast.ops import Centering

# Notes on chance levels that all accumulators share.
BY_CONSTRUCTION = "0 by construction of the unbiased estimator"
SEVERAL_ROWS = "not known where samples have several rows, such as positions, that belong together"


@dataclass(frozen=True, eq=False)
class Similarities:
    """What is known after some batches, of all pairs of L layers.

    Attributes:
        value: (L, L) float64; NaN for layers without a value.
        standard_error: (L, L) float64; NaN where it is not known.
        n_samples: Samples used.
        n_batches: Batches used.
        undefined: Why layers have no value, by their number.
        no_error: Why there are no standard errors, and what gives them; empty where there are.
        no_error_of: Why layers that have a value have no standard error, by their number.
        chance: (L, L) float64, mean value of samples that do not correspond; None where not known.
        chance_note: How that was found, or why it is not known and what gives it.
        notes: What one must know to read the values.
        hsic: (G, L, L), sums Σ n HSIC over groups of batches, of minibatch CKA; float64, or
            float32 of single batches.
        left_out: (G, L, L) float64, values without each group of samples, of other measures.
        group_samples: Samples of each group.
        settings: How it was computed, as far as the data decided that.
    """

    value: Tensor
    standard_error: Tensor
    n_samples: int
    n_batches: int
    undefined: Mapping[int, str]
    no_error: str
    no_error_of: Mapping[int, str] = field(default_factory=dict)
    chance: Tensor | None = None
    chance_note: str = ""
    notes: tuple[str, ...] = ()
    hsic: Tensor | None = None
    left_out: Tensor | None = None
    group_samples: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


class NotFiniteError(ArithmeticError):
    """Layers whose features made something infinite or undefined, by number."""

    def __init__(self, layers: list[int]) -> None:
        super().__init__(f"not finite: layers {layers}")
        self.layers = layers


class Taker(Protocol):
    """What is fed the features of one batch after the other.

    Layers have numbers 0, 1, ... in the order in which ``add`` first sees them; every batch brings
    each layer once, in any order after the first batch. A batch counts only when ``end_batch`` was
    called.
    """

    description: str
    """How values are estimated, for people."""

    min_samples: int
    """Samples that a batch needs at least."""

    any_feature_order: bool
    """Whether features may come in another order in each batch, and in several dimensions."""

    samples_may_return: bool
    """Whether a sample may come in several batches, as in several passes over the data."""

    capturable: bool
    """Whether a CUDA graph may hold ``add`` and ``repeat``: they leave the work on a GPU to its
    current stream, and write to the same memory for every batch of as many samples as the one
    before."""

    def add(self, layer: int, features: Tensor) -> None:
        """Take the features (n, p) of one layer, valid during the call only; (n, ...) contiguous
        ones too if ``any_feature_order``."""

    def repeat(self, layer: int, of: int) -> None:
        """Take for one layer the features that another one brought in this batch."""

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        """Close a batch of n rows, of so many samples where that is another number: those of
        positions or tokens; by default it has the number after that of the one before. Raises
        NotFiniteError and then forgets the batch."""


class Accumulator(Taker, Protocol):
    """A measure that is fed batch by batch, and may be asked after any of them."""

    @property
    def centering(self) -> Centering | None:
        """Of the packed Grams that ``add_grams`` takes instead of features; None: it takes none."""

    def add_grams(self, first: int, grams: Tensor, scales: Sequence[Tensor]) -> None:
        """Take for layers from ``first`` on their packed Grams (k, m), of features one sample of
        which had a norm of its scale () each, which were there before."""

    def pool(self, layers: Sequence[int], processes: Processes) -> None:
        """Become in the first process, by what all others send it, what one would be that had been
        given the batches of all, by their numbers; only there may it be asked afterwards.

        ``layers`` are those of this one that it then has, as 0, 1, ...; a process that was given no
        batch has as many of any number.
        """

    def compute(self, *, bare: bool = False) -> Similarities:
        """Similarities of all pairs of layers, over the batches closed so far. ``bare``: only what
        does not take longer than the values themselves, as after an interruption."""
