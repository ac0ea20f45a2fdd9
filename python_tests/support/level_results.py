"""Results of every kernel that exists once for each instruction set, for tests that compare them.

REPSIM_SIMD=LEVEL python -m python_tests.support.level_results FILE
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from repsim_fast import build_info, ops


def steps() -> dict[str, Tensor]:
    """Attack steps and random starts, in boxes of numbers and of a bound for each column."""
    shape = (3, 3, 43, 41)
    x = (torch.rand(shape) * 1.6 - 0.3).clamp(0, 1)
    x_adv, grad = (x + 0.1 * torch.randn(shape)).clamp(0, 1), torch.randn(shape)
    grad[0, 0, 0] = torch.nan
    boxes = ((0.0, 1.0), (torch.linspace(0, 0.1, 41).view(1, 1, -1), 1.0))
    found: dict[str, Tensor] = {}
    for dtype in (torch.float32, torch.float64):
        a, g, c = x_adv.to(dtype), grad.to(dtype), x.to(dtype).clamp(min=boxes[1][0])
        for i, box in enumerate(boxes):
            for norm, size, eps in (("linf", 0.1, 0.05), ("l2", 1.0, 2.0), ("l1", 9.0, 12.0)):
                step = getattr(ops, f"pgd_{norm}_step")
                case = f"{norm}, {dtype}, box {i}"
                found[f"step {case}"] = step(a, g, c, step_size=size, eps=eps, bounds=box)
                start = ops.random_start(c, norm=norm, eps=2.0, seed=9, bounds=box)
                found[f"start {case}"] = start
    return found


def features() -> dict[str, Tensor]:
    """Features (n, p) and matrices (B, m, n) by what they are for."""
    torch.manual_seed(1)
    found = {}
    for dtype in (torch.float64, torch.float32):
        for n, p in ((33, 200), (70, 17)):
            found[f"gram {n} x {p}, {dtype}"] = torch.randn(n, p, dtype=dtype) + 2
        if dtype == torch.float32:
            found["norm 300 x 19"] = torch.randn(300, 19) + 3
        for batch, m, n in ((19, 24, 24), (1, 40, 28), (2, 90, 90)):
            found[f"svd {batch} x {m} x {n}, {dtype}"] = torch.randn(batch, m, n, dtype=dtype)
    return found


def norms(name: str, x: Tensor) -> dict[str, Tensor]:
    """A batch norm and its ReLU, and the gradients."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.to(dtype), torch.ones(x.shape[1]), torch.full(x.shape[1:], 0.2)]
        for leaf in leaves:
            leaf.requires_grad_()
        y = ops.batch_norm_relu(leaves[0], leaves[1], leaves[2])[0]
        found[f"{name}, {dtype}"] = y.detach()
        gradients = torch.autograd.grad(y, leaves, leaves[0])
        for leaf, gradient in zip(("x", "weight", "bias"), gradients, strict=True):
            found[f"{name}, {dtype}, gradient of {leaf}"] = gradient
    return found


def results() -> dict[str, Tensor]:
    """Everything, by name; of the level that this process uses."""
    torch.manual_seed(0)
    found = steps()
    for name, x in features().items():
        if name.startswith("gram"):
            found[name] = ops.centered_gram(x)
            found[f"cross {name}"] = ops.cross_gram(x, x[:, ::2])
            if x.dtype == torch.float32:
                found[f"bfloat16 {name}"] = ops.centered_gram(x, precision="bfloat16")
        elif name.startswith("norm"):
            found |= norms(name, x)
        else:
            u, s, vh = ops.batched_svd(x)
            found[f"values {name}"] = ops.batched_svdvals(x)
            found[f"vectors {name}"] = (u * s[:, None]) @ vh
    return found


if __name__ == "__main__":
    print(build_info()["simd_level"])
    torch.save(results(), sys.argv[1])
