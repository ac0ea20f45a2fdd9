"""How an attack may run its model, and how it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """Speed-ups of an attack; all off, iterates have the bits of the written-out loop.

    Each computes the same function in another order of rounding: float32 logits and gradients
    agree to some 1e-6 of their largest entry. What cannot be done for a model is left out, and
    ``attack.report`` says why; its result is then that of the model as it is. At each call logits
    of two images are held against the model's own: what was rewritten before the model's code or
    attributes changed is rewritten again. A captured graph follows weights, tensors and numbers of
    the modules, but no other objects that their code may read, such as lists.

    Attributes:
        fold_batchnorm: Fold each BatchNorm into the convolution or linear layer it directly
            follows, in private copies of those layers' weights. Needs a model in eval mode that
            torch.fx can trace and that has no hooks. Where the norm comes before the convolution
            (pre-activation networks) it cannot be folded.
        channels_last: Images and convolution weights (private copies) with channels last.
        compile: Run the model through ``torch.compile``: True for inductor, or a backend's name.
            The first call compiles, for seconds to minutes.
        cuda_graph: Capture all steps of PGD in one CUDA graph per shape of the batch and replay
            it. CUDA only; needs static shapes (no ``early_stop``), not with ``compile``. The last
            four graphs of a model are kept; together they hold the memory of one forward and
            backward pass, the largest, beside their images and logits.
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
class ExecutionReport:
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
