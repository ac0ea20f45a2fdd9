"""What bounds of a network cost, beside a plain loop over its layers in torch.

    python benchmarks/verified_bounds.py [--images 2 32] [--rounds 3] [--out FILE.json]

The small CNN that papers verify (two convolutions, two linear layers, 32 x 32 images) with random
weights. The loop is that of the papers: rows of the identity through transposed convolutions, in
float32, without allowance for rounding. Ours is of a model traced once, as for all batches of a
data set; what it takes where each call traces is a row's last entry. First both must agree in
float64; times are of the processor, since others may use the machine. No maintained package
installs beside a current torch (docs/training.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS)]
from timing import Row, machine, side_by_side, write_json  # noqa: E402

from repsim_fast.verification import Traced, margin_bounds, trace  # noqa: E402

OUT = BENCHMARKS / "results" / "verified_bounds.json"
EPS = 2 / 255
METHODS = ("ibp", "crown-ibp", "crown")
IMAGES = (2, 32)
ROUNDS_OF_MILLISECONDS = 10  # as many rounds of each method but CROWN, which takes seconds
Box = tuple[Tensor, Tensor]


def network(side: int = 32) -> nn.Sequential:
    """CNN-small of Wong and Kolter, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 100), nn.ReLU(), nn.Linear(100, 10),
        ).eval().requires_grad_(False)  # fmt: skip


def interval(layer: nn.Module, box: Box) -> Box:
    """Bounds of a layer's values from those of its input."""
    low, high = box
    if isinstance(layer, nn.ReLU | nn.Flatten):
        return layer(low), layer(high)
    centre, radius = (low + high) / 2, (high - low) / 2
    weight = layer.weight.abs()
    if isinstance(layer, nn.Conv2d):
        reach = F.conv2d(radius, weight, None, layer.stride, layer.padding)
    else:
        reach = F.linear(radius, weight)
    return layer(centre) - reach, layer(centre) + reach


def backward(layers: list[nn.Module], boxes: list[Box], rows: Tensor) -> Tensor:
    """Lower bounds (N, S) of ``rows`` (N, S, ...) times the last layer's output (CROWN)."""
    constant = torch.zeros(rows.shape[:2], dtype=rows.dtype)
    for layer, (low, high) in zip(layers[::-1], boxes[::-1], strict=True):
        shape = (*rows.shape[:2], *low.shape[1:])
        if isinstance(layer, nn.ReLU):
            below, above = low.clamp(max=0), high.clamp(min=0)
            slope = above / (above - below).clamp(min=1e-30)
            nearer = (high > -low).to(rows.dtype)
            plus, minus = rows.clamp(min=0), rows.clamp(max=0)
            chord = (minus * (-slope * below)[:, None]).flatten(2).sum(2)
            constant = constant + chord
            rows = plus * nearer[:, None] + minus * slope[:, None]
        elif isinstance(layer, nn.Flatten):
            rows = rows.view(shape)
        elif isinstance(layer, nn.Linear):
            constant = constant + rows @ layer.bias
            rows = rows @ layer.weight
        else:
            constant = constant + rows.sum((3, 4)) @ layer.bias
            rows = F.conv_transpose2d(
                rows.flatten(0, 1), layer.weight, None, layer.stride, layer.padding
            ).view(shape)
    low, high = (end[:, None] for end in boxes[0])
    return constant + (rows.clamp(min=0) * low + rows.clamp(max=0) * high).flatten(2).sum(2)


def loop(model: nn.Sequential, x: Tensor, y: Tensor, method: str) -> Tensor:
    """Lower bounds (N, 10) of the margins."""
    layers, boxes = list(model), [((x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1))]
    for number, layer in enumerate(layers[:-1]):
        low, high = interval(layer, boxes[-1])
        if method == "crown" and isinstance(layers[number + 1], nn.ReLU):
            eye = torch.eye(low[0].numel(), dtype=x.dtype).view(-1, *low.shape[1:])
            for sign, ends in ((1.0, low), (-1.0, high)):
                parts = [
                    backward(layers[: number + 1], boxes, sign * rows.expand(len(x), *rows.shape))
                    for rows in eye.split(256)
                ]
                found = sign * torch.cat(parts, 1).view_as(ends)
                tighter = torch.maximum if sign > 0 else torch.minimum
                ends.copy_(tighter(ends, found))
        boxes.append((low, high))
    eye = torch.eye(10, dtype=x.dtype)
    rows = eye[y][:, None] - eye
    low, high = (end[:, None] for end in boxes[-1])
    head = rows @ model[-1].weight
    plain = (head.clamp(min=0) * low + head.clamp(max=0) * high).sum(2) + rows @ model[-1].bias
    if method == "ibp":
        return plain
    return torch.maximum(plain, backward(layers, boxes, rows))


def ours(
    model: nn.Module | Traced, x: Tensor, y: Tensor, method: str, rounded: bool = True
) -> Tensor:
    """The same by the library."""
    return margin_bounds(model, x, y, EPS, method=method, rounded=rounded)


@torch.no_grad()
def measured(images: int, rounds: int, side: int = 32) -> list[Row]:
    """A row for each method, after a check that both say the same.

    Raises:
        AssertionError: They do not, or the rounded bounds are not below.
    """
    model, double = network(side), network(side).double()
    traced, traced_double = trace(model), trace(double)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(images, 3, side, side, generator=generator)
    y = model(x).argmax(1)
    rows: list[Row] = []
    for method in METHODS:
        exact = loop(double, x.double(), y, method)
        torch.testing.assert_close(
            ours(traced_double, x.double(), y, method, rounded=False), exact, rtol=0, atol=1e-9
        )
        below = exact - ours(traced, x, y, method)
        assert below.min() >= 0
        times = side_by_side(
            {
                "loop": lambda method=method: loop(model, x, y, method),
                "ours": lambda method=method: ours(traced, x, y, method),
                "ours, not rounded": lambda method=method: ours(traced, x, y, method, False),
                "ours, traced in each call": lambda method=method: ours(model, x, y, method),
            },
            rounds=rounds * (1 if method == "crown" else ROUNDS_OF_MILLISECONDS),
            warmup=1, clock=process_time,
        )  # fmt: skip
        row: Row = {"case": f"CNN-small, {images} images, {method}"}
        row |= {name: timing.row() for name, timing in times.items()}
        rows.append({**row, "largest_allowance_for_rounding": below.max().item()})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", nargs="+", type=int, default=IMAGES, help="at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=32, help="of an image, a multiple of 4")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows = [row for n in given.images for row in measured(n, given.rounds, given.side)]
    for row in rows:
        shown = "  ".join(f"{k} {v['median_s']:.4f} s" for k, v in row.items() if type(v) is dict)
        print(f"{row['case']}: {shown}")
    write_json(given.out, {"machine": machine(), "clock": "process_time", "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
