"""Batch norms that do not change while the rest of a network is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the base of all, also of the caller's own

from repsim_fast._core.model_state import always_in_eval, parameters_frozen
from repsim_fast._core.names import FrozenPart


@contextlib.contextmanager
def frozen_batch_norms(model: nn.Module, part: FrozenPart | None) -> Iterator[None]:
    """Batch norms without a change of this part inside, also in the passes of attacks.

    Args:
        model: The model in training.
        part: "statistics": they normalise by their running averages, which stay; "affine": their
            weights and biases stay; "both"; None for neither.

    Raises:
        ValueError: No batch norm, one that keeps no running averages, or nothing left to train.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    if part is not None and not norms:
        raise ValueError(f"freeze_batch_norm={part!r}: the model has no batch norm")
    with contextlib.ExitStack() as stack:
        if part in ("statistics", "both"):
            if without := [name for name, norm in norms.items() if norm.running_mean is None]:
                raise ValueError(
                    f"freeze_batch_norm={part!r}: batch norms must keep running averages, "
                    f"{without[0]!r} has none"
                )
            stack.enter_context(always_in_eval(norms.values()))
        if part in ("affine", "both"):
            stack.enter_context(parameters_frozen(norms.values()))
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise ValueError(f"freeze_batch_norm={part!r} leaves no parameter to train")
        yield
