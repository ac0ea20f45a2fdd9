"""Every CUDA operator of the package against the bound that its bytes or its operations set.

    python benchmarks/kernels/operators.py [--out FILE.json]
    python benchmarks/kernels/operators.py --device cpu     # checks each once, small, times nothing

Bytes: every input read once and every result written once, over the bandwidth of a copy measured in
the same run. Operations, over torch's matrix product in that precision: n (n + 1) p of a Gram;
8/3 n^3 of singular values (a bidiagonalisation), 21 n^3 with vectors (Golub and Van Loan, Matrix
Computations, 4th edition, table 8.6.1). No SVD reaches that rate, which is a product's; the figure
places it all the same. Each result is compared with float64 before it is timed. What was expected
of some cases before any ran is in predictions.json (README.md beside this).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("benchmarks/kernels", "benchmarks")]
from device_time import ROTATION, Ceilings, milliseconds, shown  # noqa: E402
from timing import machine, write_json  # noqa: E402

from repsim_fast import ops  # noqa: E402
from repsim_fast.ops.reference import gram as reference  # noqa: E402
from repsim_fast.ops.reference import pgd as _reference_pgd  # noqa: E402

EPS, SIZE = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}, {"linf": 2 / 255, "l2": 0.1, "l1": 1.0}
# Of entries beside the diagonal, which grow as sqrt(p) only: in float32 the rounding of some
# thousand additions, otherwise that of the operands.
GRAM_ERROR = {"float32": 2e-5, "tf32": 1e-3, "bfloat16": 6e-3}


# Of the Gram (n, p), of the steps' images, of the batches of square matrices (B, n).
GRAMS = (
    *((64, 1_000_000), (128, 1_000_000), (256, 1_000_000), (512, 1 << 18), (1024, 1 << 17)),
    *((2048, 1 << 18), (128, 10_000)),
)
IMAGES = ((256, 3, 224, 224), (16384, 3, 32, 32))
MATRICES = ((8192, 16), (4096, 32), (4096, 64), (512, 128))

PREDICTIONS = json.loads(Path(__file__).with_name("predictions.json").read_text())["operators"]


class Case(NamedTuple):
    """An operator on one problem."""

    name: str
    run: Callable[[int], Any]  # on the i-th of the rotating inputs
    error: Callable[[], float]  # over what is allowed
    bytes: float
    operations: float = 0
    precision: str = "float32"


def grams(device: str) -> Iterator[Case]:
    for n, p in GRAMS if device == "cuda" else [(20, 96)]:
        for dtype, precision in (
            (torch.bfloat16, "bfloat16"),
            (torch.float32, "bfloat16"),
            (torch.float32, "tf32"),
            (torch.float32, "float32"),
        ):
            if precision == "tf32" and device == "cpu":
                continue  # exists on CUDA only
            xs = [torch.randn(n, p, device=device).add_(1).to(dtype) for _ in range(ROTATION)]

            def run(i: int, xs: list[Tensor] = xs, precision: Any = precision) -> Tensor:
                return ops.centered_gram(xs[i % ROTATION], packed=True, precision=precision)

            def error(
                run: Callable[[int], Tensor] = run, x: Tensor = xs[0], precision: str = precision
            ) -> float:
                want = reference.centered_gram(x.double(), packed=True)
                return float((run(0) - want).norm() / want.norm()) / GRAM_ERROR[precision]

            name = f"centered_gram {n} x {p} {dtype} {precision}".replace("torch.", "")
            nbytes = xs[0].nbytes + 2 * n * (n - 1)
            yield Case(name, run, error, nbytes, n * (n + 1) * p, precision)


def steps(device: str) -> Iterator[Case]:
    for shape in IMAGES if device == "cuda" else [(2, 3, 8, 8)]:
        sets = []
        for _ in range(ROTATION):
            x = torch.rand(shape, device=device)
            sets.append((x.clone(), torch.randn_like(x), x))
        for norm in EPS:
            step = getattr(ops, f"pgd_{norm}_step_")
            plain = getattr(_reference_pgd, f"pgd_{norm}_step")
            last = (torch.tensor(0.01, device=device),) if norm == "l1" else ()

            def run(i: int, norm: str = norm, step: Any = step, sets: Any = sets) -> None:
                adv, grad, x = sets[i % ROTATION]
                step(adv, grad, x, step_size=SIZE[norm], eps=EPS[norm])

            def error(
                norm: str = norm,
                run: Any = run,
                plain: Any = plain,
                last: Any = last,
                s: Any = sets,
            ) -> float:
                adv, grad, x = s[0]
                adv.copy_(x)
                run(0)
                some = slice(None, None, max(1, len(x) // 8))
                wide = (t[some].double() for t in (x, grad, x))
                want = plain(*wide, SIZE[norm], EPS[norm], 0.0, 1.0, *last)
                return float((adv[some] - want).abs().max()) / 1e-6

            yield Case(f"pgd_{norm}_step {shape}", run, error, 4 * sets[0][2].nbytes)

        for norm in EPS:

            def start(i: int, norm: Any = norm, sets: Any = sets) -> None:
                adv, _, x = sets[i % ROTATION]
                ops.random_start_(adv, x, norm=norm, eps=EPS[norm], seed=1)

            def start_error(norm: str = norm, start: Any = start, sets: Any = sets) -> float:
                adv, _, x = sets[0]
                start(0)
                few = x[:8].cpu().double()  # a sample's numbers do not depend on the others
                want = _reference_pgd.random_start(few, norm, EPS[norm], 0.0, 1.0, seed=1)
                return float((adv[:8].cpu() - want).abs().max()) / 1e-6

            yield Case(f"random_start {norm} {shape}", start, start_error, 2 * sets[0][2].nbytes)


def svds(device: str) -> Iterator[Case]:
    for batch, n in MATRICES if device == "cuda" else [(3, 12)]:
        matrices = [torch.randn(batch, n, n, device=device) for _ in range(ROTATION)]

        def values(i: int, matrices: Any = matrices) -> Tensor:
            return ops.batched_svdvals(matrices[i % ROTATION])

        def factors(i: int, matrices: Any = matrices) -> tuple[Tensor, Tensor, Tensor]:
            return ops.batched_svd(matrices[i % ROTATION])

        def values_error(run: Any = values, a: Tensor = matrices[0]) -> float:
            some = slice(None, None, max(1, len(a) // 32))
            want = torch.linalg.svdvals(a[some].double().cpu())
            error = (run(0)[some].cpu() - want).abs() / want[:, :1]
            return float(error.max()) / 1e-5

        def factors_error(run: Any = factors, a: Tensor = matrices[0]) -> float:
            u, s, vh = (part.double() for part in run(0))
            error = torch.linalg.matrix_norm((u * s[:, None]) @ vh - a) / s[:, 0]
            return float(error.max()) / 1e-4

        shape, nbytes = f"{batch} x {n} x {n}", matrices[0].nbytes
        yield Case(f"batched_svdvals {shape}", values, values_error, nbytes, 8 / 3 * batch * n**3)
        yield Case(f"batched_svd {shape}", factors, factors_error, 3 * nbytes, 21 * batch * n**3)


def predicted_ms(case: str, card: str) -> list[float] | None:
    """From and to how many milliseconds a case was expected to take on a card; None: not said."""
    by_card: dict[str, list[float]] = PREDICTIONS.get(case, {})
    return next((ms for name, ms in by_card.items() if name in card), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="JSON file of all rows")
    options = parser.parse_args()
    precisions = sorted(GRAM_ERROR)
    ceilings = Ceilings.measured(*precisions) if options.device == "cuda" else None
    about = {"machine": machine(), "ceilings": ceilings and asdict(ceilings)}
    rows = []
    for family in (grams, steps, svds):
        for case in family(options.device):
            error = case.error()
            row: dict[str, Any] = {"case": case.name, "error_of_allowed": error}
            row["right"] = error <= 1
            if ceilings is not None:
                row |= ceilings.figures(
                    milliseconds(case.run),
                    nbytes=case.bytes,
                    operations=case.operations,
                    precision=case.precision,
                )
                row["predicted_ms"] = predicted_ms(case.name, torch.cuda.get_device_name())
            rows.append(row)
            print(f"{case.name:48} {shown(row)}", flush=True)
            if options.out is not None:  # at once: kept if a later case ends the run
                write_json(options.out, {**about, "rows": rows})
    if not all(row["right"] for row in rows):
        sys.exit("some operators are wrong")


if __name__ == "__main__":
    main()
