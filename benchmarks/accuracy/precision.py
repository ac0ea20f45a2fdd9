"""Errors of CKA by the precision of its products, against float64.

    python benchmarks/accuracy/precision.py --out benchmarks/results/accuracy/precision.json
    (precision_amx.json where the processor has AMX)

Features of 32 to 512 samples and a linear map of them with noise; the truth is the definition in
float64 of the same numbers. CKA is taken as `compare` takes it, of one batch: packed Grams of
`centered_gram`, `MinibatchCKA`. tf32 exists on CUDA only, and a GPU's bfloat16 sums in another
order: neither is measured here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repsim_fast.ops import Precision, centered_gram
from repsim_fast.ops.gram.centered_gram import products_in
from repsim_fast.similarity import MinibatchCKA

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.timing import machine, write_json  # noqa: E402
from python_tests.support.written_out import debiased_cka  # noqa: E402

SHAPES = [(32, 64), (32, 4096), (128, 64), (128, 1024), (512, 256), (512, 4096)]
SEEDS = range(10)


def normal(n: int, p: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, p, generator=generator)


def far_mean(n: int, p: int, generator: torch.Generator) -> Tensor:
    return normal(n, p, generator).relu() + 100


def large_sample(n: int, p: int, generator: torch.Generator) -> Tensor:
    x = normal(n, p, generator)
    x[0] *= 1e4
    return x


def heavy_tails(n: int, p: int, generator: torch.Generator) -> Tensor:
    """Student's t of 2 degrees of freedom: no variance."""
    squares = sum(normal(n, p, generator).square() for _ in range(2)) / 2
    return normal(n, p, generator) / squares.sqrt()


FEATURES = {
    "normal": normal,
    "after a ReLU, mean 100 spreads away": far_mean,
    "one sample 10,000 times as large": large_sample,
    "heavy tails": heavy_tails,
}
POLICIES: dict[str, tuple[torch.dtype, Precision | None]] = {
    "float64 features": (torch.float64, None),
    "float32 (default)": (torch.float32, None),
    'precision="bfloat16"': (torch.float32, "bfloat16"),
    "bfloat16 features": (torch.bfloat16, None),
}


def cka(x: Tensor, y: Tensor, precision: Precision | None) -> float:
    accumulated = MinibatchCKA()
    grams = [centered_gram(z, packed=True, precision=precision) for z in (x, y)]
    accumulated.update(torch.stack(grams), n=len(x))
    return float(accumulated.compute().value[0, 1])


def errors(kind: str, policy: str) -> list[float]:
    dtype, precision = POLICIES[policy]
    found = []
    for n, p in SHAPES:
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            x = FEATURES[kind](n, p, generator)
            y = x @ torch.randn(p, 64, generator=generator) / p**0.5
            y = y + FEATURES[kind](n, 64, generator)
            x, y = x.to(dtype), y.to(dtype)
            found.append(abs(cka(x, y, precision) - debiased_cka(x, y)))
    return found


def main() -> None:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for policy, (dtype, precision) in POLICIES.items():
        products = products_in(torch.empty(0, dtype=dtype), precision)
        for kind in FEATURES:
            found = errors(kind, policy)
            rows.append(
                {
                    **{"case": f"{policy}, {kind}", "policy": policy, "features": kind},
                    **{"products_in": products, "count": len(found)},
                    **{"median_error": statistics.median(found), "max_error": max(found)},
                }
            )
            print(rows[-1], flush=True)
    write_json(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
