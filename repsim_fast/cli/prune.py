"""`repsim-fast prune`: a checkpoint without its least important weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from repsim_fast._core.locks import only_writer

from .attack_setup import Checkpoint
from .options import check_out
from .tables import format_table

if TYPE_CHECKING:
    from torch import nn

    from repsim_fast.pruning import Report

Sparsity = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of the weights to prune, in [0, 1).")
]
Out = Annotated[
    Path, typer.Option(metavar="FILE", help="Where to save the network, *.safetensors.")
]
CriterionName = Annotated[
    Literal["magnitude", "filters"],
    typer.Option(
        help="What goes: weights of the smallest magnitude, or filters of the smallest L1 norm."
    ),
]
ScopeName = Annotated[
    Literal["layer", "global"],
    typer.Option(help="The same share of each layer, or the smallest of all layers together."),
]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="A layer to prune; may be given several times (default: all)."
    ),
]

# What the header says of how well the weights did before, of their bytes and earlier pruning.
_OF_DENSE = ("clean_accuracy", "robust_accuracy", "attack", "checksum", "epoch", "pruned")


def prune(
    checkpoint: Checkpoint,
    sparsity: Sparsity,
    out: Out,
    criterion: CriterionName = "magnitude",
    scope: ScopeName = "layer",
    layer: Layer = None,
) -> None:
    """Prune a network's weights; the file is an ordinary checkpoint, with zeros.

    Trained further, by train --init FILE, what is pruned stays 0 (unless --no-keep-zeros). Of a
    network that was pruned before, --sparsity is the share in the end: what is pruned stays so.

    \b
    Examples:
      repsim-fast prune robust.safetensors --sparsity 0.9 --out compact.safetensors
      repsim-fast prune robust.safetensors --sparsity 0.5 --criterion filters --out half.safetensors
      repsim-fast train --data digits --init compact.safetensors --method pgd --eps 0.15 \\
          --out tuned.safetensors
    """
    from repsim_fast import pruning
    from repsim_fast.models import save_checkpoint

    from .models import load

    check_out(out, ".safetensors")
    if out.resolve() == Path(checkpoint).resolve():
        raise ValueError(f"--out must be another file than CHECKPOINT, got {checkpoint!r} for both")
    with only_writer(out):
        network, header = load(checkpoint)
        if "weights" in header:
            raise ValueError(f"CHECKPOINT must be one of `repsim-fast train`, got {checkpoint!r}")
        dense, _ = load(checkpoint)
        if further := "pruned" in header and _has_zeros(network):
            pruning.hold_zeros(network)
        pruning.prune(
            network, sparsity, criterion=criterion, scope=scope, layers=layer, further=further
        )
        dense.load_state_dict(pruning.apply(network))
        how = {"sparsity": sparsity, "criterion": criterion, "scope": scope, "layers": layer}
        save_checkpoint(out, dense, **_kept(header), pruned=how)
    left = pruning.report(dense)
    typer.echo(format_table(_rows(left)))
    typer.echo(
        f"{left.kept:,} of {left.weights:,} weights left, {left.compressed_bytes:,} of "
        f"{left.dense_bytes:,} bytes in compressed form\nsaved {out}"
    )


def _kept(header: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in header.items() if name not in _OF_DENSE}


def _has_zeros(network: nn.Module) -> bool:
    from repsim_fast import pruning

    left = pruning.report(network)
    return left.kept < left.weights


def _rows(left: Report) -> list[dict[str, Any]]:
    return [
        {
            "layer": layer.name,
            "weights": layer.weights,
            "left": layer.kept,
            "sparsity": layer.sparsity,
            "bytes": layer.compressed_bytes,
        }
        for layer in left.layers
    ]
