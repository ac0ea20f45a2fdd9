"""`repsim-fast certify`: how robust a network provably is, smoothed or by bounds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repsim_fast._core.files import replacing
from repsim_fast._core.locks import only_writer

from . import certify_bounds as bounded
from .attack_setup import Checkpoint, Limit
from .certify_known import keep, known
from .errors import Interrupted
from .options import (
    DataSpec,
    Device,
    Mean,
    Seed,
    Size,
    Split,
    Std,
    Threads,
    check_out,
    choose_device,
    describe,
    parse_channels,
    typed_options,
)
from .ramps import number
from .tables import format_table
from .threads import choose_threads

if TYPE_CHECKING:
    import torch
    from torch import nn

    from repsim_fast.data import ImageData
    from repsim_fast.verification import Certificates, CertifiedAccuracy

_COPIES = 1000
Sigma = Annotated[
    float | None,
    typer.Option(
        metavar="SIGMA",
        help="Standard deviation of the noise, where black is 0 and white is 1 (default: that of "
        "the training, where its method has one).",
    ),
]
Draws = Annotated[int, typer.Option("--n", min=1, metavar="N", help="Noisy copies that certify.")]
Choosing = Annotated[
    int, typer.Option("--n0", min=1, metavar="N", help="Noisy copies that choose the class.")
]
Alpha = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Probability that an image's certificate is wrong."),
]
Radii = Annotated[
    str, typer.Option(metavar="RADII", help="L2 radii of the table, with commas between them.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        show_default=False,
        help=f"Noisy copies at a time (default: {_COPIES}), with bounds images "
        f"(default: {bounded.IMAGES}).",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where to save the table and each image's certificate, *.json (default: nowhere).",
    ),
]


def certify(
    context: typer.Context,
    checkpoint: Checkpoint,
    data: DataSpec,
    method: bounded.MethodName = "smoothing",
    eps: bounded.Eps = None,
    chunk: bounded.Chunk = bounded.CHUNK,
    resume: bounded.Resume = None,
    sigma: Sigma = None,
    n: Draws = 10_000,
    n0: Choosing = 100,
    alpha: Alpha = 0.001,
    radii: Radii = "0,0.25,0.5,0.75,1",
    out: Out = None,
    split: Split = "test",
    size: Size = None,
    limit: Limit = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Certify a network: no attack within a radius changes its answer.

    By smoothing, the answer is the class that the network gives most often to copies of an image
    with Gaussian noise; the table has the share of images whose answer is right and certified at
    each L2 radius. Train with --method noise or smoothing at the same SIGMA. With --out, FILE also
    holds each image's label, answer (-1: none is certified) and radius.

    By bounds of the network itself (ibp, crown-ibp, crown: each tighter and slower than the one
    before), it is the share of images that no image within EPS in linf can turn into another
    class. Train with --method ibp or crown-ibp.

    \b
    Examples:
      repsim-fast train --data digits --model resnet-digits --method noise \\
          --method-option sigma=0.25 --out noise.safetensors
      repsim-fast certify noise.safetensors --data digits --n 1000 --limit 100 --out radii.json
      repsim-fast certify bounded.safetensors --data digits --method crown-ibp --eps 0.05 \\
          --resume known.json --out verified.json
    """
    from repsim_fast.data import load as load_images
    from repsim_fast.verification import certified_accuracy as accuracy_at

    from .models import check_channels, load, numbered_for, size_for

    bounded.check_typed(method, typed_options(context))
    at = _radii(radii)
    if resume is not None:
        check_out(resume, ".json", "--resume")
    if out is not None:
        check_out(out, ".json")
        if resume is not None and resume.resolve() == out.resolve():
            raise ValueError(f"--resume and --out must be two files, got {str(out)!r} for both")
    with contextlib.nullcontext() if out is None else only_writer(out):
        where, threads_used = choose_device(device), choose_threads(threads)
        network, header = load(checkpoint, (parse_channels(mean), parse_channels(std)))
        radius = None if method == "smoothing" else bounded.radius_of(eps, header)
        noise = _sigma(sigma, header) if radius is None else 0.0
        size = size_for({checkpoint: header}) if size is None else size
        images = load_images(
            data, split, size=size, limit=limit, seed=seed, progress=sys.stderr.isatty()
        )
        check_channels(checkpoint, header, images)
        images = numbered_for(checkpoint, header, images)
        about: dict[str, Any] = {"checkpoint": checkpoint, "data": describe(images)}
        if radius is not None:
            how = {"method": method, "eps": radius, "chunk": chunk, "batch_size": batch_size}
            bounded.verify(network, images, where, how, about, resume=resume, out=out)
            return
        settings = {
            "sigma": noise, "n": n, "n0": n0, "alpha": alpha, "batch_size": batch_size or _COPIES,
            "seed": seed,
        }  # fmt: skip
        typer.echo(
            f"certifying {checkpoint} on {describe(images)} with noise of sigma {noise:g}, {n:,} "
            f"copies an image; device {where}, {threads_used}"
        )
        found = _certified(network.to(where), images, where, settings, resume)
        accuracy = accuracy_at(found, images.labels.cpu(), at)
        typer.echo(f"\n{format_table(_rows(accuracy))}")
        typer.echo(f"\nwithout an answer  {accuracy.abstained:.3f} of {accuracy.n:,} images")
        if out is not None:
            _save(out, {**about, **settings}, accuracy, found, images)
            typer.echo(f"wrote {out}")


def _radii(text: str) -> list[float]:
    try:
        found = [float(number(part.strip())) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--radii: {error}") from None
    if min(found) < 0:
        raise ValueError(f"--radii must not be negative, got {text!r}")
    return found


def _sigma(given: float | None, header: dict[str, Any]) -> float:
    """The noise asked for, or the training's."""
    sigma = header.get("method_options", {}).get("sigma") if given is None else given
    if sigma is None:
        raise ValueError(
            "--sigma: say how much noise, since the network's training "
            f"(method {header.get('method', 'unknown')!r}) names none"
        )
    return float(sigma)


def _certified(
    network: nn.Module,
    images: ImageData,
    device: torch.device,
    settings: dict[str, Any],
    resume: Path | None,
) -> Certificates:
    """The certificates of all images, a few at a time, each of which a file may keep."""
    import torch
    from tqdm import tqdm

    from repsim_fast.verification import Certificates
    from repsim_fast.verification import certify as certificates_of

    # One stream of noise for all of them.
    generator = torch.Generator(device).manual_seed(settings["seed"])
    how = {**settings, "seed": generator}
    at_once = max(1, settings["batch_size"] // settings["n"])
    about = _about(network, images, device, settings)
    bar = tqdm(total=len(images), desc="certify", unit="img", disable=not sys.stderr.isatty())
    with contextlib.nullcontext() if resume is None else only_writer(resume), bar:
        prediction, radius = known(resume, about, generator)
        bar.update(len(prediction))
        try:
            for first in range(len(prediction), len(images), at_once):
                x, _ = images.take(slice(first, first + at_once))
                part = certificates_of(network, x.to(device), **how)
                prediction += part.prediction.tolist()
                radius += part.radius.tolist()
                if resume is not None:
                    keep(resume, about, prediction, radius, generator)
                bar.update(len(x))
        except KeyboardInterrupt:
            on = "give --resume FILE to keep what is known" if resume is None else "the same again"
            raise Interrupted(
                f"interrupted; to go on: {on}; a smaller --limit or fewer copies (--n) take less"
            ) from None
    return Certificates(
        torch.tensor(prediction), torch.tensor(radius, dtype=torch.float64), settings["alpha"]
    )


def _about(
    network: nn.Module, images: ImageData, device: torch.device, settings: dict[str, Any]
) -> str:
    """What certificates depend on."""
    from repsim_fast._core.model_state import plain_attributes
    from repsim_fast.data.fingerprint import digest_of

    parts = [(name, type(m), *plain_attributes(m)) for name, m in network.named_modules()]
    layers = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    weights = digest_of([*network.parameters(), *network.buffers()])
    digests = {"network": f"{layers} {weights}", "images": digest_of([images.images])}
    return json.dumps({**settings, **digests, "device": device.type})


def _rows(accuracy: CertifiedAccuracy) -> list[dict[str, Any]]:
    columns: Sequence[Any] = (accuracy.radii, accuracy.accuracy, accuracy.low, accuracy.high)
    return [
        {
            "L2 radius": f"{radius:g}",
            "certified accuracy": float(share),
            "95 % interval": f"{low:.3f} to {high:.3f}",
        }
        for radius, share, low, high in zip(*columns, strict=True)
    ]


def _save(
    path: Path,
    about: dict[str, Any],
    accuracy: CertifiedAccuracy,
    found: Certificates,
    images: ImageData,
) -> None:
    table = {
        name: value if isinstance(value, int | float) else value.tolist()
        for name, value in asdict(accuracy).items()
    }
    of_images = {
        "label": images.labels.tolist(),
        "prediction": found.prediction.tolist(),
        "radius": found.radius.tolist(),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**about, "certified": table, "images": of_images}) + "\n")
