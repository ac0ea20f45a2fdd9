"""A batch norm and its ReLU, forward and backward, against torch's two modules in place."""

from __future__ import annotations

import pytest
import torch
from timing import side_by_side
from torch.nn import functional

from repsim_fast.ops import batch_norm_relu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "side", "c"), [(128, 32, 32), (128, 16, 64), (128, 8, 128), (128, 8, 201)]
)
def test_batch_norm_relu(benchmark, record, n, side, c, dtype):
    maps = torch.randn(n, c, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    weight, bias = torch.rand(c, requires_grad=True), torch.randn(c, requires_grad=True)
    grad = torch.randn_like(maps)

    def ours():
        rows = maps.permute(0, 2, 3, 1)
        y = batch_norm_relu(rows.reshape(-1, c), weight, bias)[0]
        return y.view(rows.shape).permute(0, 3, 1, 2)

    def plain():
        y = functional.batch_norm(maps, None, None, weight, bias, training=True)
        return torch.relu_(y)

    wide = functional.batch_norm(maps.double(), None, None, weight.double(), bias.double(), True)
    truth = wide.clamp_min(0)
    error = float((ours() - truth).detach().abs().max())
    assert error <= 2 * float((plain() - truth).detach().abs().max()) + 1e-6
    times = side_by_side(
        {
            name: lambda form=form: torch.autograd.grad(form(), [maps, weight, bias], grad)
            for name, form in (("repsim_fast", ours), ("torch", plain))
        }
    )
    for name, timing in times.items():
        record(
            f"{n}x{c}x{side}x{side} {str(dtype).removeprefix('torch.')} {name}",
            **timing.row(),
            speedup=timing.median / times["repsim_fast"].median,
        )
    benchmark(lambda: torch.autograd.grad(ours(), [maps, weight, bias], grad))
