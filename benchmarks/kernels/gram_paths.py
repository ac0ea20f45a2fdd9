"""Times every way to compute a centred Gram on a GPU, against the bound that its bytes or its
operations set; the measurements behind the constants of csrc/cuda/gram/gram_plan.h.

    python benchmarks/kernels/gram_paths.py [--out FILE.json]
    python benchmarks/kernels/gram_paths.py --device cpu     # runs each path once, times nothing

A path is the products alone (csrc/cuda/gram/centered_gram.cuh), from x to the triangle of tiles:
    single      one pass over x, tensor cores
    bulk        the same, its strips by Hopper's copy engine; in the study alone, as warpgroups:
    warpgroups  one pass over x, products by warpgroups (Hopper)
    tiles64     centred features in memory, then 64 x 64 tiles (tiles128: 128 x 128)
    vendor      centred features in memory, then torch's product by panels of rows
    matmul      what a careful user writes: x - x.mean(0), rounded, then the full product
The path that gram_plan.h takes is marked, and plan_constants.py tells from the rows what its
constants ought to be, and from how many samples on the study's paths would win. Each path's result
is compared with float64 before it is timed, by the entries beside its diagonal; a wrong one ends in
status 1.
Inputs rotate, so that no run finds its features in the cache. The bound is the larger of bytes /
copy bandwidth and operations / rate of torch's matrix product in that precision, both measured
first, counting x once and the triangle's n (n + 1) p operations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in ("benchmarks/kernels", "benchmarks", "python_tests/csrc")
]
import plan_constants  # noqa: E402
from build_runner import STUDY_MODULE, load  # noqa: E402
from device_time import ROTATION, Ceilings, milliseconds, shown  # noqa: E402
from study import lower_triangle  # noqa: E402
from timing import machine, write_json  # noqa: E402

from repsim_fast.ops.centering import center_gram  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Of entries beside the diagonal, which grow as sqrt(p) only: in float32 the rounding of some
# thousand additions, otherwise that of the operands.
TOLERANCE = {"float32": 2e-5, "tf32": 1e-3, "bfloat16": 6e-3}
# Of those on it, sums of squares: added one after another in float32, 2^16 of them lose 1e-5 and
# 2^18 6e-5, as what is added falls below the rounding of the sum.
ON_DIAGONAL = 1e-3
SAMPLES = (64, 128, 256, 512, 1024, 2048, 4096)
PANEL_ROWS = 512  # kVendorPanelRows of gram_plan.h
INPUT_BYTES = 512 << 20  # of one x where p is free: several times the cache
MIN_FEATURES, MAX_FEATURES = 4096, 800_000

Path_ = Callable[[Tensor], Tensor]  # x (n, p) -> lower triangle (n, n), for the check


class Paths:
    """The launchers with their memory, for x (n, p) of one dtype and one precision."""

    def __init__(
        self,
        module: ModuleType,
        study: ModuleType,
        x: Tensor,
        precision: str,
        multiprocessors: int,
    ) -> None:
        self.module, self.study = module, study
        self.precision, self.multiprocessors = precision, multiprocessors
        self.n, self.p = x.shape
        self.x_type = getattr(module.ElementType, str(x.dtype).removeprefix("torch."))
        self.operand = getattr(module.ElementType, precision)
        self.pitch = module.feature_pitch(self.p, self.operand)
        storage = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.features = torch.empty(self.n, self.pitch, dtype=storage, device=x.device)

    def gram(self, splits: int, tiles: int, tile: int) -> Tensor:
        return torch.empty(splits, tiles, tile, tile, device=self.features.device)

    def one_pass(self, version: int, side: int, splits: int) -> Path_:
        """By a version of the kernel study, in ten tiles; returns them."""
        gram = self.gram(splits, 10, side)

        def run(x: Tensor) -> Tensor:
            self.study.gram_version(
                **{"version": version, "x": x.data_ptr(), "x_type": self.x_type},
                **{"n": self.n, "p": self.p, "row_stride": x.stride(0)},
                **{"operand_type": self.operand, "tile": side, "splits": splits},
                gram=gram.data_ptr(),
            )
            return gram

        return run

    def single(self, version: int = 3) -> tuple[Path_, Path_] | None:
        """Version 3 is the operator's own."""
        side = self.module.single_pass_tile(self.n, self.operand)
        if side == 0 or (self.x_type.name == "bfloat16" and self.precision != "bfloat16"):
            return None
        run = self.one_pass(version, side, self.splits(side))
        return run, lambda x: lower_triangle(run(x)[0], self.n)

    def splits(self, side: int) -> int:
        """Blocks of a single pass, as the operator's."""
        splits: int = self.module.single_pass_splits(
            p=self.p, x_type=self.x_type, tile=side, multiprocessors=self.multiprocessors
        )
        return splits

    def bulk(self) -> tuple[Path_, Path_] | None:
        return self.single(4) if self.study.bulk_copies_available() else None

    def warpgroups(self) -> tuple[Path_, Path_] | None:
        """Columns are shifted only: what finishes a Gram centres it, here the check does."""
        fits = self.n <= 256 and self.precision == "bfloat16"
        if not fits or not self.study.warpgroups_available():
            return None
        run = self.one_pass(7, 64, self.splits(64))

        def result(x: Tensor) -> Tensor:
            lower = lower_triangle(run(x)[0], self.n).double()
            return center_gram(lower + lower.tril(-1).T, "double").tril()

        return run, result

    def center(self, x: Tensor) -> None:
        self.module.center_features(
            **{"x": x.data_ptr(), "x_type": self.x_type, "n": self.n, "p": self.p},
            **{"row_stride": x.stride(0), "column_stride": 1, "centre": True},
            **{"features": self.features.data_ptr(), "operand_type": self.operand},
        )

    def tiles(self, side: int) -> tuple[Path_, Path_]:
        count = -(-self.n // side) * (-(-self.n // side) + 1) // 2
        steps = self.pitch * self.features.element_size() // 64
        wanted = -(-2 * self.multiprocessors // count)
        splits = max(1, min(wanted, steps // 16))
        gram = self.gram(splits, count, side)

        def run(x: Tensor) -> Tensor:
            self.center(x)
            self.module.triangle_product(
                **{"features": self.features.data_ptr(), "operand_type": self.operand},
                **{"n": self.n, "pitch": self.pitch, "tile": side, "splits": splits},
                gram=gram.data_ptr(),
            )
            return gram

        return run, lambda x: lower_triangle(run(x)[0], self.n)

    def vendor(self) -> tuple[Path_, Path_]:
        panels = -(-self.n // PANEL_ROWS)
        bands = [(self.n * i // panels, self.n * (i + 1) // panels) for i in range(panels)]
        # Sums of bfloat16 products stay float32; torch has that on a GPU alone.
        narrow = self.precision == "bfloat16" and self.features.is_cuda
        gram = torch.zeros(self.n, self.n, device=self.features.device)

        def run(x: Tensor) -> Tensor:
            self._allow_tf32()
            self.center(x)
            operands = self.features if narrow else self.features.float()
            for first, end in bands:
                rows, columns = operands[first:end], operands[:end].T
                if narrow:
                    torch.mm(rows, columns, out_dtype=torch.float32, out=gram[first:end, :end])
                else:
                    torch.mm(rows, columns, out=gram[first:end, :end])
            return gram

        return run, lambda x: run(x).tril()

    def _allow_tf32(self) -> None:
        if self.features.is_cuda:
            torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"

    def matmul(self) -> tuple[Path_, Path_]:
        def run(x: Tensor) -> Tensor:
            self._allow_tf32()
            wide = x.float()
            centred = (wide - wide.mean(dim=0)).to(self.features.dtype)
            return centred @ centred.T

        return run, lambda x: run(x).float().tril()

    def chosen(self, x: Tensor, shared_bytes: int) -> str:
        """The path that the operator takes."""
        plan = self.module.plan_gram(
            **{"n": self.n, "p": self.p, "x_type": self.x_type, "operand_type": self.operand},
            single_pass_layout=x.data_ptr() % 16 == 0 and x[0].nbytes % 16 == 0,
            multiprocessors=self.multiprocessors,
            shared_bytes=shared_bytes,
        )
        name: str = plan.products.name
        return {"tiles": f"tiles{plan.tile}", "single_pass": "single"}.get(name, name)

    def all(self) -> dict[str, tuple[Path_, Path_]]:
        found = {
            "single": self.single(),
            "bulk": self.bulk(),
            "warpgroups": self.warpgroups(),
            "tiles64": self.tiles(64),
            "tiles128": self.tiles(128),
            "vendor": self.vendor(),
            "matmul": self.matmul(),
        }
        return {name: path for name, path in found.items() if path is not None}


def check(path: Path_, x: Tensor, expected: Tensor) -> float:
    """Error beside the diagonal, or on it where that is wrong."""
    wrong = path(x).double() - expected
    beside = float(wrong.tril(-1).norm() / expected.tril(-1).norm())
    on = float(wrong.diagonal().norm() / expected.diagonal().norm())
    return beside if on <= ON_DIAGONAL else on


def measure(
    modules: tuple[ModuleType, ModuleType],
    n: int,
    p: int,
    dtype: str,
    precision: str,
    ceilings: Ceilings | None,
) -> list[dict[str, Any]]:
    """One row for each path."""
    device = modules[0].device
    xs = [torch.randn(n, p, device=device).add_(1).to(DTYPES[dtype]) for _ in range(ROTATION)]
    wide = xs[0].double()
    centred = wide - wide.mean(dim=0)
    expected = (centred @ centred.T).tril()
    del wide, centred
    cores, shared_bytes = 4, 227 << 10
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        cores = properties.multi_processor_count
        shared_bytes = properties.shared_memory_per_block_optin
    paths = Paths(*modules, xs[0], precision, cores)
    chosen = paths.chosen(xs[0], shared_bytes)
    rows = []
    for name, (run, result) in paths.all().items():
        error = check(result, xs[0], expected)
        case = f"{n:5} x {p:6} {dtype:8} {precision:8} {name:10}"
        row: dict[str, Any] = {"case": case, "n": n, "p": p, "dtype": dtype}
        row |= {"precision": precision, "path": name, "error": error}
        row["chosen"] = name == chosen
        row["right"] = name == "matmul" or error <= TOLERANCE[precision]
        if ceilings is not None:
            row |= ceilings.figures(
                milliseconds(lambda i, run=run: run(xs[i % ROTATION])),  # type: ignore[misc]
                nbytes=xs[0].nbytes,
                operations=n * (n + 1) * p,
                precision=precision,
            )
        rows.append(row)
        mark = "*" if row["chosen"] else " "
        print(f"{mark} {case} error {error:.1e}  {shown(row)}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="JSON file of all rows")
    options = parser.parse_args()
    # The launchers first: they hold the types of the other module.
    modules = load(options.device), load(options.device, STUDY_MODULE)
    ceilings = Ceilings.measured(*TOLERANCE) if options.device == "cuda" else None
    about = {"machine": machine(), "ceilings": ceilings and asdict(ceilings)}
    rows = []
    for n in SAMPLES if options.device == "cuda" else (20, 130):
        for dtype, precision in (
            *(("float32", precision) for precision in TOLERANCE),
            ("bfloat16", "bfloat16"),
        ):
            p = min(MAX_FEATURES, max(MIN_FEATURES, INPUT_BYTES // (n * DTYPES[dtype].itemsize)))
            if options.device == "cpu":
                p = 104
            rows += measure(modules, n, p // 8 * 8, dtype, precision, ceilings)
            if options.out is not None:  # at once: kept if a later case ends the run
                write_json(options.out, {**about, "rows": rows})
    if options.device == "cuda":
        print(*plan_constants.report(rows), sep="\n")
    if not all(row["right"] for row in rows):
        sys.exit("some paths exceed the error of their precision")


if __name__ == "__main__":
    main()
