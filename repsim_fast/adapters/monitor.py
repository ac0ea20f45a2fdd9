"""A network in training compared with a reference, every so many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.grid import Grid
from repsim_fast.comparison.result import SimilarityResult

Figures = dict[str, float]
"""Numbers of one comparison by name, for logs."""

_NAMES = ("reference", "model")


class Monitor:
    """Compares a network with a reference every so many steps; the network comes back as it was.

    Args:
        reference: What it is compared with, such as a trained network or a copy of it as it began.
            It is not changed.
        data: What both are run on, as for ``compare``, the same each time: a data set, a loader, or
            a list of batches, no iterator that ends.
        every: Steps between comparisons.
        on_result: Called as (result, step) after each comparison, to draw or to keep it.
        **options: Of ``compare``, such as ``layers``, ``measure`` or ``device``.

    Attributes:
        figures: By step, the numbers of each comparison: the means of the grid, such as
            ``cka/mean_same_layer``, and as ``cka/layer/NAME`` each layer that both have.

    Raises:
        ValueError: ``every`` is not positive, or an option that the monitor itself chooses.

    Example:
        >>> import torch
        >>> from repsim_fast.adapters import Monitor
        >>> model, before = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> monitor = Monitor(before, torch.randn(40, 4), every=100)
        >>> for step in range(1, 201):
        ...     figures = monitor.step(model, step)  # after the optimizer's step
        >>> sorted(monitor.figures)
        [100, 200]
    """

    def __init__(
        self,
        reference: nn.Module,
        data: Any,
        *,
        every: int = 1000,
        on_result: Callable[[SimilarityResult, int], object] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every: expected a positive number of steps, got {every!r}")
        if taken := sorted({"models", "model_b", "names", "process_group"} & options.keys()):
            raise ValueError(f"{taken[0]}: is the monitor's own to choose")
        if isinstance(data, Iterator):
            raise ValueError(
                f"data: expected data that can be read again, got a {type(data).__name__}"
            )
        self.reference = reference
        self.data = data
        self.every = every
        self.figures: dict[int, Figures] = {}
        self._on_result = on_result
        self._options = options
        self._seen = 0  # the step that was last

    def step(self, model: nn.Module, step: int) -> Figures | None:
        """Compare if it is time; gives the numbers, None where it is not.

        It is once where a step is called several times, as for batches whose gradients are
        accumulated. Another run of steps, as of the next fold, is compared anew: its numbers take
        the place of those of the same steps.
        """
        again, self._seen = step == self._seen and step in self.figures, step
        if step == 0 or step % self.every or again:
            return None
        models = dict(zip(_NAMES, (self.reference, model), strict=True))
        result = compare(models, data=self.data, **self._options)
        self.figures[step] = figures_of(result)
        if self._on_result is not None:
            self._on_result(result, step)
        return self.figures[step]


def figures_of(result: SimilarityResult) -> Figures:
    """The numbers of a comparison of two models: means, and each layer that both have."""
    grid = result.between(0, 1)
    named = [(figure.name.replace(" ", "_"), figure.value) for figure in grid.figures()]
    named += [(f"layer/{name}", value) for name, value in _of_layers(grid)]
    return {f"{grid.measure}/{name}": value for name, value in named if not math.isnan(value)}


def _of_layers(grid: Grid) -> Iterator[tuple[str, float]]:
    """Names and values of the layers that both models have."""
    columns = {name: i for i, name in enumerate(grid.columns)}
    for i, name in enumerate(grid.rows):
        if name in columns:
            yield name, float(grid.value[i, columns[name]])
