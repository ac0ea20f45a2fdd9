"""One optimizer step of any method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import borrow, call
from repsim_fast._core.checks import check_number
from repsim_fast._core.memory_format import fastest_layout, is_ours, laid_out
from repsim_fast._core.processes import Processes

from .awp import perturbed_weights
from .faster_form import Form, Forms, in_form
from .methods import Method, TrainingBatch
from .methods.base import loss_of, perturbed_by
from .optimisation import Optimisation
from .sam import sharpest_weights
from .state import TrainingState

# Other optimizers may see weights as vectors, which takes usual strides.
_ANY_LAYOUT = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Step:
    """One optimizer step, and all it needs.

    Attributes:
        example: An image, (1, ...).
        forms: Those that were found for the model.
    """

    state: TrainingState
    method: Method
    how: Optimisation
    device: torch.device
    group: Processes
    example: Tensor
    forms: Forms = field(default_factory=Forms, compare=False)

    @contextlib.contextmanager
    def fastest_form(self, n: int) -> Iterator[torch.memory_format]:
        """Within, the model runs as is fastest for ``n`` images of the layout that this gives.

        As it is, where code of the caller's, other than the model, could meet other strides than it
        is used to; regularisers may read what a ReLU that works in place overwrites.
        """
        optimizer, model = self.state.optimizer, self.state.model
        if not (
            type(optimizer) in _ANY_LAYOUT
            and self.method.any_layout
            and all(map(is_ours, self.how.regularisers))
        ):
            yield torch.preserve_format
            return
        half = self.how.autocast is not None
        with fastest_layout(model, self.example, half=half) as layout:
            form = Form([], []) if self.how.regularisers else self._form(layout, n)
            with in_form(form):
                yield layout

    def _form(self, layout: torch.memory_format, n: int) -> Form:
        """What may run faster in this layout."""
        images = laid_out(self.example, layout).expand(n, *self.example.shape[1:])
        with self._precision():
            return self.forms.of(self.state.model, images, layout)

    def __call__(self, batch: TrainingBatch, weight: float) -> tuple[Tensor, Tensor]:
        """Perturb, descend; gives the loss and the logits it was computed from.

        With a loss or gradients that are not finite, no step is taken. Loss scaling is the one
        exception: it leaves such steps out and goes on at a smaller scale, while there is one.

        Args:
            batch: This process's share of the step's images.
            weight: That share, in (0, 1].

        Raises:
            ValueError: The loss, its gradients or the weights after the step are not finite.
        """
        model, optimizer, scaler = self.state.model, self.state.optimizer, self.state.scaler
        with self._precision():
            perturbed = perturbed_by(self.method, model, batch)
        with self._worst_weights(batch, perturbed):
            loss, logits = self._loss(batch, perturbed)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.method.after_backward()
        self.group.average_gradients(model, weight)
        # Others may be whole numbers, and stay as they are.
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = [p.grad for p in parameters if p.grad is not None]
        checked = {"the loss": [loss]}
        if scaler.get_scale() <= 1.0:
            checked["a gradient"] = gradients
        self._check(batch, checked)
        if self.how.max_grad_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, self.how.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        self._check(batch, {"a weight after the step": parameters})
        if self.state.average is not None:
            self.state.average.update(model)
        return loss.detach(), logits.detach()

    def finite_buffers(self) -> list[Tensor]:
        """The model's, such as statistics of batch norms; a mask may have infinite values."""
        found = [b for b in self.state.model.buffers() if b.dtype in _FLOATS and not b.is_sparse]
        return [buffer for buffer in found if bool(buffer.isfinite().all())]

    def check_outcome(self, batch: TrainingBatch, buffers: Sequence[Tensor]) -> None:
        """Once an epoch, for what a next step would show.

        Args:
            batch: The last one, of which two images are enough to see weights that overflow.
            buffers: Those that were finite before.

        Raises:
            ValueError: They are not finite, or the model, in eval mode, answers with NaN.
        """
        model = self.state.model
        with borrow(model, device=self.device, seed=0), torch.no_grad(), self._precision():
            unknown = call(model, batch.x[:2]).isnan()
        # Infinite logits may be meant, of classes that are ruled out.
        named = {"the model's answer after the step": [torch.where(unknown, torch.nan, 0.0)]}
        if buffers:
            named["a buffer, such as a statistic of a batch norm,"] = [*buffers]
        self._check(batch, named)

    @property
    def rate(self) -> float:
        """Learning rate of the next step, of the first parameter group."""
        rate: float = self.state.optimizer.param_groups[0]["lr"]
        return rate

    def set_rate(self, factor: float) -> None:
        """Learning rates of the steps to come, each group's highest times ``factor``.

        Raises:
            ValueError: A schedule's factor out of range.
        """
        check_number("factor of schedule", float(factor))
        groups = self.state.optimizer.param_groups
        for group, highest in zip(groups, self.state.rates, strict=True):
            group["lr"] = highest * factor

    @torch.no_grad()
    def _check(self, batch: TrainingBatch, named: Mapping[str, Sequence[Tensor]]) -> None:
        """Raise, in all processes alike, where one of them has a value that is not finite.

        One wait for the device, however many tensors there are, while all is well.
        """
        if not any(self._counts(named, order=2)):  # whose kernels are the fastest by far
            return
        # A sum of squares may also overflow, the largest size does not.
        for what, count in zip(named, self._counts(named, order=torch.inf), strict=True):
            if not count:
                continue
            at = batch.progress
            raise ValueError(
                f"{what} is not finite in epoch {at.epoch}, batch {at.batch} (both from 0) of "
                f"method {self.method.name!r}: lower lr (now {self.rate:g})"
            )

    def _counts(self, named: Mapping[str, Sequence[Tensor]], order: float) -> list[float]:
        """How many tensors of each name have a norm that is not finite, over all processes."""
        counts = [_without_norm(values, order) for values in named.values()]
        broken: list[float] = self.group.sum(torch.stack(counts)).tolist()
        return broken

    def _worst_weights(
        self, batch: TrainingBatch, perturbed: Tensor
    ) -> contextlib.AbstractContextManager[None]:
        if self.how.optimizer == "sam":
            return sharpest_weights(
                self.state.model,
                lambda: self._loss_beforehand(batch, perturbed),
                self.how.rho,
                self.state.scaler,
            )
        if not self.how.awp or batch.progress.epoch < self.how.awp_warmup:
            return contextlib.nullcontext()
        return perturbed_weights(
            self.state.model,
            lambda: self._loss_beforehand(batch, perturbed),
            self.how.awp,
            self.state.scaler,
        )

    def _loss_beforehand(self, batch: TrainingBatch, perturbed: Tensor) -> Tensor:
        """The loss that the weights are perturbed against, which draws what the step's own will."""
        state = batch.generator.get_state()
        loss, _ = self._loss(batch, perturbed)
        batch.generator.set_state(state)
        return loss

    def _loss(self, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision(), contextlib.ExitStack() as stack:
            penalties = [
                stack.enter_context(regulariser.observe(self.state.model))
                for regulariser in self.how.regularisers
            ]
            loss, logits = loss_of(self.method, self.state.model, batch, perturbed)
            for penalty in penalties:
                loss = loss + penalty(batch.y)
        if not loss.requires_grad:
            raise ValueError(
                f"method {self.method.name!r}: loss must depend on the model's weights, got one "
                "without a gradient"
            )
        return loss, logits

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not isinstance(self.how.autocast, torch.dtype):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.how.autocast)


def _without_norm(values: Sequence[Tensor], order: float) -> Tensor:
    """How many of the tensors have a norm that is not finite."""
    held = [value for value in values if value.numel()]
    sizes = torch.stack(torch._foreach_norm(held, order))
    return sizes.isfinite().logical_not().sum().double()
