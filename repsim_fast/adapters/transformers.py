"""A callback of Transformers' ``Trainer``: the network in training compared with a reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from repsim_fast._core.extras import extra
from repsim_fast.adapters.monitor import Figures, Monitor

__all__ = ["CompareWithReference"]

_Callback: Any = extra(
    "transformers", of="transformers", purpose="adapters.transformers"
).TrainerCallback


class CompareWithReference(_Callback):
    """Every so many steps of the optimizer, in the first process.

    The numbers are in ``monitor.figures`` by step; with ``log=trainer.log``, set once the trainer
    is there, they go where it reports to (TensorBoard, Weights & Biases, ...).

    Args:
        reference: What the network is compared with.
        data: What both are run on, as for ``compare``, the same each time: batches as mappings with
            their ``attention_mask``, say.
        every: Steps between comparisons.
        log: Called with the numbers by name.
        **options: Of ``compare``, such as ``maps="mean"``, the mean over real tokens.

    Example:
        >>> from repsim_fast.adapters.transformers import CompareWithReference  # doctest: +SKIP
        >>> callback = CompareWithReference(before, batches, every=500)  # doctest: +SKIP
        >>> trainer = Trainer(model, arguments, callbacks=[callback], ...)  # doctest: +SKIP
        >>> callback.log = trainer.log  # doctest: +SKIP
    """

    def __init__(
        self,
        reference: nn.Module,
        data: Any,
        *,
        every: int = 1000,
        log: Callable[[Figures], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.monitor = Monitor(reference, data, every=every, **options)
        self.log = log

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare if it is time."""
        if not state.is_world_process_zero:
            return
        figures = self.monitor.step(kwargs["model"], state.global_step)
        if figures is not None and self.log is not None:
            self.log(figures)
