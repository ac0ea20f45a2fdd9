"""A callback of Lightning: the network in training compared with a reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from torch import nn

from repsim_fast._core.extras import extra
from repsim_fast.adapters.monitor import Monitor
from repsim_fast.comparison.result import SimilarityResult

__all__ = ["CompareWithReference"]

_PACKAGE = (
    "pytorch_lightning"
    if importlib.util.find_spec("lightning") is None
    and importlib.util.find_spec("pytorch_lightning") is not None
    else "lightning.pytorch"
)
_Callback: Any = extra(
    f"{_PACKAGE}.callbacks", of="lightning", purpose="adapters.lightning"
).Callback


class CompareWithReference(_Callback):
    """Every so many steps of the optimizer, numbers and heat map go to the trainer's loggers.

    Numbers go to ``logger.log_metrics``; the heat map to TensorBoard (``experiment.add_figure``)
    and to loggers with ``log_image``, as that of Weights & Biases. Under DDP the first process
    compares.

    Args:
        reference: What the network is compared with.
        data: What both are run on, as for ``compare``, the same each time.
        every: Steps between comparisons.
        module: What is compared of the ``LightningModule``, such as ``lambda m: m.net``; default:
            all of it, by its ``forward``.
        figure: Whether to draw the heat map.
        **options: Of ``compare``.

    Example:
        >>> from repsim_fast.adapters.lightning import CompareWithReference  # doctest: +SKIP
        >>> callback = CompareWithReference(before, images, every=500)  # doctest: +SKIP
        >>> Trainer(callbacks=[callback]).fit(model, loader)  # doctest: +SKIP
    """

    def __init__(
        self,
        reference: nn.Module,
        data: Any,
        *,
        every: int = 1000,
        module: Callable[[Any], nn.Module] | None = None,
        figure: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self.monitor = Monitor(reference, data, every=every, on_result=self._keep, **options)
        self.result: SimilarityResult | None = None  # the latest
        self._module = module
        self._figure = figure

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare if it is time."""
        if not trainer.is_global_zero:
            return
        step = int(trainer.global_step)
        model = pl_module if self._module is None else self._module(pl_module)
        figures = self.monitor.step(model, step)
        if figures is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics(figures, step)
            if self._figure and self.result is not None:
                _log_figure(logger, self.result.plot(), step)

    def _keep(self, result: SimilarityResult, step: int) -> None:
        self.result = result


def _log_figure(logger: Any, figure: Any, step: int) -> None:
    """Give a figure to loggers that take one."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_figure"):
        experiment.add_figure("similarity", figure, global_step=step)
    elif hasattr(logger, "log_image"):
        logger.log_image(key="similarity", images=[figure], step=step)
