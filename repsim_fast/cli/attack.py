"""`repsim-fast attack`: how robust a trained network is."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from repsim_fast._core.locks import only_writer
from repsim_fast._core.tensor_files import write_tensors

from .attack_setup import (
    AttackNames,
    BatchSize,
    Checkpoint,
    Fast,
    Limit,
    Norm,
    Out,
    Radius,
    Restarts,
    Steps,
    attack_names,
    build_attack,
    radius_of,
)
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
)
from .tables import format_table
from .threads import choose_threads

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from repsim_fast.data import ImageData
    from repsim_fast.training import Accuracy


def attack(
    checkpoint: Checkpoint,
    data: DataSpec,
    attack: AttackNames = "apgd",
    norm: Norm = "linf",
    eps: Radius = None,
    steps: Steps = None,
    restarts: Restarts = 1,
    fast: Fast = False,
    out: Out = None,
    split: Split = "test",
    size: Size = None,
    limit: Limit = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = 128,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Measure a network's accuracy on images as they are and under an attack.

    An image counts as robust if the network gets it right both ways; its answers are always those
    of the network as it is. Several attacks have an accuracy each. With --out, FILE holds the
    adversarial images of one attack, their labels and which of them the network withstood.

    \b
    Examples:
      repsim-fast attack robust.safetensors --data digits --eps 0.1
      repsim-fast attack robust.safetensors --data cifar10:data --attack pgd --steps 50 \\
          --restarts 10 --limit 1000 --out attacked.safetensors
      repsim-fast attack robust.safetensors --data digits --attack fgsm,pgd,apgd --eps 0.1
    """
    from repsim_fast.data import load

    from .models import check_channels, numbered_for, say_as_they_are, size_for
    from .models import load as load_network

    if out is not None:
        check_out(out, ".safetensors")
    radius = radius_of(norm, eps)
    names = attack_names("--attack", attack)
    if out is not None and len(names) > 1:
        raise ValueError(f"--out: holds the images of one attack, got {', '.join(names)}")
    built = {
        name: build_attack(
            name, norm=norm, eps=radius, steps=steps, restarts=restarts, fast=fast, seed=seed
        )
        for name in names
    }
    with contextlib.nullcontext() if out is None else only_writer(out):
        where, threads_used = choose_device(device), choose_threads(threads)
        network, header = load_network(checkpoint, (parse_channels(mean), parse_channels(std)))
        network.to(where)
        size = size_for({checkpoint: header}) if size is None else size
        images = load(data, split, size=size, limit=limit, seed=seed, progress=sys.stderr.isatty())
        check_channels(checkpoint, header, images)
        images = numbered_for(checkpoint, header, images)
        say_as_they_are(checkpoint, header, images)
        typer.echo(
            f"attacking {checkpoint} on {describe(images)} with "
            f"{', '.join(map(repr, built.values()))}; device {where}, {threads_used}"
        )
        accuracy, found = _attacked(network, images, built, batch_size, where, keep=out is not None)
        typer.echo(f"\n{format_table(_rows(accuracy))}")
        if out is not None:
            about = {"attack": attack, "norm": norm, "eps": radius, "steps": steps}
            about |= {"restarts": restarts, "seed": seed, "checkpoint": checkpoint}
            _save(out, found, images, accuracy, about)
            typer.echo(f"\nwrote {out}: images, labels and robust of {accuracy.n:,} images")


def _attacked(
    network: nn.Module,
    images: ImageData,
    attacks: Mapping[str, Any],
    batch_size: int,
    device: torch.device,
    *,
    keep: bool,
) -> tuple[Accuracy, list[tuple[Tensor, Tensor]]]:
    """Accuracies and, to ``keep``, each batch's adversarial images and which were withstood."""
    from repsim_fast.training import evaluate

    found: list[tuple[Tensor, Tensor]] = []

    def keep_batch(adv: Tensor, right: Tensor) -> None:
        found.append((adv.cpu(), right.cpu()))

    try:
        accuracy = evaluate(
            network,
            images,
            attacks,
            batch_size=batch_size,
            device=device,
            progress=sys.stderr.isatty(),
            on_batch=keep_batch if keep else None,
        )
    except KeyboardInterrupt:
        raise Interrupted("interrupted; a smaller --limit or fewer --steps take less") from None
    return accuracy, found


def _rows(accuracy: Accuracy) -> list[dict[str, Any]]:
    """Those of the images as they are and under each attack."""
    from repsim_fast.analysis.estimates import wilson_interval

    shares = {"as they are": accuracy.clean}
    for name, share in accuracy.under.items():
        shares["attacked" if len(accuracy.under) == 1 else name] = share
    rows = []
    for name, share in shares.items():
        low, high = wilson_interval(share, accuracy.n)
        interval = f"{low:.3f} to {high:.3f}"
        rows.append({"images": name, "accuracy": share, "95 % interval": interval, "n": accuracy.n})
    return rows


def _save(
    path: Path,
    found: list[tuple[Tensor, Tensor]],
    images: ImageData,
    accuracy: Accuracy,
    about: dict[str, Any],
) -> None:
    import torch

    tensors = {
        "images": torch.cat([batch for batch, _ in found]).contiguous(),
        "labels": images.labels.cpu().contiguous(),
        "robust": torch.cat([right for _, right in found]),
    }
    about |= {
        "data": describe(images),
        "clean_accuracy": accuracy.clean,
        "robust_accuracy": accuracy.robust,
    }
    write_tensors(path, tensors, {"repsim_fast_attack": json.dumps(about)})
