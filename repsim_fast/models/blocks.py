"""What the residual networks here share.

Every ReLU is a module of its own, called once and not in place, so that each point of the forward
pass can be captured by name and holds what it computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Pre-activation block: bn1 - relu1 - conv1 - bn2 - relu2 - conv2, plus the shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of conv1.
        activated_shortcut: where the shape changes, the 1x1 shortcut starts at relu1's output, as
            in wide residual networks, or at the block's input. Elsewhere it is the input itself.

    References:
        He et al., "Identity mappings in deep residual networks", figure 1b, 2016.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, activated_shortcut: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.activated_shortcut = activated_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        activated = self.relu1(self.bn1(x))
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        if self.shortcut is not None:
            x = self.shortcut(activated if self.activated_shortcut else x)
        return out + x


def preact_stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, *, activated_shortcut: bool
) -> nn.Sequential:
    """Return a row of pre-activation blocks, the first of which changes the shape."""
    shapes = [(in_channels, stride)] + [(out_channels, 1)] * (blocks - 1)
    return nn.Sequential(
        *(PreActBlock(c, out_channels, s, activated_shortcut=activated_shortcut) for c, s in shapes)
    )


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded 3x3 convolution without bias, which the norm after it would undo."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def initialise(model: nn.Module, hidden: Sequence[nn.Linear] = ()) -> None:
    """Draw convolutions from He's normal distribution (fan out) and zero the classifier's bias.

    Args:
        model: A network.
        hidden: Linear layers with a ReLU behind, which are drawn likewise, from their fan in.

    References:
        He et al., "Delving deep into rectifiers", section 2.2, 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    for layer in hidden:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
