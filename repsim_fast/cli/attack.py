"""`repsim-fast attack`: how robust a trained network is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from repsim_fast import attacks
from repsim_fast._core.files import check_writable, replacing
from repsim_fast.training import Accuracy, evaluate

from .errors import Interrupted
from .options import DataSpec, Device, Seed, Size, Threads, choose_device, describe
from .tables import format_table
from .threads import choose_threads

# Radii that papers on CIFAR-10 report.
_RADIUS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
_ATTACKS: dict[str, Callable[..., Any]] = {
    "pgd": attacks.PGD,
    "fgsm": attacks.FGSM,
    "rs-fgsm": attacks.RSFGSM,
    "n-fgsm": attacks.NFGSM,
    "mi-fgsm": attacks.MIFGSM,
    "apgd": attacks.APGD,
    "apgd-dlr": lambda eps, **options: attacks.APGD(eps, loss="dlr", **options),
    "apgd-t": attacks.APGDTargeted,
    "autoattack": attacks.AutoAttack,
}
_ONE_STEP = ("fgsm", "rs-fgsm", "n-fgsm")
_RESTARTED = ("pgd", "apgd", "apgd-dlr", "apgd-t")


def _radius(text: str | float) -> float:
    """A positive radius from "8/255" or "0.5"."""
    try:
        value = float(Fraction(str(text)))
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if not value > 0:
        raise typer.BadParameter(
            f"expected a number above 0 or a fraction such as 8/255, got {text!r}"
        )
    return value


def attack(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", show_default=False, help="What `repsim-fast train` wrote."
        ),
    ],
    data: DataSpec,
    attack: Annotated[
        str, typer.Option(metavar="NAME", help=f"Attack: {', '.join(_ATTACKS)}.")
    ] = "apgd",
    norm: Annotated[str, typer.Option(metavar="NAME", help="'linf', 'l2' or 'l1'.")] = "linf",
    eps: Annotated[
        float | None,
        typer.Option(
            parser=_radius,
            metavar="RADIUS",
            show_default=False,
            help="How far the attack may go in that norm, where black is 0 and white is 1 "
            "(default: 8/255 for linf, 0.5 for l2, 12 for l1).",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Steps (default: the attack's, 10 of pgd, 100 of apgd)."
        ),
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs, of which the worst counts.")
    ] = 1,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Fold BatchNorm and put channels last while attacking: the same up to rounding.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to save the adversarial images, *.safetensors (default: nowhere).",
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="'test' or 'train' images.")] = "test",
    size: Size = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Use only N images, drawn at random."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images at a time.")] = 128,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Measure a network's accuracy on images as they are and under an attack.

    An image counts as robust if the network gets it right both ways; its answers are always those
    of the network as it is. With --out, FILE holds the adversarial images, their labels and which
    of them the network withstood.

    \b
    Examples:
      repsim-fast attack robust.safetensors --data digits --eps 0.1
      repsim-fast attack robust.safetensors --data cifar10:data --attack pgd --steps 50 \\
          --restarts 10 --limit 1000 --out attacked.safetensors
    """
    from repsim_fast.data import load
    from repsim_fast.models import load_checkpoint

    if out is not None and out.suffix != ".safetensors":
        raise ValueError(f"--out must be a name that ends in .safetensors, got {str(out)!r}")
    if out is not None:
        if out.is_dir():
            raise OSError(f"cannot write {str(out)!r}: it is a folder")
        check_writable(out.parent)
    radius = _RADIUS.get(norm, 0.0) if eps is None else eps
    built = _build(attack, norm=norm, eps=radius, steps=steps, restarts=restarts, fast=fast,
                   seed=seed)  # fmt: skip
    where = choose_device(device)
    threads_used = choose_threads(threads)
    network, header = load_checkpoint(checkpoint)
    progress = sys.stderr.isatty()
    images = load(data, split, size=size, limit=limit, seed=seed, progress=progress)
    if header["in_channels"] != images.images.shape[1]:
        raise ValueError(
            f"{checkpoint} takes images with {header['in_channels']} channels, {images.name} has "
            f"{images.images.shape[1]}"
        )
    network.to(where)
    typer.echo(
        f"attacking {checkpoint} on {describe(images)} with {built!r}; device {where}, "
        f"{threads_used}"
    )
    found: list[tuple[Tensor, Tensor]] = []
    try:
        accuracy = evaluate(
            network,
            images,
            built,
            batch_size=batch_size,
            device=where,
            progress=progress,
            on_batch=lambda adv, right: found.append((adv.cpu(), right.cpu())) if out else None,
        )
    except KeyboardInterrupt:
        raise Interrupted("interrupted; a smaller --limit or fewer --steps take less") from None
    typer.echo(f"\n{format_table(_rows(accuracy))}")
    if out is not None:
        about = {
            "checkpoint": str(checkpoint),
            "data": describe(images),
            "attack": attack,
            "norm": norm,
            "eps": radius,
            "steps": steps,
            "restarts": restarts,
            "seed": seed,
            "clean_accuracy": accuracy.clean,
            "robust_accuracy": accuracy.robust,
        }
        _save(out, found, images.labels, about)
        typer.echo(f"\nwrote {out}: images, labels and robust of {accuracy.n:,} images")


def _build(
    name: str, *, norm: str, eps: float, steps: int | None, restarts: int, fast: bool, seed: int
) -> Any:
    """The attack, from what of the command line it takes.

    Raises:
        ValueError: No such attack or norm, or an option that the attack does not have.
    """
    if name not in _ATTACKS:
        raise ValueError(f"--attack must be one of {', '.join(_ATTACKS)}, got {name!r}")
    if norm not in _RADIUS:
        raise ValueError(f"--norm must be one of {', '.join(_RADIUS)}, got {norm!r}")
    options: dict[str, Any] = {"norm": norm, "seed": seed}
    options["execution"] = "fast" if fast else "exact"
    if steps is not None:
        if name in _ONE_STEP:
            raise ValueError(f"--steps: {name} has a fixed number of steps")
        options["steps"] = steps
    if restarts > 1:
        if name not in _RESTARTED:
            raise ValueError(f"--restarts: only for {', '.join(_RESTARTED)}, got {name!r}")
        options["restarts"] = restarts
    return _ATTACKS[name](eps, **options)


def _rows(accuracy: Accuracy) -> list[dict[str, Any]]:
    rows = []
    for name, robust in (("as they are", False), ("attacked", True)):
        low, high = accuracy.interval(robust=robust)
        rows.append(
            {
                "images": name,
                "accuracy": accuracy.robust if robust else accuracy.clean,
                "95 % interval": f"{low:.3f} to {high:.3f}",
                "n": accuracy.n,
            }
        )
    return rows


def _save(
    path: Path, found: list[tuple[Tensor, Tensor]], labels: Tensor, about: dict[str, Any]
) -> None:
    from safetensors.torch import save_file

    tensors = {
        "images": torch.cat([images for images, _ in found]).contiguous(),
        "labels": labels.cpu().contiguous(),
        "robust": torch.cat([right for _, right in found]),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"repsim_fast_attack": json.dumps(about)})
