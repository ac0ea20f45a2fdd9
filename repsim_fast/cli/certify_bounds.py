"""What `repsim-fast certify` does with bounds of the network itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from repsim_fast._core.files import replacing

from . import ramps
from .attack_setup import parse_radius
from .errors import Interrupted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from repsim_fast.data import ImageData

IMAGES = 32
CHUNK = 256

MethodName = Annotated[
    Literal["smoothing", "ibp", "crown-ibp", "crown"],
    typer.Option(help="Randomised smoothing, or bounds: intervals or linear ones."),
]
Eps = Annotated[
    float | None,
    typer.Option(
        parser=parse_radius,
        metavar="RADIUS",
        show_default=False,
        help="With bounds: linf radius, where black is 0 and white is 1 (default: that of the "
        "training, where its method has one).",
    ),
]
Chunk = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="With crown: neurons at a time, of which fewer take less memory."
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keeps what is known of each image, *.json; one that exists is gone on with "
        "(default: nothing is kept).",
    ),
]
_OF_SMOOTHING = {"sigma", "n", "n0", "alpha", "radii"}
_OF_BOUNDS = {"eps", "chunk"}


def check_typed(method: str, typed: set[str]) -> None:
    """That no option was typed that says nothing to the method.

    Raises:
        ValueError: One was.
    """
    wrong = _OF_BOUNDS if method == "smoothing" else _OF_SMOOTHING
    for option in sorted(wrong & typed):
        raise ValueError(f"--{option}: method {method!r} has none")


def radius_of(eps: float | None, header: Mapping[str, Any]) -> float:
    """The radius asked for, or that at the end of the training.

    Raises:
        ValueError: Neither.
    """
    of_training = header.get("method_options", {}).get("eps")
    if eps is None and header.get("method_options", {}).get("norm", "linf") == "linf":
        if isinstance(of_training, str):
            return ramps.ramp(of_training).stop
        eps = of_training
    if eps is None:
        raise ValueError(
            "--eps: say how far an attack may go, since the network's training "
            f"(method {header.get('method', 'unknown')!r}) names no linf radius"
        )
    return float(eps)


def verify(
    network: nn.Module,
    images: ImageData,
    device: torch.device,
    how: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    resume: Path | None,
    out: Path | None,
) -> None:
    """Verified accuracy on the screen and, with ``out``, in a file."""
    from repsim_fast.verification import verified_accuracy

    settings = {**how, "batch_size": how["batch_size"] or IMAGES}
    typer.echo(
        f"verifying {about['checkpoint']} on {about['data']} by {how['method']} within linf "
        f"{how['eps']:g}; device {device}"
    )
    try:
        found = verified_accuracy(
            network, images, device=device, progress=sys.stderr.isatty(), resume=resume, **settings
        )
    except KeyboardInterrupt:
        on = "give --resume FILE to keep what is known" if resume is None else "the same again"
        raise Interrupted(f"interrupted; to go on: {on}") from None
    typer.echo(
        f"\nclean accuracy     {found.clean:.3f} ({found.n:,} images)\n"
        f"verified accuracy  {found.verified:.3f} (95 % interval {found.low:.3f} to "
        f"{found.high:.3f})"
    )
    if out is not None:
        with replacing(out) as temporary:
            content = {**about, **settings, "accuracy": asdict(found)}
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        typer.echo(f"wrote {out}")
