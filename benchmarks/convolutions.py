"""What a network's convolutions take by themselves: a bound for all that trains it by torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Passes", "convolutions_alone"]


@dataclass(frozen=True)
class Passes:
    """How often a batch goes through the network.

    Attributes:
        attacking: Forward, and back to the images.
        training: Forward, and back to activations and weights.
    """

    attacking: int
    training: int


def convolutions_alone(
    net: nn.Module, images: Tensor, passes: Passes, dtype: torch.dtype
) -> Callable[[], None]:
    """The network's convolutions and their gradients, of maps with channels last, and nothing else.

    Args:
        net: Of two-dimensional convolutions; it is run once.
        images: (n, channels, height, width), a batch.
        passes: Of one batch.
        dtype: Of maps and weights.

    Returns:
        What a batch takes, to be timed.

    Raises:
        AssertionError: A convolution is not the network's, beyond rounding.
    """
    seen: list[tuple[nn.Conv2d, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda conv, x, y: seen.append((conv, x[0], y)))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    calls = [_Call(conv, x, y, dtype, first=k == 0) for k, (conv, x, y) in enumerate(seen)]
    rounding = max(torch.finfo(dtype).eps, torch.finfo(images.dtype).eps)
    for call in calls:
        error = (call.forward() - call.y).abs().max() / call.y.abs().max()
        assert error <= 16 * rounding, f"a convolution is off by {error}"

    def run() -> None:
        for call in calls:
            for _ in range(passes.attacking):
                call.forward()
                call.backward(weights=False)
            for _ in range(passes.training):
                call.forward()
                call.backward(weights=True)

    return run


class _Call:
    """One convolution with maps of its own."""

    def __init__(
        self, conv: nn.Conv2d, x: Tensor, y: Tensor, dtype: torch.dtype, *, first: bool
    ) -> None:
        form = {"dtype": dtype, "memory_format": torch.channels_last}
        self.x, self.y = x.detach().to(**form), y.detach().to(**form)
        self.weight = conv.weight.detach().to(**form)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.first = first
        self.settings = (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups)

    def forward(self) -> Tensor:
        return torch.ops.aten.convolution(self.x, self.weight, self.bias, *self.settings)

    def backward(self, *, weights: bool) -> None:
        # Training asks for no gradient of the images.
        mask = (not (weights and self.first), weights, False)
        torch.ops.aten.convolution_backward(self.y, self.x, self.weight, None, *self.settings, mask)
