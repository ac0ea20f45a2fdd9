"""How an attack runs its model: as it is, or in a faster form of the same function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import Model, model_dtype

from .folding import FoldedModel, Unfoldable


@dataclass(frozen=True)
class Execution:
    """Speed-ups of an attack; all off, iterates have the bits of the written-out loop.

    Each computes the same function in another order of rounding: float32 logits and gradients
    agree to some 1e-6 of their largest entry. What cannot be done for a model is left out, and
    ``attack.ran`` says why; its result is then that of the model as it is.

    Attributes:
        fold_batchnorm: Fold each BatchNorm into the convolution or linear layer it directly
            follows, in private copies of those layers' weights. Needs a model in eval mode that
            torch.fx can trace and that has no hooks. Where the norm comes before the convolution
            (pre-activation networks) it cannot be folded.
        channels_last: Images and convolution weights (private copies) with channels last.
        compile: Run the model through ``torch.compile``: True for inductor, or a backend's name.
            The first call compiles, for seconds to minutes.
        cuda_graph: Capture all steps of PGD in one CUDA graph per shape of the batch and replay
            it. CUDA only; needs static shapes (no ``early_stop``), not with ``compile``.
    """

    fold_batchnorm: bool = False
    channels_last: bool = False
    compile: bool | str = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.cuda_graph:
            raise ValueError("cuda_graph and compile exclude each other: choose one of them")


EXACT = Execution()
FAST = Execution(fold_batchnorm=True, channels_last=True)

ExecutionLike = Execution | Literal["exact", "fast"]


def resolve(execution: ExecutionLike) -> Execution:
    """Settings from a name: "exact" is all off, "fast" folds and puts channels last."""
    if isinstance(execution, Execution):
        return execution
    if execution not in ("exact", "fast"):
        raise ValueError(
            f"execution must be 'exact', 'fast' or an attacks.Execution, got {execution!r}"
        )
    return EXACT if execution == "exact" else FAST


@dataclass(frozen=True)
class Ran:
    """How the model of an attack's last call ran.

    Attributes:
        folded: Names of the BatchNorms that were folded.
        channels_last: Whether images and weights had their channels last.
        compiled: Whether it was compiled.
        graphed: Whether the steps were replayed from a CUDA graph.
        not_done: What was asked for and left out, and why; empty if nothing.
    """

    folded: tuple[str, ...] = ()
    channels_last: bool = False
    compiled: bool = False
    graphed: bool = False
    not_done: str = ""


@dataclass
class Form:
    """A model in the form it is attacked in.

    Attributes:
        model: What the attack calls.
        ran: What was done.
        graphs: Captured loops of this form.
    """

    model: Model
    ran: Ran
    graphs: dict[Any, Any] = field(default_factory=dict)


@dataclass
class _Rewritten:
    """What is kept for a model; it must not hold the model itself, which could then never go."""

    fingerprint: tuple[Any, ...]
    source: FoldedModel | None
    compiled: Model | None
    not_done: str
    graphs: dict[Any, Any] = field(default_factory=dict)


# Outside of the model, which stays as it is (also for pickle and deepcopy), and gone when it is.
_rewritten: WeakKeyDictionary[nn.Module, dict[Any, _Rewritten]] = WeakKeyDictionary()


def prepare(model: Model, x: Tensor, execution: Execution) -> Form:
    """The form of a borrowed model for images like ``x``: built once, with today's weights.

    Raises:
        RuntimeError: A CUDA graph for images that are elsewhere.
    """
    if execution.cuda_graph and not _on_gpu(x):
        raise RuntimeError(f"execution: cuda_graph needs images on a GPU, got {x.device}")
    if execution == EXACT:
        return Form(model, Ran())
    rewritten = _Rewritten((), None, None, "")
    if isinstance(model, nn.Module):
        rewritten = _up_to_date(model, x, execution)
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
    ran = Ran(
        folded=() if source is None else source.folded,
        channels_last=channels_last,
        compiled=bool(execution.compile),
        not_done=not_done,
    )
    return Form(run, ran, rewritten.graphs)


def _up_to_date(model: nn.Module, x: Tensor, execution: Execution) -> _Rewritten:
    fingerprint = _fingerprint(model)
    kept = _rewritten.setdefault(model, {})
    key = (execution, x.shape[1:])
    known = kept.get(key)
    if known is None or known.fingerprint != fingerprint:
        known = kept[key] = _rewrite(model, x, execution, fingerprint)
    elif known.source is not None:
        known.source.refresh()
    return known


def _rewrite(
    model: nn.Module, x: Tensor, execution: Execution, fingerprint: tuple[Any, ...]
) -> _Rewritten:
    fold, channels_last = execution.fold_batchnorm, execution.channels_last and x.ndim == 4
    source, not_done = None, ""
    if fold or channels_last:
        try:
            if any(module.training for module in model.modules()):
                raise Unfoldable("the model is not in eval mode")
            example = x.to(model_dtype(model, x.dtype))
            source = FoldedModel(model, example, fold=fold, channels_last=channels_last)
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
    """Changes when the model is no longer the one that was traced; its weights may."""
    modules = [
        (name, id(m), m.training, len(m._forward_hooks) + len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]
    tensors = [(t.dtype, t.device, t.shape) for t in (*model.parameters(), *model.buffers())]
    return (*modules, *tensors)


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda
