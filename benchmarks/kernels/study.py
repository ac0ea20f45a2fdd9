"""The kernel study: numbered versions, each checked against float64 and timed against its bound.

    python benchmarks/kernels/study.py [--family gram|linf] [--out FILE.json]
    python benchmarks/kernels/study.py --device cpu     # checks each version once, times nothing

What the versions are, what is expected of them and why: README.md beside this. The bound is that
of the fewest bytes: x of a Gram once, the three inputs and the result of a step once each, over the
bandwidth of a copy measured in the same run; for a Gram also its n (n + 1) p operations over the
rate of torch's matrix product in bfloat16. Writes machine, versions, commit and all rows as JSON.
A version that differs from float64 by more than its precision ends in status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in ("benchmarks/kernels", "benchmarks", "python_tests/csrc")
]
from build_runner import STUDY_MODULE, load  # noqa: E402
from device_time import ROTATION, Ceilings, milliseconds, shown  # noqa: E402
from timing import machine, write_json  # noqa: E402

from repsim_fast.ops.centering import center_gram  # noqa: E402

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
GRAM_ERROR = 6e-3  # of operands rounded to bfloat16, norms
# Versions with tiles of 64 whatever n is: their number of tiles, and the largest n.
TILES_OF_64 = {5: (1, 64), 6: (3, 128), 7: (10, 256)}
SINGLE_PASS_TILES, SINGLE_PASS_TILE_ROWS = 10, 4
INPUT_BYTES = 512 << 20  # of one x: several times the cache
LINF_ENTRIES = 1 << 28  # 1 GiB a tensor; as many images of 224 x 224 as 1783
EPS, SIZE = 8 / 255, 2 / 255

PREDICTIONS = json.loads(Path(__file__).with_name("predictions.json").read_text())


class Case(NamedTuple):
    """One version on one problem, with memory of its own."""

    problem: str
    kind: str  # of problem: its key in predictions.json
    version: int
    run: Callable[[int], object]  # on the i-th of the rotating inputs
    error: Callable[[], float]  # of the first input's result, relative to what is allowed
    bytes: float
    operations: float = 0


@dataclass
class Kernels:
    """The compiled versions, and where they run."""

    device: str
    launchers: ModuleType = field(init=False)
    study: ModuleType = field(init=False)

    def __post_init__(self) -> None:
        self.launchers = load(self.device)  # first: it holds the types of the other one
        self.study = load(self.device, STUDY_MODULE)

    @property
    def multiprocessors(self) -> int:
        if self.device == "cpu":
            return 4
        return torch.cuda.get_device_properties(0).multi_processor_count


# ---- the Gram: x (n, p) to the lower triangle of its centred products


def lower_triangle(tiles: Tensor, n: int) -> Tensor:
    """(n, n) from tiles (tiles, side, side)."""
    side = tiles.shape[1]
    rows = -(-n // side)
    full = tiles.new_zeros(rows * side, rows * side)
    for i, j in torch.tril_indices(rows, rows).T.tolist():
        full[i * side : (i + 1) * side, j * side : (j + 1) * side] = tiles[i * (i + 1) // 2 + j]
    return full[:n, :n].tril()


def finished(version: int, tiles: Tensor, n: int) -> Tensor:
    """The lower triangle (n, n) in float64. Version 7 leaves centring to what finishes a Gram."""
    gram = lower_triangle(tiles, n).double()
    if version != 7:
        return gram
    return center_gram(gram + gram.tril(-1).T, "double").tril()


def gram_runs(
    kernels: Kernels, version: int, xs: list[Tensor]
) -> tuple[Callable[[int], object], Tensor] | None:
    """What computes the tiles of the i-th x, and where it leaves them; None if it cannot."""
    (n, p), x_type = xs[0].shape, str(xs[0].dtype).removeprefix("torch.")
    types = kernels.launchers.ElementType
    operand = types.bfloat16
    problem = {"x_type": getattr(types, x_type), "n": n, "p": p, "row_stride": xs[0].stride(0)}
    if version == 1:
        pitch = kernels.launchers.feature_pitch(p, operand)
        features = torch.empty(n, pitch, dtype=torch.bfloat16, device=kernels.device)
        rows = -(-n // 64)
        tiles = rows * (rows + 1) // 2
        splits = max(1, min(-(-2 * kernels.multiprocessors // tiles), pitch * 2 // 64 // 16))
        gram = torch.full((splits, tiles, 64, 64), torch.nan, device=kernels.device)

        def two_kernels(i: int) -> None:
            x = xs[i % len(xs)].data_ptr()
            common = {"features": features.data_ptr(), "operand_type": operand}
            kernels.launchers.center_features(
                x=x, **problem, column_stride=1, centre=True, **common
            )
            kernels.launchers.triangle_product(
                n=n, pitch=pitch, tile=64, splits=splits, gram=gram.data_ptr(), **common
            )

        return two_kernels, gram[0]

    side = kernels.launchers.single_pass_tile(n, operand)
    tiles, limit = SINGLE_PASS_TILES, SINGLE_PASS_TILE_ROWS * side
    if version in TILES_OF_64:
        side, (tiles, limit) = 64, TILES_OF_64[version]
    if n > limit:
        return None
    blocks = kernels.launchers.single_pass_splits(
        p=p, x_type=problem["x_type"], tile=side, multiprocessors=kernels.multiprocessors
    )
    if version == 4 and not kernels.study.bulk_copies_available():
        return None
    if version == 7 and not kernels.study.warpgroups_available():
        return None
    gram = torch.full((blocks, tiles, side, side), torch.nan, device=kernels.device)

    def one_kernel(i: int) -> None:
        kernels.study.gram_version(
            version=version,
            x=xs[i % len(xs)].data_ptr(),
            **problem,
            tile=side,
            splits=blocks,
            gram=gram.data_ptr(),
        )

    return one_kernel, gram[0]


def gram_cases(kernels: Kernels) -> Iterator[Case]:
    shapes = [(64, None), (128, None), (256, None), (64, 4096), (128, 4096)]
    if kernels.device == "cpu":
        shapes = [(7, 40), (64, 136), (130, 72)]
    for dtype in DTYPES:
        for n, columns in shapes:
            p = columns or min(800_000, INPUT_BYTES // (n * DTYPES[dtype].itemsize)) // 8 * 8
            # Small problems need more buffers, for together they must not fit the cache.
            count = max(ROTATION, (256 << 20) // (n * p * DTYPES[dtype].itemsize))
            count = count if kernels.device == "cuda" else 1
            xs = [torch.randn(n, p, device=kernels.device).add_(1) for _ in range(count)]
            xs = [x.to(DTYPES[dtype]) for x in xs]
            wide = xs[0].double()
            wide -= wide.mean(dim=0)
            expected = (wide @ wide.T).tril()
            del wide
            for version in range(1, 8):
                if (runs := gram_runs(kernels, version, xs)) is None:
                    continue
                run, tiles = runs

                def error(
                    version: int = version,
                    run: Callable[[int], object] = run,
                    tiles: Tensor = tiles,
                    expected: Tensor = expected,
                ) -> float:
                    run(0)
                    gram = finished(version, tiles, len(expected))
                    return float((gram - expected).norm() / expected.norm()) / GRAM_ERROR

                # With few features starting the kernels takes longer than reading x: not predicted.
                kind = "" if columns == 4096 else f"{n} {dtype}"
                shape = f"{n} x {p} {dtype}"
                yield Case(shape, kind, version, run, error, xs[0].nbytes, n * (n + 1) * p)


# ---- the Linf step: adv, gradient, x to the next adv


def linf_cases(kernels: Kernels) -> Iterator[Case]:
    count = LINF_ENTRIES if kernels.device == "cuda" else 5000

    def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = torch.rand(count, device=kernels.device)
        adv = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp_(0, 1)
        return adv, torch.randn_like(x), x, torch.full_like(x, torch.nan)

    sets = [tensors() for _ in range(ROTATION)]
    adv, gradient, x, _ = (tensor.double() for tensor in sets[0])
    expected = (adv + SIZE * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).float()

    def textbook(i: int) -> None:
        adv, gradient, x, out = sets[i % ROTATION]
        moved = adv + SIZE * gradient.sign()
        torch.clamp(x + (moved - x).clamp(-EPS, EPS), 0, 1, out=out)

    def step(version: int) -> Callable[[int], object]:
        def run(i: int) -> None:
            adv, gradient, x, out = sets[i % ROTATION]
            kernels.study.linf_version(
                version=version,
                count=count,
                **{"adv": adv.data_ptr(), "gradient": gradient.data_ptr(), "x": x.data_ptr()},
                **{"out": out.data_ptr(), "size": SIZE, "eps": EPS},
            )

        return run

    for version in range(1, 6):
        run = textbook if version == 1 else step(version)

        def error(run: Callable[[int], object] = run) -> float:
            sets[0][3].fill_(torch.nan)
            run(0)
            worst = (sets[0][3] - expected).abs().max()  # NaN stays NaN
            return float(worst) / 2e-7  # two roundings of numbers up to 1

        yield Case(f"{count} float32", "float32", version, run, error, 16 * count)


# ---- table


FAMILIES = {"gram": gram_cases, "linf": linf_cases}


def study(kernels: Kernels, family: str, ceilings: Ceilings | None) -> list[dict[str, Any]]:
    """One row for each version and problem; times them where there are ceilings."""
    rows = []
    for case in FAMILIES[family](kernels):
        prediction, error = PREDICTIONS[family][str(case.version)], case.error()
        name = f"{family} {case.problem}, {case.version} {prediction['name']}"
        row: dict[str, Any] = {"case": name, "family": family, "version": case.version}
        row |= {"error_of_allowed": error, "right": error <= 1}
        expected = row["predicted_of_copy"] = prediction["of_copy"].get(case.kind)
        if ceilings is not None:
            row |= ceilings.figures(
                milliseconds(case.run),
                nbytes=case.bytes,
                operations=case.operations,
                precision="bfloat16",
            )
        rows.append(row)
        predicted = "" if expected is None else f" (predicted {expected:.0%} of copy)"
        print(f"{name:64} {shown(row)}{predicted}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="only this one")
    parser.add_argument("--out", type=Path, help="JSON file of all rows")
    options = parser.parse_args()
    kernels = Kernels(options.device)
    ceilings = Ceilings.measured("bfloat16") if options.device == "cuda" else None
    about = {"machine": machine(), "ceilings": ceilings and asdict(ceilings)}
    rows = []
    for family in [options.family] if options.family else FAMILIES:
        rows += study(kernels, family, ceilings)
        if options.out is not None:  # at once: kept if the other family ends the run
            write_json(options.out, {**about, "rows": rows})
    if not all(row["right"] for row in rows):
        sys.exit("some versions are wrong")


if __name__ == "__main__":
    main()
