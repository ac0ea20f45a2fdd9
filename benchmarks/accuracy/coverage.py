"""How often a 95 % interval of minibatch CKA holds the CKA of the population, which is known.

    python benchmarks/accuracy/coverage.py --out benchmarks/results/accuracy/coverage.json

Gaussian features x = z A + s e, y = z B + s e' have CKA ‖Σxy‖² / (‖Σxx‖ ‖Σyy‖). For each number of
samples, of batches and of features, and for strongly and weakly related ones, as many data sets as
asked for; then the share of intervals that hold the truth: by Student's t as `result.interval` has
them, and by ± 1.96 standard errors.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repsim_fast.analysis.estimates import student_interval
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.timing import machine, write_json  # noqa: E402

SAMPLES, BATCHES, FEATURES, NOISE = (64, 128, 512, 2000), (4, 8, 16, 32), (8, 100, 2000), (0.3, 2.0)
LEAST = 8  # samples in a batch, as compare has them by default
LATENT = 50  # at most


class Population:
    """Two sets of p features of the same samples, and their CKA."""

    def __init__(self, p: int, noise: float, generator: torch.Generator) -> None:
        latent = min(p, LATENT)
        a, b = (
            torch.randn(latent, p, generator=generator, dtype=torch.float64) / math.sqrt(latent)
            for _ in range(2)
        )
        own = noise**2 * torch.eye(p, dtype=torch.float64)
        sizes = (a.T @ a + own).norm() * (b.T @ b + own).norm()
        self.cka = float((a.T @ b).square().sum() / sizes)
        self.maps, self.noise = (a.float(), b.float()), noise

    def draw(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Features of n samples, twice (n, p)."""
        z = torch.randn(n, len(self.maps[0]), generator=generator)
        noise = (torch.randn(n, m.shape[1], generator=generator) for m in self.maps)
        return [z @ m + self.noise * e for m, e in zip(self.maps, noise, strict=True)]


def case(n: int, batches: int, p: int, noise: float, repeats: int) -> dict[str, Any]:
    """Coverage over ``repeats`` data sets."""
    generator = torch.Generator().manual_seed(n * 1000 + batches * 10 + p)
    population = Population(p, noise, generator)
    student = plain = 0
    for _ in range(repeats):
        x, y = population.draw(n, generator)
        cka = MinibatchCKA()
        for rows in torch.arange(n).tensor_split(batches):
            grams = [centered_gram(z[rows], packed=True) for z in (x, y)]
            cka.update(torch.stack(grams), n=len(rows))
        found = cka.compute()
        value, error = float(found.value[0, 1]), float(found.standard_error[0, 1])
        low, high = student_interval(value, error, len(found.hsic))
        student += int(low <= population.cka <= high)
        plain += int(abs(value - population.cka) <= 1.96 * error)
    return {
        **{"n": n, "batches": batches, "p": p, "noise": noise, "cka": population.cka},
        **{"repeats": repeats, "student": student / repeats, "plain": plain / repeats},
    }


def main() -> None:
    """Runs all cases; results are kept after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for n in SAMPLES:
        for batches in (b for b in BATCHES if n // b >= LEAST):
            for p in FEATURES:
                for noise in NOISE:
                    rows.append(case(n, batches, p, noise, options.repeats))
                    print(rows[-1], flush=True)
                    write_json(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
