"""Convolutional networks with their channels last for a while, where that is faster."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .borrow import Model, borrow, call
from .model_state import ModelMode, has_hooks, unwrap


def laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    """``x`` in a memory format, where it is images (N, C, H, W)."""
    if x.ndim != 4 or layout == torch.preserve_format:
        return x
    return x.contiguous(memory_format=layout)


@torch.no_grad()
def with_strides_of(weight: Tensor, value: Tensor) -> Tensor:
    """``value`` with the strides of a weight of its shape."""
    if value.stride() == weight.stride():
        return value
    return torch.empty_like(weight, dtype=value.dtype).copy_(value)


def is_ours(part: object) -> bool:
    """Whether something is of a class of this package, whose code takes maps of any strides.

    A class of ours that runs the code of others says so by ``foreign = True``.
    """
    kind = type(part)
    return kind.__module__.startswith("repsim_fast.") and not getattr(kind, "foreign", False)


Look = Callable[[Tensor], Sequence[Tensor]]
"""From two images to what is read of a model that is run on them."""


@contextlib.contextmanager
def fastest_layout(
    model: Model, images: Tensor, *, half: bool = False, look: Look | None = None
) -> Iterator[torch.memory_format]:
    """Memory format for the images of a model, whose convolutions' weights have it, too, within.

    ``torch.channels_last`` where that was measured to be faster and the model can take it, else
    ``torch.preserve_format``. Afterwards, also after an exception, the weights' present values
    stand where they stood before, with the strides that they had. What is chosen follows from
    model, processor and ``half``, never from a clock: a training has the same bits each time.

    Args:
        model: Modules that run as they are written: compiled, wrapped or hooked ones stay as they
            are. It is run on an image first, without a trace.
        images: Like those to come, (N, ...), at least one.
        half: The model runs in 16 bits.
        look: What must stay the same up to rounding, of a model that is run without a trace.
            Default: its logits; it must also run in training mode.
    """
    weights = _weights(model) if images.ndim == 4 else []
    homes = [(weight, weight.data) for weight in weights if not _is_last(weight)]
    try:
        if homes and not (
            _is_faster(images.device, half)
            and _move(homes, images[:1], look or (lambda pair: _logits(model, pair)))
        ):
            weights = []
            _return(homes)
        yield torch.channels_last if weights else torch.preserve_format
    finally:
        _return(homes)


_Homes = list[tuple[nn.Parameter, Tensor]]

# One in so many of a model's matrices, or more, are of convolutions. On one core with AVX2, looked
# at once and not recorded, 13 convolutional networks gained by channels last (0.53 to 0.93 of the
# time of a forward pass); torchvision's ConvNeXt (22 of 77), Swin and ViT (1 of 52) did not. What
# comparisons gain is recorded, see benchmarks/layouts.py.
_SHARE = 3


def _is_faster(device: torch.device, half: bool) -> bool:
    """Whether convolutions are known to be faster with channels last."""
    if device.type == "cuda":
        return half  # the layout of tensor cores
    # Measured with oneDNN's kernels on x86, which take float32 and bfloat16 alike.
    mkldnn = torch.backends.mkldnn
    x86 = platform.machine() in ("x86_64", "AMD64")
    return device.type == "cpu" and x86 and bool(mkldnn.enabled) and torch._C._has_mkldnn


def _weights(model: Model) -> list[nn.Parameter]:
    """Weights of a model's 2-d convolutions; none where one of them had better stay as it is, or
    they are so few that the model spends its time elsewhere, as a vision transformer does."""
    if not isinstance(model, nn.Module) or unwrap(model) is not model:
        return []
    modules = list(model.modules())
    if any(has_hooks(module) for module in modules):
        return []
    held = [m._parameters.get("weight") for m in modules if isinstance(m, nn.Conv2d)]
    weights = list({id(weight): weight for weight in held if weight is not None}.values())
    matrices = sum(is_lazy(weight) or weight.ndim > 1 for weight in model.parameters())
    few = len(weights) * _SHARE < matrices
    return weights if not few and all(_is_plain(weight) for weight in weights) else []


def _is_plain(weight: nn.Parameter) -> bool:
    """Whether nobody else reads the memory of a weight, which has a dtype of fast kernels."""
    return (
        type(weight) is nn.Parameter
        and type(weight.data) is Tensor
        and not is_lazy(weight)
        and not weight.is_inference()
        and not weight.is_meta  # its values are elsewhere, as those of an offloaded model
        and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and weight.untyped_storage().nbytes() == weight.nbytes
        and not (weight.device.type == "cpu" and weight.untyped_storage().is_shared())
    )


def _is_last(weight: Tensor) -> bool:
    # By strides: a weight of one channel passes for any format, and its result then for any.
    return weight.stride() == torch.empty_like(weight, memory_format=torch.channels_last).stride()


def _move(homes: _Homes, image: Tensor, look: Look) -> bool:
    """Put channels last; whether what is read of the model stays the same up to rounding."""
    pair = image.detach().expand(2, *image.shape[1:])  # of one image some kernels are others
    try:
        want = look(pair.contiguous())
        for weight, home in homes:
            weight.data = torch.empty_like(home, memory_format=torch.channels_last).copy_(home)
        got = look(pair.contiguous(memory_format=torch.channels_last))
    except Exception:  # of the model's own code, such as a view of maps as rows
        return False
    # Half of the digits: rounding stays far below, a layout taken for another far above.
    share = math.sqrt(torch.finfo(homes[0][1].dtype).eps)
    return len(want) == len(got) and all(
        a.shape == b.shape
        and (a.numel() == 0 or float((b - a).abs().max()) <= share * float(a.abs().max()))
        for a, b in zip(want, got, strict=True)
    )


def _logits(model: Model, images: Tensor) -> Sequence[Tensor]:
    """Logits in eval mode; an error where there are none, or none in training mode."""
    _answer(model, images, mode="train")
    return [_answer(model, images, mode="eval")]


def _answer(model: Model, images: Tensor, *, mode: ModelMode) -> Tensor:
    with borrow(model, mode=mode, device=images.device, seed=0), torch.no_grad():
        return call(model, images)


def _return(homes: _Homes) -> None:
    for weight, home in homes:
        if weight.data_ptr() != home.data_ptr():
            # Memory that may be read only, as a file's, is written to for new values alone.
            weight.data = home if torch.equal(weight.data, home) else home.copy_(weight.data)
        if weight.grad is not None:
            weight.grad = with_strides_of(weight, weight.grad)
