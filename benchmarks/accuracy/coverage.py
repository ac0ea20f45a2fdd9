"""How often a 95 % interval holds the value of the population, which is known.

    python benchmarks/accuracy/coverage.py --out benchmarks/results/accuracy/coverage.json

Gaussian features x = z A + s e, y = z B + s e', whose covariances are known and with them CKA,
‖Σxy‖² / (‖Σxx‖ ‖Σyy‖). No networks run: `MinibatchCKA` and `student_interval` are what `compare`
and `result.interval` have their intervals from, and `jackknife` those of other measures. A row has
the share of data sets whose interval holds the truth, by Student's t and by ± 1.96 standard errors,
and of other measures also by Student's t about the value less its bias.

Of many features what counts is their Gram, which fewer can have: see `narrow_noise`.

Data sets come in parts with seeds of their own, and the file is written after each: a run that was
stopped goes on where it was, and more repeats only add parts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim_fast.analysis.estimates import student_interval
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA, jackknife

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.timing import machine, write_json  # noqa: E402

SAMPLES, BATCHES, FEATURES, NOISE = (64, 128, 512, 2000), (4, 8, 16, 32), (8, 100, 2000), (0.3, 2.0)
LEAST = 8  # samples in a batch, as compare has them by default
LATENT = 50  # at most
# A share of 0.95 has a standard error of 0.34 points over 4,000 data sets, 0.49 over 2,000.
REPEATS = {8: 4000, 100: 4000, 2000: 2000}
PART = 250  # data sets between two writes
TOGETHER = 16  # data sets that are one accumulator's representations, in pairs

OTHERS = ("cca", "linear_regression", "procrustes_similarity", "rv_coefficient")
GROUPS, OTHER_SAMPLES, OTHER_FEATURES, OTHER_REPEATS = 10, (200, 2000), (4, 20), 1000

Row = dict[str, Any]


class Population:
    """Two sets of p features of the same samples, and what they have in common."""

    def __init__(self, p: int, noise: float) -> None:
        generator = torch.Generator().manual_seed(p)
        latent = min(p, LATENT)
        a, b = (
            torch.randn(latent, p, generator=generator, dtype=torch.float64) / math.sqrt(latent)
            for _ in range(2)
        )
        own = noise**2 * torch.eye(p, dtype=torch.float64)
        self.xx, self.yy, self.xy = a.T @ a + own, b.T @ b + own, a.T @ b
        self.maps, self.noise = (a.float(), b.float()), noise

    def draw(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Features of n samples, twice (n, p), or fewer whose Grams are as random: see
        `narrow_noise`."""
        z = torch.randn(n, len(self.maps[0]), generator=generator)
        wide = self.maps[0].shape[1] > z.shape[1] + n // BATCHES[0]
        if not wide:
            noise = (torch.randn(n, m.shape[1], generator=generator) for m in self.maps)
            return [
                torch.addmm(e.mul_(self.noise), z, m) for m, e in zip(self.maps, noise, strict=True)
            ]
        sides = []
        for m in self.maps:
            # Turned so that the latent variables reach the first features only.
            first = z @ torch.linalg.qr(m.T).R.T
            first += self.noise * torch.randn(first.shape, generator=generator)
            others = m.shape[1] - first.shape[1]
            sides.append(torch.cat([first, self.noise * narrow_noise(n, others, generator)], dim=1))
        return sides

    def value(self, measure: str) -> float:
        """Of a measure, from the covariances."""
        if measure in ("cka", "rv_coefficient"):
            return float(self.xy.square().sum() / (self.xx.norm() * self.yy.norm()))
        if measure == "procrustes_similarity":
            total = self.xx.trace() * self.yy.trace()
            return float(torch.linalg.matrix_norm(self.xy, "nuc") / total.sqrt())
        if measure == "linear_regression":
            explained = self.xy @ torch.linalg.solve(self.yy, self.xy.T)
            return float(explained.trace() / self.xx.trace())
        if measure == "cca":
            roots = (torch.linalg.cholesky(m) for m in (self.xx, self.yy))
            left, right = (torch.linalg.inv(root) for root in roots)
            return float(torch.linalg.svdvals(left @ self.xy @ right.T).mean())
        raise ValueError(f"measure: no value of {measure} is known")


def narrow_noise(n: int, p: int, generator: torch.Generator) -> Tensor:
    """Fewer features (n, n/4) in place of p of noise, with Grams of the same distribution within
    each quarter of the samples, in which all batches lie: the Cholesky factor of a Wishart matrix
    (Bartlett 1933), triangular, with normal entries below roots of chi-squared ones."""
    quarter = n // BATCHES[0]
    seed = int(torch.randint(2**62, (1,), generator=generator))
    squares = np.random.default_rng(seed).chisquare(p - np.arange(quarter), (BATCHES[0], quarter))
    factor = torch.randn(BATCHES[0], quarter, quarter, generator=generator).tril_(-1)
    factor.diagonal(dim1=1, dim2=2).copy_(torch.from_numpy(np.sqrt(squares)))
    return factor.flatten(0, 1)


def batched(n: int, batches: int) -> Iterator[slice]:
    """Even batches of the samples, each in one quarter of them."""
    for quarter in torch.arange(n).tensor_split(BATCHES[0]):
        for rows in quarter.tensor_split(batches // BATCHES[0]):
            yield slice(int(rows[0]), int(rows[-1]) + 1)


def by_batches(data: list[list[Tensor]], batches: int) -> Iterator[tuple[float, float, int]]:
    """CKA, standard error and number of groups of data sets, all in one accumulator."""
    cka = MinibatchCKA()
    features = [x for pair in data for x in pair]
    for rows in batched(len(features[0]), batches):
        grams = [centered_gram(x[rows], packed=True) for x in features]
        cka.update(torch.stack(grams), n=rows.stop - rows.start)
    found = cka.compute()
    for i in range(0, len(features), 2):
        yield float(found.value[i, i + 1]), float(found.standard_error[i, i + 1]), len(found.hsic)


def holds(value: float, error: float, groups: int, truth: float) -> tuple[bool, bool]:
    """Whether the interval by Student's t has the truth, and whether ± 1.96 errors do."""
    low, high = student_interval(value, error, groups)
    return bool(low <= truth <= high), abs(value - truth) <= 1.96 * error


def of_cka(rows: dict[str, Row], n: int, p: int, noise: float, part: int) -> None:
    """Adds one part of the data sets to the rows of all numbers of batches."""
    population = Population(p, noise)
    truth = population.value("cka")
    generator = torch.Generator().manual_seed(seed(n, p, noise, part))
    for start in range(0, PART, TOGETHER):
        data = [population.draw(n, generator) for _ in range(min(TOGETHER, PART - start))]
        for batches in (b for b in BATCHES if n // b >= LEAST):
            for value, error, groups in by_batches(data, batches):
                row = add(rows, "cka", n, batches, p, noise, truth)
                count(row, value, error, groups)


def of_others(rows: dict[str, Row], n: int, p: int, noise: float, part: int) -> None:
    """The same of measures that have their errors from a jackknife over groups of samples."""
    population = Population(p, noise)
    generator = torch.Generator().manual_seed(seed(n, p, noise, part))
    for _ in range(PART):
        x, y = population.draw(n, generator)
        for measure in OTHERS:
            found = jackknife(measure, [x], [y], groups=GROUPS)
            value, error, bias = map(float, (found.value, found.standard_error, found.bias))
            row = add(rows, measure, n, GROUPS, p, noise, population.value(measure))
            count(row, value, error, GROUPS)
            corrected, _ = holds(value - bias, error, GROUPS, row["truth"])
            into_mean(row, "less_bias", corrected)


def seed(n: int, p: int, noise: float, part: int) -> int:
    """Another for each part of each case."""
    return ((n * 10_000 + p) * 1000 + round(100 * noise)) * 1000 + part


def add(
    rows: dict[str, Row], measure: str, n: int, groups: int, p: int, noise: float, truth: float
) -> Row:
    """The row of a case, made if it is not there."""
    case = f"{measure}, n = {n}, {groups} groups, p = {p}, noise {noise:g}"
    new: Row = {
        **{"case": case, "measure": measure, "n": n, "groups": groups, "p": p, "noise": noise},
        **{"truth": truth, "mean": 0.0, "repeats": 0, "student": 0.0, "plain": 0.0},
    }
    return rows.setdefault(case, new)


def count(row: Row, value: float, error: float, groups: int) -> None:
    """Takes one more data set into the mean and the shares of a row."""
    row["repeats"] += 1
    student, plain = holds(value, error, groups, row["truth"])
    for key, new in (("mean", value), ("student", student), ("plain", plain)):
        into_mean(row, key, new)


def into_mean(row: Row, key: str, new: float) -> None:
    """Takes the newest data set into a mean over all."""
    row[key] = row.get(key, 0.0) + (new - row.get(key, 0.0)) / row["repeats"]


Part = Callable[[dict[str, Row], int, int, float, int], None]


def parts(repeats: float) -> Iterator[tuple[Part, int, int, float, int]]:
    """What to run: the other measures and few features first, of those a part of each case in
    turn."""
    for part in range(math.ceil(repeats * OTHER_REPEATS / PART)):
        for q, n, noise in product(OTHER_FEATURES, OTHER_SAMPLES, NOISE):
            yield of_others, n, q, noise, part
    for p in FEATURES:
        for part in range(math.ceil(repeats * REPEATS[p] / PART)):
            for n, noise in product(SAMPLES, NOISE):
                yield of_cka, n, p, noise, part


def parts_done(rows: dict[str, Row], n: int, p: int, noise: float, of: Part) -> int:
    """Parts that are in the rows of a case, all of which come to the file together."""
    for row in rows.values():
        same = (row["n"], row["p"], row["noise"]) == (n, p, noise)
        if same and (row["measure"] == "cka") == (of is of_cka):
            return int(row["repeats"]) // PART
    return 0


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=float, default=1.0, help="times as many as by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of few samples for many features, which is the point
    held = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    where = held.get("machine") or machine()
    rows = {row["case"]: row for row in held["rows"]}
    for run, n, p, noise, part in parts(options.repeats):
        if part < parts_done(rows, n, p, noise, run):
            continue
        run(rows, n, p, noise, part)
        write_json(options.out, {"machine": where, "rows": list(rows.values())})
        print(run.__name__, n, p, noise, part, flush=True)


if __name__ == "__main__":
    main()
