"""Every CUDA kernel once or twice on small shapes with odd edges: a program for compute-sanitizer.

    compute-sanitizer --tool memcheck python python_tests/csrc/small_shapes.py

Needs a GPU and an installed repsim_fast with CUDA kernels. Exits with status 1 when a result
differs from float64 on the CPU.
"""

from __future__ import annotations

import itertools
import sys

import torch

from repsim_fast import ops, reference

# Relative error (norms) allowed by each precision.
TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "tf32": 1e-3, "bfloat16": 6e-3}
SHAPES = ((4, 1), (5, 130), (67, 33), (130, 260), (520, 40))
OPERANDS = [
    (torch.float64, "float64"),
    *itertools.product(
        (torch.float32, torch.float16, torch.bfloat16), ("float32", "tf32", "bfloat16")
    ),
]


def main() -> int:
    failures = 0
    generator = torch.Generator().manual_seed(0)
    for (n, p), (dtype, precision), centering, packed in itertools.product(
        SHAPES, OPERANDS, ops.CENTERINGS, (False, True)
    ):
        x = torch.randn(n, p, generator=generator, dtype=torch.float64).to(dtype)
        gram = ops.centered_gram(x.cuda(), centering=centering, packed=packed, precision=precision)
        expected = reference.centered_gram(x.double(), centering=centering, packed=packed)
        error = float((gram.cpu().double() - expected).norm() / expected.norm())
        if not error <= TOLERANCE[precision]:
            print(f"{n} x {p} {dtype} {precision} {centering} packed={packed}: error {error:.1e}")
            failures += 1
    torch.cuda.synchronize()
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
