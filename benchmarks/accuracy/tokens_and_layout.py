"""What features of padding, of the wrong dimension, of parts of layers and of rows that are no
samples did to values: before and after, beside the truth.

    python benchmarks/accuracy/tokens_and_layout.py --before CHECKOUT \
        --out benchmarks/results/accuracy/tokens_and_layout.json

CHECKOUT is a working tree of an earlier version, compiled: each case runs with both. The truth is
written out in float64, from features that are taken by hand.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VALUES = "REPSIM_FAST_VALUES_OF"  # the checkout whose values a process is to print
sys.path[:0] = [os.environ.get(VALUES, str(ROOT)), str(ROOT)]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.timing import machine, side_by_side, write_json  # noqa: E402
from python_tests.support.capture_networks import seeded  # noqa: E402
from python_tests.support.row_networks import Experts, Siamese, TimeFirst, Windows  # noqa: E402
from python_tests.support.sentences import Encoder, padded, sentences  # noqa: E402
from python_tests.support.wrapped_layers import GCN, Adapted  # noqa: E402
from python_tests.support.written_out import debiased_cka  # noqa: E402
from repsim_fast import compare  # noqa: E402
from repsim_fast.capture import Capture  # noqa: E402

Values = dict[str, Any]
NEW = "mask" in inspect.signature(compare).parameters


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padding() -> Values:
    """Two encoders on the same 64 sentences of 3 to 20 tokens, each token a sample."""
    texts = sentences(64, longest=20)
    models = {name: seeded(Encoder, seed).eval() for seed, name in enumerate("ab")}
    values = {
        f"padded to {length} tokens": compare(
            models, [padded(texts, length)], layers="norm", maps="tokens" if NEW else "positions"
        )
        .between("a", "b")
        .value.item()
        for length in (24, 48, 96)
    }

    def tokens(model: nn.Module) -> Tensor:
        found = []
        for text in texts:
            with torch.no_grad(), Capture(model, "norm", maps=None) as capture:
                model(text[None], torch.ones(1, len(text)))
            found.append(capture.activations["norm"][0])
        return torch.cat(found)

    truth = debiased_cka(*(tokens(model) for model in models.values()))
    return {"values": values, "truth": dict.fromkeys(values, truth)}


def layout(name: str) -> Values:
    """Largest and mean error of the cells of two networks, pooled."""
    from torchvision import models as vision

    networks = {
        label: seeded(getattr(vision, name), seed).eval() for seed, label in ((0, "a"), (1, "b"))
    }
    images = numbers(64, 3, 64, 64)
    grid = compare(networks, [images], maps="pool").between("a", "b")
    pooled: dict[str, dict[str, Tensor]] = {}
    for label, model in networks.items():
        with torch.no_grad(), Capture(model, list(grid.rows), maps=None) as capture:
            model(images)
        pooled[label] = {
            layer: x if x.ndim == 2 else x.mean((2, 3) if channels_first(name, layer) else (1, 2))
            for layer, x in capture.activations.items()
        }
    errors = torch.tensor(
        [
            abs(grid.value[i, j] - debiased_cka(pooled["a"][row], pooled["b"][column]))
            for i, row in enumerate(grid.rows)
            for j, column in enumerate(grid.columns)
        ]
    )
    values = {"largest error of a cell": float(errors.max()), "mean error": float(errors.mean())}
    return {"values": values, "truth": dict.fromkeys(values, 0.0)}


def channels_first(network: str, layer: str) -> bool:
    """By the code of torchvision's networks."""
    path = layer.split(".")
    if network.startswith("swin"):
        return layer == "features.0.0" or path[0] in ("permute", "avgpool")
    return "block" not in path or path[-1] not in ("1", "2", "3", "4", "5")


def adapter() -> Values:
    """The same projection with two adapters, as the default selection takes it."""
    base = seeded(lambda: nn.Linear(6, 5))
    networks = {}
    for seed, label in ((1, "a"), (2, "b")):
        networks[label] = nn.Sequential(seeded(lambda: Adapted(base), seed))
        factors = [*networks[label][0].down.parameters(), *networks[label][0].up.parameters()]
        for factor in factors:
            nn.init.normal_(factor, generator=torch.Generator().manual_seed(seed))
    x = numbers(256, 6)
    value = compare(networks, [x]).between("a", "b").value[0, 0]
    with torch.no_grad():
        truth = debiased_cka(*(network.eval()(x) for network in networks.values()))
    return {"values": {"first layer": value}, "truth": {"first layer": truth}}


def compared(model: nn.Module, batch: Any) -> tuple[str, ...]:
    """Layers that are compared by default; none where that is an error."""
    try:
        return compare([model], [batch]).layers[0]
    except ValueError as error:
        if "no layer of model" not in str(error):
            raise
        return ()


def layers_by_default() -> Values:
    """How many of the layers that the network uses are compared."""
    linear = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    quantised = torch.ao.quantization.quantize_dynamic(linear.eval(), {nn.Linear})
    links = torch.rand(40, 40, generator=torch.Generator().manual_seed(1)) < 0.1
    graph = {"x": numbers(40, 6), "adjacency": (links | links.T | torch.eye(40).bool()).float()}
    found = {
        "dynamically quantised, of 5": compared(quantised, numbers(64, 6)),
        "graph convolutions, of 2": [
            name for name in compared(seeded(GCN), graph) if "lin" not in name
        ],
        "in windows, of 3": compared(seeded(Windows), numbers(16, 3, 8, 8)),
        "of two views, of 2": compared(seeded(Siamese), numbers(16, 2, 3, 6, 6)),
    }
    return {
        "values": {name: len(layers) for name, layers in found.items()},
        "truth": {name: int(name.rpartition(" ")[2]) for name in found},
    }


def experts() -> Values:
    """Layers of experts that count, of a batch in which the first has as many tokens as there are
    samples; and of experts that take as many in each batch."""
    chance = seeded(Experts)
    counts: list[int] = []
    handle = chance.experts[0].register_forward_hook(lambda m, a, out: counts.append(len(out)))
    for seed in range(200):
        x = numbers(12, 3, 6, seed=seed)
        with torch.no_grad():
            chance(x)
        if counts[-1] == len(x):
            break
    handle.remove()
    share = seeded(lambda: Experts(count=7, expert_choice=True))
    found = {
        "as many tokens by chance": compared(chance, x),
        "as many tokens in each batch": compared(share, numbers(40, 7, 6)),
    }
    values = {name: sum("experts" in n for n in layers) for name, layers in found.items()}
    return {"values": values, "truth": dict.fromkeys(values, 0)}


def time_first() -> Values:
    """Two layers inside a time-first transformer, on as many tokens as samples."""
    x = numbers(16, 16, 8)
    layers = ["encoder.layers.0.linear1", "encoder.layers.1.linear2"]
    with torch.no_grad(), Capture(seeded(TimeFirst).eval(), layers, maps=None) as capture:
        capture.model(x)
    truth = debiased_cka(*(a.transpose(0, 1).flatten(1) for a in capture.activations.values()))
    value = compare([seeded(TimeFirst)], [x], layers=layers).value[0, 1]
    return {"values": {"two layers": value}, "truth": {"two layers": truth}}


CASES: dict[str, Callable[[], Values]] = {
    "padding": padding,
    "layout of swin_t": lambda: layout("swin_t"),
    "layout of convnext_tiny": lambda: layout("convnext_tiny"),
    "low-rank adapter": adapter,
    "layers by default": layers_by_default,
    "experts": experts,
    "time before samples": time_first,
}


def cost(name: str, size: int) -> dict[str, Any]:
    """Time of the small batch that finds the samples, which networks of unknown code are run on,
    as a share of the forward passes of 1,280 images."""
    from torchvision import models as vision

    from repsim_fast.capture import find_places, list_layers

    model = seeded(getattr(vision, name)).eval()
    known = type(model).forward
    model.__class__ = type("Own", (type(model),), {"forward": lambda self, x: known(self, x)})
    layers = [layer.name for layer in list_layers(model) if layer.kind]
    images = numbers(128, 3, size, size)

    def forward(x: Tensor) -> None:
        with torch.no_grad():
            model(x)

    def small_batch() -> None:
        find_places(model, layers, images, len(images), forward, strict=True)

    times = side_by_side({"batch": lambda: forward(images), "small": small_batch}, rounds=9)
    return {
        "case": f"cost: {name}, {size} x {size}",
        **times["small"].row(),
        "share_of_1280": times["small"].median / (10 * times["batch"].median),
    }


def values_of(checkout: Path) -> Values:
    """Values of all cases with the version of a checkout, by a process of its own."""
    run = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, VALUES: str(checkout)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(run.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def print_values() -> None:
    import repsim_fast

    assert Path(repsim_fast.__file__).is_relative_to(os.environ[VALUES]), repsim_fast.__file__
    warnings.simplefilter("ignore")
    print(json.dumps({name: case() for name, case in CASES.items()}))


def main() -> None:
    """Runs all cases with both versions and writes them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    where = machine()
    before, after = values_of(options.before.resolve()), values_of(ROOT)
    rows: list[dict[str, Any]] = [
        {
            "case": f"{case}: {name}",
            "before": before[case]["values"][name],
            "after": after[case]["values"][name],
            "truth": after[case]["truth"][name],
        }
        for case in CASES
        for name in after[case]["values"]
    ]
    torch.set_num_threads(1)
    rows += [cost("resnet18", 32), cost("resnet18", 96), cost("resnet50", 64)]
    write_json(options.out, {"machine": where, "rows": rows})
    for row in rows:
        print(row)


if __name__ == "__main__":
    print_values() if VALUES in os.environ else main()
