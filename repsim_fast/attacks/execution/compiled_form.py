"""A model in the form in which it is attacked: as it is, or a faster one of the same function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import Model, model_dtype
from repsim_fast._core.model_state import plain_attributes

from .folding import FoldedModel, Unfoldable
from .options import EXACT, Execution, ExecutionReport


@dataclass
class CompiledForm:
    """A model in the form in which it is attacked.

    Attributes:
        model: What the attack calls.
        report: What was done.
        graphs: Captured loops of the model, in all its forms.
        identity: What tells this form from the others.
    """

    model: Model
    report: ExecutionReport
    graphs: dict[Any, Any] = field(default_factory=dict)
    identity: tuple[Any, ...] = ()


@dataclass
class _Rewritten:
    """What is kept for a model; it must not hold the model itself, which could then never go."""

    fingerprint: tuple[Any, ...]
    source: FoldedModel | None
    compiled: Model | None
    not_done: str


@dataclass
class _Kept:
    """All that is kept for a model."""

    rewritten: dict[Any, _Rewritten] = field(default_factory=dict)
    graphs: dict[Any, Any] = field(default_factory=dict)


# Outside of the model, which stays as it is (also for pickle and deepcopy), and gone when it is.
_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def prepare(model: Model, x: Tensor, execution: Execution) -> CompiledForm:
    """The form of a borrowed model for the images ``x``, with today's weights.

    Built once, and again where its logits of two of the images are no longer the model's.

    Raises:
        RuntimeError: A CUDA graph for images that are elsewhere.
    """
    if execution.cuda_graph and not _on_gpu(x):
        raise RuntimeError(f"execution: cuda_graph needs images on a GPU, got {x.device}")
    if execution == EXACT:
        return CompiledForm(model, ExecutionReport())
    rewritten, kept = _Rewritten((), None, None, ""), _Kept()
    if isinstance(model, nn.Module):
        kept = _kept.setdefault(model, kept)
        rewritten = _up_to_date(model, x, execution, kept.rewritten)
    elif execution.fold_batchnorm:
        rewritten.not_done = "the model is no nn.Module"
    source, not_done = rewritten.source, rewritten.not_done
    run: Model = model if source is None else source.module
    if rewritten.compiled is not None:
        run = rewritten.compiled
    elif execution.compile:
        # Wrapped anew in each call, as nothing may hold the model; torch keeps the compiled code.
        run = torch.compile(model, backend=_backend(execution))
    channels_last = execution.channels_last and x.ndim == 4
    if channels_last:
        run = _laid_out(run, model_dtype(model, x.dtype))
    report = ExecutionReport(
        folded=() if source is None else source.folded,
        channels_last=channels_last,
        compiled=bool(execution.compile),
        not_done=not_done,
    )
    # The source, too: as long as a graph reads its private weights they have to stay.
    identity = (execution, rewritten.fingerprint, source)
    return CompiledForm(run, report, kept.graphs, identity)


def _up_to_date(
    model: nn.Module, x: Tensor, execution: Execution, kept: dict[Any, _Rewritten]
) -> _Rewritten:
    fingerprint = _fingerprint(model)
    key = (execution, x.shape[1:])
    known = kept.get(key)
    if known is None or known.fingerprint != fingerprint or not _holds(known, model, x):
        known = kept[key] = _rewrite(model, x, execution, fingerprint)
    return known


def _holds(known: _Rewritten, model: nn.Module, x: Tensor) -> bool:
    """Whether what is kept, with today's weights, still answers as the model does.

    The model's code may depend on what no fingerprint sees, such as a list or a tensor that is no
    buffer, and that the trace holds as it was.
    """
    if known.source is None:
        return True
    known.source.refresh()
    few = _few(model, x)
    try:
        with torch.no_grad():
            want = model(few.clone())
        return known.source.answers(few, want)
    except Exception:  # of the model's own code, or of a trace that no longer suits the model
        return False


def _few(model: nn.Module, x: Tensor) -> Tensor:
    """Two of the images, which differ in most batches; one of a batch of one."""
    return x[:: max(1, len(x) - 1)].to(model_dtype(model, x.dtype))


def _rewrite(
    model: nn.Module, x: Tensor, execution: Execution, fingerprint: tuple[Any, ...]
) -> _Rewritten:
    fold, channels_last = execution.fold_batchnorm, execution.channels_last and x.ndim == 4
    source, not_done = None, ""
    if fold or channels_last:
        try:
            if any(getattr(module, "training", False) for module in model.modules()):
                raise Unfoldable("the model is not in eval mode")
            few = _few(model, x)
            source = FoldedModel(model, few, fold=fold, channels_last=channels_last)
            if fold and not source.folded:
                not_done = "no BatchNorm directly follows a convolution or linear layer"
        except Unfoldable as error:
            not_done = str(error)
    compiled = None
    if execution.compile and source is not None:
        compiled = torch.compile(source.module, backend=_backend(execution))
    return _Rewritten(fingerprint, source, compiled, not_done)


def _backend(execution: Execution) -> str:
    return execution.compile if isinstance(execution.compile, str) else "inductor"


def _laid_out(model: Model, dtype: torch.dtype) -> Model:
    def run(images: Tensor) -> Any:
        return model(images.to(dtype, memory_format=torch.channels_last))

    return run


def _fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """Changes when the model is no longer the one that was traced; its weights' values may."""
    modules = [
        (name, id(m), plain_attributes(m), len(m._forward_hooks) + len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]
    # Which tensors, too: a trace holds those that no leaf module has, even if they are replaced.
    tensors = [(id(t), t.dtype, t.device, t.shape) for t in (*model.parameters(), *model.buffers())]
    return (*modules, *tensors)


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda
