"""Public architectures compared by default settings, each held against float64.

    python benchmarks/architectures/run.py --no-times
    python docs/update_architectures.py

Every architecture is built from its configuration, twice with random weights, without a network;
`compare` runs both over two batches of 12. Its values, of all pairs of layers, are held against CKA
in float64 of what the layers return (oracle.py). The ratio is to the forward passes of both models,
by the process's own time. An architecture whose package is not installed is listed as not run.

`--only resnet` runs those with the word in their names; rows of others stay.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from timing import Row, machine, machine_name, merged, side_by_side, write_json  # noqa: E402

from benchmarks.architectures import oracle, others, transformers_models, vision, wrapped  # noqa: E402
from benchmarks.architectures.case import BATCHES, Case  # noqa: E402
from repsim_fast import compare  # noqa: E402

GROUPS = {
    "torchvision": vision.torchvision_cases,
    "timm": vision.timm_cases,
    "transformers": transformers_models.transformers_cases,
    "diffusers": others.diffusers_cases,
    "graphs": others.graph_cases,
    "torch": others.torch_cases,
    "wrapped": wrapped.wrapped_cases,
}
RESULTS = ROOT / "benchmarks" / "results"


def all_cases() -> list[tuple[str, Case]]:
    """Every case with its group."""
    return [(group, case) for group, cases in GROUPS.items() for case in cases()]


def measured(group: str, case: Case, *, times: bool) -> Row:
    """The row of an architecture: what came out, or why nothing did."""
    row: Row = {"case": f"{group}: {case.name}", "group": group, "name": case.name}
    row["package"] = case.package
    if importlib.util.find_spec(case.package) is None:
        return {**row, "not_run": f"{case.package} is not installed"}
    try:
        return {**row, **figures(case, times=times)}
    except Exception as error:
        traceback.print_exc(limit=-4)
        return {**row, "failed": f"{type(error).__name__}: {error}".partition("\n")[0][:400]}


def figures(case: Case, *, times: bool) -> Row:
    """Compare two networks of random weights, and hold the values against float64."""
    models = [built(case, seed) for seed in (0, 1)]
    generator = torch.Generator().manual_seed(2)
    batches = [case.batch(generator) for _ in range(BATCHES)]
    for model in models:
        calibrate(model, batches[0], case.forward or plainly)

    def ours() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are in the result's notes
            return compare(models, batches, names=["a", "b"], forward=case.forward)

    result = ours()
    layers = result.layers
    inner = [unwrapped(model) for model in models]
    forward = case.forward or plainly
    with in_eval(inner), module_by_module():
        truth = oracle.cka(inner, layers, batches, forward)
    value = torch.as_tensor(result.value)
    undefined = ~value.isfinite()
    row: Row = {
        "layers": len(layers[0]),
        "cells": value.numel(),
        "undefined": int(undefined.sum()),
        "max_error": float((value - truth)[~undefined].abs().max()),
        "notes": list(result.notes),
    }
    if times:
        alternatives = {"forwards": lambda: forwards(inner, batches, forward), "compare": ours}
        with in_eval(inner), module_by_module():
            spent = side_by_side(alternatives, rounds=3, warmup=1, clock=process_time)
        row["forwards"], row["compare"] = (spent[name].row() for name in alternatives)
        row["ratio_to_forwards"] = spent["compare"].median / spent["forwards"].median
    return row


def built(case: Case, seed: int) -> nn.Module:
    """The network with weights of a seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about themselves
        torch.manual_seed(seed)
        return case.build()


def calibrate(model: nn.Module, batch: Any, forward: Any) -> None:
    """Give batch norms the statistics of a batch: with those that they begin with, activations of
    deep networks fade until nothing but rounding is left of them."""
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad(), module_by_module():
        forward(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def plainly(model: nn.Module, batch: Any) -> Any:
    """A call of the model on its inputs."""
    return model(**batch) if isinstance(batch, Mapping) else model(batch)


def forwards(models: list[nn.Module], batches: list[Any], forward: Any) -> None:
    """The passes alone."""
    with torch.inference_mode():
        for batch in batches:
            for model in models:
                forward(model, batch)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module whose layers have the names that the result has."""
    if isinstance(model, nn.DataParallel):
        return model.module
    return getattr(model, "_orig_mod", model)


@contextlib.contextmanager
def in_eval(models: list[nn.Module]) -> Iterator[None]:
    """Models as `compare` runs them."""
    for model in models:
        model.eval()
    yield


@contextlib.contextmanager
def module_by_module() -> Iterator[None]:
    """Nothing compiled or fused, so that every layer is called."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def shown(row: Row) -> str:
    """A line for the terminal."""
    if "not_run" in row or "failed" in row:
        return f"{row['case']}: {row.get('not_run') or 'FAILED ' + row['failed']}"
    ratio = f", {row['ratio_to_forwards']:.2f} x forwards" if "ratio_to_forwards" in row else ""
    return (
        f"{row['case']}: {row['layers']} layers, error {row['max_error']:.1e}, "
        f"{row['undefined']} undefined of {row['cells']}{ratio}"
    )


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    names = ("torchvision", "timm", "transformers", "diffusers", "torch_geometric", "peft")
    found = (name for name in (*names, "accelerate") if importlib.util.find_spec(name))
    return {name: importlib.metadata.version(name) for name in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="word in the name of a group or architecture")
    parser.add_argument("--no-times", action="store_true", help="values alone")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<machine>")
    given = parser.parse_args()
    torch.set_num_threads(1)
    out = given.out or RESULTS / machine_name() / "architectures.json"
    where = {**machine(), **versions()}
    failed = False
    for group, case in all_cases():
        if given.only.lower() in f"{group}: {case.name}".lower():
            row = measured(group, case, times=not given.no_times)
            failed |= "failed" in row
            print(shown(row), flush=True)
            held = json.loads(out.read_text()) if out.exists() else None
            write_json(out, merged(held or {"machine": where, "rows": []}, where, [row]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
