"""What modules do, of those whose bounds are known."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .known import (
    OF_CONVOLUTIONS,
    Clamp,
    Known,
    Leaky,
    MaxPooling,
    max_pool,
    prelu,
    rearranged,
    reshaped,
    same,
    volume,
)
from .operations import (
    ReLU,
    adaptive_mean,
    batch_norm,
    convolution,
    linear,
    transposed_convolution,
    unweighted,
)

_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
_UNCHANGING = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)  # fmt: skip
_SHUFFLES = (nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Of poolings how many dimensions they are of.
_AVERAGE_POOLS = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
_ADAPTIVE_MEANS = {nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3}
_MAX_POOLS: dict[Any, MaxPooling] = {
    nn.MaxPool1d: (F.max_pool1d, 1),
    nn.MaxPool2d: (F.max_pool2d, 2),
    nn.MaxPool3d: (F.max_pool3d, 3),
}
_ADAPTIVE_MAXIMA: dict[Any, MaxPooling] = {
    nn.AdaptiveMaxPool1d: (F.adaptive_max_pool1d, 1),
    nn.AdaptiveMaxPool2d: (F.adaptive_max_pool2d, 2),
    nn.AdaptiveMaxPool3d: (F.adaptive_max_pool3d, 3),
}


def of_module(module: Any, x: Tensor) -> Known | None:
    """What a module does, exact types only: a subclass may do anything."""
    kind = parametrize.type_before_parametrizations(module)
    made: Known | None = None
    if kind is nn.Linear:
        made = linear(module.weight, module.bias)
    elif kind in _CONVOLUTIONS and module.padding_mode == "zeros":
        made = convolution(module.weight, module.bias, **_settings(module, OF_CONVOLUTIONS))
    elif kind in _TRANSPOSED:
        how = _settings(module, (*OF_CONVOLUTIONS, "output_padding"))
        made = transposed_convolution(module.weight, module.bias, **how)
    elif kind in _BATCH_NORMS and not module.training:
        if module.running_mean is not None and module.running_var is not None:
            made = batch_norm(
                module.running_mean, module.running_var, module.weight, module.bias,
                module.eps, x.ndim,
            )  # fmt: skip
    elif kind is nn.ReLU:
        made = ReLU()
    elif kind is nn.LeakyReLU:
        made = Leaky(module.negative_slope)
    elif kind is nn.PReLU:
        made = prelu(x.ndim, module.weight)
    elif kind in (nn.Hardtanh, nn.ReLU6):
        made = Clamp(module.min_val, module.max_val)
    elif kind in _UNCHANGING and not module.training:
        made = unweighted(same, 0)
    elif kind in _ZERO_PADS:
        made = unweighted(module, 0)
    elif kind is nn.Flatten:
        made = reshaped(module, x)
    elif kind in _SHUFFLES:
        made = rearranged(module, x)
    elif kind in _AVERAGE_POOLS and not getattr(module, "divisor_override", None):
        made = unweighted(module, volume(module.kernel_size, _AVERAGE_POOLS[kind]))
    elif kind in _ADAPTIVE_MEANS:
        made = adaptive_mean(module, x, _ADAPTIVE_MEANS[kind])
    elif kind in _MAX_POOLS and not module.return_indices:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        made = max_pool(_MAX_POOLS[kind], **_settings(module, names))
    elif kind in _ADAPTIVE_MAXIMA and not module.return_indices:
        made = max_pool(_ADAPTIVE_MAXIMA[kind], output_size=module.output_size)
    return made


def _settings(module: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}
