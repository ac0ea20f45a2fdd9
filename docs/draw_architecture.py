"""Draws the way of a batch from `compare` to a cell: docs/images/architecture.svg.

    python docs/draw_architecture.py          # draws
    python docs/draw_architecture.py --check  # whether the picture is that of this code

Every stop names the function or class that does the work; a test holds that each exists and that
docs/architecture.md speaks of it.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

IMAGE = Path(__file__).parent / "images" / "architecture.svg"


class Stop(NamedTuple):
    """A place that a batch passes: ``where`` is module:name within repsim_fast."""

    title: str
    where: str
    what: str
    column: float = 0.5
    row: float = 0.0
    colour: str = "#e8eef7"


_DATA, _NUMBERS, _RESULT = "#fdf1dc", "#e6f3ea", "#f4e8f3"
# Those on the left alone are of CKA, those on the right of every other measure.
STOPS = (
    Stop("Plan", "comparison.plan:make_plan", "models, layers, inputs; equal runs once", row=0),
    Stop(
        "Batches",
        "data.batches:open_data",
        "samples and labels, whatever the data are",
        row=1,
        colour=_DATA,
    ),
    Stop("Inputs", "comparison.inputs:BatchInputs", "attack or corruption, once a batch", row=2),
    Stop("Forward pass", "comparison.engine:Engine", "every model, hooks in place", row=3),
    Stop("Activation", "capture.capture:Capture", "what a layer returns, by its name", row=4),
    Stop("Features", "capture.forms:Forms", "maps and tokens to rows (n, p)", row=5),
    Stop("Intake", "comparison.intake:Intake", "a row of the accumulator for each layer", row=6),
    Stop(
        "Centred Gram",
        "ops.gram.centered_gram:centered_gram",
        "in the hook, by csrc/cpu/gram or csrc/cuda/gram",
        *(0.25, 7, _NUMBERS),
    ),
    Stop(
        "All pairs at once",
        "similarity.streaming.minibatch:MinibatchCKA",
        "one symmetric product a batch",
        *(0.25, 8, _NUMBERS),
    ),
    Stop(
        "Samples kept",
        "similarity.streaming.samples:SampleAccumulator",
        "of all batches, in memory or files",
        *(0.75, 7, _NUMBERS),
    ),
    Stop(
        "Views, then pairs",
        "similarity.base.measure:Measure",
        "factorised once a layer, cheap a pair",
        *(0.75, 8, _NUMBERS),
    ),
    Stop(
        "Cell",
        "comparison.result:SimilarityResult",
        "value, standard error, replicates",
        row=9,
        colour=_RESULT,
    ),
)


def _arrows() -> list[tuple[int, int]]:
    single = [i for i, stop in enumerate(STOPS) if stop.column == 0.5]
    *way, last = single
    left = [i for i, stop in enumerate(STOPS) if stop.column < 0.5]
    right = [i for i, stop in enumerate(STOPS) if stop.column > 0.5]
    chains = [way, [way[-1], *left, last], [way[-1], *right, last]]
    return [pair for chain in chains for pair in pairwise(chain)]


def svg() -> str:
    """The picture, as text: the same for the same stops, whatever is installed."""
    width, height, box, tall = 760, 76, 350, 56

    def corner(stop: Stop) -> tuple[float, float]:
        return width * stop.column - box / 2, 10 + height * stop.row

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {10 * height + 4}" '
        'font-family="sans-serif" font-size="12">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{10 * height + 4}" fill="#ffffff"/>',
    ]
    for a, b in _arrows():
        (ax, ay), (bx, by) = corner(STOPS[a]), corner(STOPS[b])
        lines.append(
            f'<line x1="{ax + box / 2:g}" y1="{ay + tall:g}" x2="{bx + box / 2:g}" y2="{by:g}" '
            'stroke="#555" marker-end="url(#tip)"/>'
        )
    for stop in STOPS:
        x, y = corner(stop)
        lines += [
            f'<rect x="{x:g}" y="{y:g}" width="{box}" height="{tall}" rx="6" fill="{stop.colour}" '
            'stroke="#888"/>',
            f'<text x="{x + 10:g}" y="{y + 17:g}" font-weight="bold">{stop.title}</text>',
            f'<text x="{x + 10:g}" y="{y + 33:g}" fill="#333">{stop.what}</text>',
            f'<text x="{x + 10:g}" y="{y + 49:g}" font-family="monospace" font-size="10.5" '
            f'fill="#444">{stop.where}</text>',
        ]
    for text, column in (("cka", 0.02), ("every other measure", 0.98)):
        anchor = "start" if column < 0.5 else "end"
        place = f'x="{width * column:g}" y="{height * 7 + 4}" text-anchor="{anchor}"'
        lines.append(f'<text {place} fill="#777">{text}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Draws, or compares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail unless the picture is current")
    if not parser.parse_args().check:
        IMAGE.write_text(svg())
    elif IMAGE.read_text() != svg():
        sys.exit(f"{IMAGE} is not that of this code: python docs/draw_architecture.py")


if __name__ == "__main__":
    main()
