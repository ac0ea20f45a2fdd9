"""Perturbations in the space of JPEG coefficients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repsim_fast.ops import pgd_l2_step
from repsim_fast.ops.directions import l2_direction

from .rendering import RenderingAttack, Scene

_BLOCK = 8
_BOX = (-2.0, 2.0)  # of a coefficient, in quantisation steps

# Quantisation tables of the JPEG standard (ITU T.81, tables K.1 and K.2).
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# Columns: what Y, Cb and Cr add to R, G and B (JFIF).
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


class JPEGAttack(RenderingAttack):
    """L2 attack on JPEG coefficients (Kang et al., 2019): x + decode(v / 2), |v|_2 <= eps.

    v are coefficients of 8 x 8 blocks in units of the quantisation step (quality 50) of luma and of
    chroma at half resolution, each limited to [-2, 2]. Decoding is linear, so this is the published
    attack without its loss of the image's own colour resolution: eps = 0 gives back x.

    Args:
        eps: Radius in quantisation steps; published 25.
        steps: Published 4 in training, 10 (default) in evaluation.
        step_size: L2 length; published 1.6 in training, 1.0 (default) in evaluation.
        options: ``loss`` and ``seed`` as in ``PGD``.
    """

    def __init__(
        self, eps: float = 25.0, *, steps: int = 10, step_size: float = 1.0, **options: object
    ) -> None:
        super().__init__(eps, steps=steps, step_size=step_size, **options)  # type: ignore[arg-type]

    def _scene(self, x: Tensor, generator: torch.Generator) -> Scene:
        n, channels, height, width = x.shape
        unit = _BLOCK if channels == 1 else 2 * _BLOCK
        rows, columns = math.ceil(height / unit), math.ceil(width / unit)
        shapes = [(rows * unit // _BLOCK, columns * unit // _BLOCK)]
        if channels == 3:
            shapes += [(rows, columns)] * 2
        sizes = [h * w * _BLOCK**2 for h, w in shapes]
        tables = [x.new_tensor(table) / 255 for table in (_LUMA, _CHROMA, _CHROMA)]
        origin = x.new_zeros(n, sum(sizes))

        def render(v: Tensor) -> Tensor:
            planes = []
            for part, (h, w), table in zip(torch.split(v, sizes, 1), shapes, tables, strict=False):
                plane = _decode(0.5 * part.view(n, h, w, _BLOCK, _BLOCK) * table)
                scale = unit * rows // plane.shape[1]
                planes.append(plane.repeat_interleave(scale, 1).repeat_interleave(scale, 2))
            change = torch.stack(planes, 1)
            if channels == 3:
                change = torch.einsum("rc,nchw->nrhw", x.new_tensor(_TO_RGB), change)
            return x + change[:, :, :height, :width]

        def move(v: Tensor, gradient: Tensor) -> Tensor:
            return pgd_l2_step(
                v, gradient, origin, step_size=self.step_size, eps=self.eps, bounds=_BOX
            )

        return Scene(_in_ball(origin, self.eps, generator), render, move)


def _in_ball(v: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Uniform in the L2 ball around zero, then clipped to the box; shape (N, d) of ``v``."""
    direction = l2_direction(
        torch.randn(v.shape, dtype=v.dtype, device=v.device, generator=generator)
    )
    share = torch.rand(len(v), dtype=v.dtype, device=v.device, generator=generator)
    radius = eps * share ** (1.0 / v.shape[1])
    return (radius[:, None] * direction).clamp(*_BOX)


def _decode(blocks: Tensor) -> Tensor:
    """Inverse orthonormal DCT-II of blocks (N, h, w, 8, 8), joined to planes (N, 8 h, 8 w)."""
    k = torch.arange(_BLOCK, dtype=blocks.dtype, device=blocks.device)
    basis = torch.cos(math.pi / _BLOCK * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)  # basis[frequency, position]
    pixels = torch.einsum("ui,nhwuv,vj->nhiwj", basis, blocks, basis)
    n, h, _, w, _ = pixels.shape
    return pixels.reshape(n, h * _BLOCK, w * _BLOCK)
