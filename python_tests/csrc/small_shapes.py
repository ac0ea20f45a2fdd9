"""Every CUDA operator on small shapes with odd edges: a program for compute-sanitizer.

    compute-sanitizer --tool memcheck python python_tests/csrc/small_shapes.py

Needs a GPU and an installed repsim_fast with CUDA kernels; with `--device cpu` the same checks run
on the operators of the CPU. Exits with status 1 when a result differs from float64.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from repsim_fast import ops
from repsim_fast.ops.reference import gram as reference
from repsim_fast.ops.reference import pgd as _reference_pgd

# Relative error (norms) allowed by each precision.
TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "tf32": 1e-3, "bfloat16": 6e-3}
SHAPES = ((4, 1), (5, 130), (67, 33), (130, 260), (520, 40))
OPERANDS = [
    (torch.float64, "float64"),
    *itertools.product(
        (torch.float32, torch.float16, torch.bfloat16), ("float32", "tf32", "bfloat16")
    ),
]

Check = tuple[str, float, float]  # what, error, allowed


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.cpu().double() - want).norm() / want.norm())


def grams(device: str, generator: torch.Generator) -> Iterator[Check]:
    for (n, p), (dtype, precision), centering, packed in itertools.product(
        SHAPES, OPERANDS, ops.CENTERINGS, (False, True)
    ):
        if precision == "tf32" and device == "cpu":
            continue  # exists on CUDA only
        x = torch.randn(n, p, generator=generator, dtype=torch.float64).to(dtype)
        gram = ops.centered_gram(
            x.to(device), centering=centering, packed=packed, precision=precision
        )
        expected = reference.centered_gram(x.double(), centering=centering, packed=packed)
        what = f"{n} x {p} {dtype} {precision} {centering} packed={packed}"
        yield what, relative(gram, expected), TOLERANCE[precision]


def steps(device: str, generator: torch.Generator) -> Iterator[Check]:
    # Rows of single entries and of packs; in registers, in shared memory, and beyond both.
    for (n, d), dtype in itertools.product(
        ((3, 37), (2, 132), (2, 2050), (1, 20_000)), (torch.float32, torch.float64)
    ):
        x = torch.rand(n, d, generator=generator, dtype=dtype)
        adv = (x + 0.1 * torch.randn(n, d, generator=generator, dtype=dtype)).clamp(0, 1)
        grad = torch.randn(n, d, generator=generator, dtype=dtype)
        low, high, allowed = 0.0, 1.0, 1e-6 if dtype == torch.float32 else 1e-12
        for norm in ("linf", "l2", "l1"):
            got = getattr(ops, f"pgd_{norm}_step")(
                adv.to(device), grad.to(device), x.to(device), step_size=0.1, eps=0.3
            )
            last = (torch.tensor(0.01),) if norm == "l1" else ()
            plain = getattr(_reference_pgd, f"pgd_{norm}_step")
            want = plain(adv.double(), grad.double(), x.double(), 0.1, 0.3, low, high, *last)
            error = float((got.cpu().double() - want).abs().max())
            yield f"{norm} step {n} x {d} {dtype}", error, allowed
            start = ops.random_start(x.to(device), norm=norm, eps=0.3, seed=1)
            want = _reference_pgd.random_start(x.double(), norm, 0.3, low, high, seed=1)
            error = float((start.cpu().double() - want).abs().max())
            yield f"random start {norm} {n} x {d} {dtype}", error, 1e-6


def svds(device: str, generator: torch.Generator) -> Iterator[Check]:
    for (m, n), dtype in itertools.product(
        ((1, 1), (5, 3), (3, 6), (34, 7), (70, 70)), (torch.float32, torch.float64)
    ):
        a = torch.randn(3, m, n, generator=generator, dtype=dtype)
        want = torch.linalg.svdvals(a.double())
        allowed = 200 * torch.finfo(dtype).eps
        got = a.to(device)
        yield f"values {m} x {n} {dtype}", relative(ops.batched_svdvals(got), want), allowed
        norms = ops.batched_nuclear_norm(got)
        yield f"nuclear norm {m} x {n} {dtype}", relative(norms, want.sum(1)), allowed
        # Multiplied on the CPU: what a sanitizer says of a vendor library's kernels is not ours.
        u, s, vh = (part.cpu() for part in ops.batched_svd(got))
        yield f"svd {m} x {n} {dtype}", relative((u * s[:, None]) @ vh, a.double()), allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args().device
    generator = torch.Generator().manual_seed(0)
    checks = [grams(device, generator), steps(device, generator), svds(device, generator)]
    failures = count = 0
    for what, error, allowed in itertools.chain.from_iterable(checks):
        count += 1
        if not error <= allowed:
            print(f"{what}: error {error:.1e}, allowed {allowed:.1e}")
            failures += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{failures} failures in {count} checks")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
