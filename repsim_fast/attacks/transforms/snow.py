"""Snowfall with adversarial flakes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate

from .rendering import RenderingAttack, Scene, uniform

_STRIDE = 4  # pixels between neighbouring flakes of a layer
# Where the seven layers' flakes sit on the grid: (row, column) of the first.
_OFFSETS = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0))
_KERNEL = 13
_REGION = 8  # flakes along a side of the squares that share a budget
_WHITENING = 0.25
_LUMA = (0.2126, 0.7152, 0.0722)


class SnowAttack(RenderingAttack):
    """Snowfall whose flakes' intensities are attacked (Kang et al., 2019).

    Seven layers of flakes on grids of every fourth pixel, each streaked along a direction of its
    own; intensities v in [0, 1] shine with v^4 and their mean over 8 x 8 flakes is at most
    ``budget``. The image is whitened by a quarter and eps times the snow is added.

    Args:
        eps: Brightness of the snow; published 2.0. At 0 the whitening remains.
        steps: Published 4 in training, 10 (default) in evaluation.
        step_size: Sign step; published 0.16 in training, 0.1 (default) in evaluation.
        budget: Mean intensity; published 0.15.
        options: ``loss`` and ``seed`` as in ``PGD``.
    """

    def __init__(
        self,
        eps: float = 2.0,
        *,
        steps: int = 10,
        step_size: float = 0.1,
        budget: float = 0.15,
        **options: object,
    ) -> None:
        super().__init__(eps, steps=steps, step_size=step_size, **options)  # type: ignore[arg-type]
        if not 0 < budget <= 1:
            raise ValueError(f"budget must lie in (0, 1], got {budget}")
        self.budget = budget

    def _scene(self, x: Tensor, generator: torch.Generator) -> Scene:
        n, channels, height, width = x.shape
        rows, columns = -(-height // _STRIDE), -(-width // _STRIDE)
        kernels = _streaks(x, generator)
        luma = x if channels == 1 else torch.einsum("c,nchw->nhw", x.new_tensor(_LUMA), x)[:, None]
        white = torch.maximum(x, 1.5 * luma + 0.5)
        background = (1 - _WHITENING) * x + _WHITENING * white
        # Exponentially distributed intensities: few bright flakes, many faint ones.
        draw = uniform((n, len(_OFFSETS), rows, columns), x, generator)

        def render(intensity: Tensor) -> Tensor:
            grid = x.new_zeros(n, len(_OFFSETS), rows * _STRIDE, columns * _STRIDE)
            for layer, (row, column) in enumerate(_OFFSETS):
                grid[:, layer, row::_STRIDE, column::_STRIDE] = intensity[:, layer] ** 4
            snow = conv2d(grid[..., :height, :width], kernels, padding=_KERNEL // 2)
            return background + self.eps * snow

        def move(intensity: Tensor, gradient: Tensor) -> Tensor:
            return self._within_budget(intensity + self.step_size * gradient.sign())

        return Scene(self._within_budget(torch.exp(-draw / self.budget)), render, move)

    def _within_budget(self, intensity: Tensor) -> Tensor:
        intensity = intensity.clamp(0.0, 1.0)
        rows, columns = intensity.shape[2:]
        squares = (max(1, rows // _REGION), max(1, columns // _REGION))
        mean = interpolate(adaptive_avg_pool2d(intensity, squares), (rows, columns))
        return intensity * (self.budget / mean.clamp(min=self.budget))


def _streaks(x: Tensor, generator: torch.Generator) -> Tensor:
    """A blurred line through the centre for each layer, all falling one way, (1, 7, 13, 13)."""
    layers, half = len(_OFFSETS), _KERNEL // 2
    draw = uniform((layers, 4), x, generator)
    end = (2 + (draw[:, :2] * (half - 2)).floor()).view(layers, 2, 1, 1)  # half the line, in pixels
    thick = torch.where(draw[:, 2] < 0.6, 1.0, torch.where(draw[:, 2] < 0.9, 3.0, 5.0))
    line = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
    point = torch.stack(torch.meshgrid(line, line, indexing="ij"))  # (2, 13, 13)
    # Distance to the segment from -end to end.
    along = ((point * end).sum(1) / (end**2).sum(1)).clamp(-1.0, 1.0).unsqueeze(1)
    distance = torch.linalg.vector_norm(point - along * end, dim=1)
    streak = (0.5 * (thick.view(-1, 1, 1) + 1.0) - distance).clamp(0.0, 1.0)
    if bool(uniform((), x, generator) < 0.5):
        streak = streak.flip(-1)
    spread = (0.41 + 0.19 * draw[:, 3]).view(layers, 1)
    bell = torch.exp(-0.5 * (line[half - 1 : half + 2] / spread) ** 2)
    bell = bell / bell.sum(1, keepdim=True)
    blur = (bell.unsqueeze(2) * bell.unsqueeze(1)).unsqueeze(1)  # (7, 1, 3, 3)
    return conv2d(streak.unsqueeze(0), blur, groups=layers, padding=1)
