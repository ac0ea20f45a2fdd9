"""Two ResNet-50 compared and attacked, end to end, beside what the same work costs without us.

    python benchmarks/end_to_end_gpu.py [--out FOLDER]             # a GPU; some minutes
    python benchmarks/end_to_end_gpu.py --device cpu --small       # the same script in seconds

1. Comparison: every layer of two randomly initialised ResNet-50, 10,000 synthetic images 224x224
   made on the device batch by batch, bfloat16 autocast, channels last; over the two bare forward
   passes of the same run; queued by Python or by a CUDA graph. Its bound: the forward passes, and
   every activation read once at the bandwidth of a copy.
2. PGD-10 on one of them, as a CUDA graph, over the textbook loop in the same precision.
3. The kernels of a few batches of the comparison, by time (torch.profiler).

Correctness comes first: the comparison against float64 CKA of captured activations, the attacks
against the textbook loop in float64. Writes end_to_end.json and kernel_table.json to the folder
(default: benchmarks/results/<machine>).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS / "kernels"), str(BENCHMARKS)]
import textbook  # noqa: E402
from device_time import copy_bytes_per_ms  # noqa: E402
from textbook import EPS, SIZE, STEPS  # noqa: E402
from timing import machine, machine_name, side_by_side, write_json  # noqa: E402

from repsim_fast import compare  # noqa: E402
from repsim_fast._core.cuda_graph import GraphedLoop  # noqa: E402
from repsim_fast.attacks import PGD, Execution  # noqa: E402
from repsim_fast.capture import Capture  # noqa: E402
from repsim_fast.ops.centering import center_gram  # noqa: E402

# Largest error of a similarity, from rounding of the Grams' operands alone.
TOLERANCE = {"bfloat16": 1e-2, "float32": 1e-4}


class Way(NamedTuple):
    """How a comparison is run."""

    precision: str
    graph: bool = False

    def __str__(self) -> str:
        return self.precision + ", graph" * self.graph


def ways(device: str) -> list[Way]:
    """On a CPU there are no graphs."""
    choices = (False, True) if device == "cuda" else (False,)
    return [Way(*way) for way in itertools.product(TOLERANCE, choices)]


Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    device: str
    # Images by size of the batches. Activations of few are still in the cache when their Gram reads
    # them, but the GPU waits for Python more often.
    images: tuple[tuple[int, int], ...] = ((128, 10_000), (32, 2_500))
    network: str = "resnet50"
    side: int = 224
    checked: int = 64  # images of the check, in two batches
    attacked: int = 64
    profiled: int = 4  # batches
    rounds: int = 3
    attack_rounds: int = 9


def small(device: str) -> Settings:
    return Settings(
        device,
        network="resnet18",
        images=((8, 16),),
        side=32,
        checked=16,
        attacked=2,
        profiled=1,
        rounds=1,
        attack_rounds=1,
    )


@dataclass(frozen=True)
class Images:
    """Batches of noise, the same in every pass, of which one at a time is in memory."""

    settings: Settings
    count: int
    batch: int

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator(self.settings.device).manual_seed(0)
        for start in range(0, self.count, self.batch):
            shape = (min(self.batch, self.count - start), 3, *[self.settings.side] * 2)
            images = torch.rand(shape, generator=generator, device=self.settings.device)
            yield images.contiguous(memory_format=torch.channels_last)


def networks(settings: Settings) -> list[nn.Module]:
    """Two ResNets in eval mode, their batch norms calibrated, for activations of usual size."""
    models = []
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = torchvision.models.get_model(settings.network, weights=None)
        model = model.to(settings.device, memory_format=torch.channels_last)
        (images,) = Images(settings, settings.checked, settings.checked)
        with torch.no_grad():
            for _ in range(3):
                model(images)
        models.append(model.eval())
    return models


def autocast(settings: Settings) -> AbstractContextManager[Any]:
    return torch.autocast(settings.device, dtype=torch.bfloat16)


# ---- 1. comparison


def ours(models: list[nn.Module], images: Images, way: Way) -> Tensor:
    """All pairs of layers of the two models."""
    result = compare(
        models,
        images,
        autocast=torch.bfloat16,
        precision=way.precision,
        cuda_graph=way.graph,
        names=["a", "b"],
    )
    return torch.as_tensor(result.between("a", "b").value)


def float64_grid(
    settings: Settings, models: list[nn.Module], images: Images
) -> tuple[Tensor, float]:
    """Minibatch CKA in float64, written out; and the bytes of one image's activations."""
    sums: Tensor | None = None
    sizes: list[float] = []
    for batch in images:
        grams: list[Tensor] = []

        def take(name: str, activation: Tensor, grams: list[Tensor] = grams) -> None:
            sizes.append(activation.nbytes / len(images))
            x = activation.flatten(1).double()
            x = x - x.mean(dim=0)
            grams.append(center_gram(x @ x.T, "unbiased").flatten())

        counts = []
        for model in models:
            with Capture(model, maps=None, on_activation=take), torch.no_grad(), autocast(settings):
                model(batch)
            counts.append(len(grams))
        stacked = torch.stack(grams)
        hsic = stacked @ stacked.T
        sums = hsic if sums is None else sums + hsic
    assert sums is not None
    own = sums.diagonal()
    cka = sums / (own[:, None] * own[None, :]).sqrt()
    return cka[: counts[0], counts[0] :].cpu(), sum(sizes) * len(images) / images.count


def forwards(settings: Settings, models: list[nn.Module], images: Images) -> None:
    with torch.inference_mode(), autocast(settings):
        for batch in images:
            for model in models:
                model(batch)


def graphed_forwards(settings: Settings, models: list[nn.Module], images: Images) -> None:
    """The same by a CUDA graph, but for a smaller last batch."""
    graph: GraphedLoop | None = None

    def loop(held: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with autocast(settings):
            return tuple(model(held["x"]) for model in models)

    with torch.no_grad():
        for batch in images:
            if len(batch) == images.batch:
                graph = graph or GraphedLoop(loop, {"x": batch})
                graph({"x": batch})
            else:
                loop({"x": batch})


def comparison(settings: Settings, models: list[nn.Module]) -> Iterator[Rows]:
    """Rows of one size of the batches after the other."""
    few = Images(settings, settings.checked, settings.checked // 2)
    truth, activation_bytes = float64_grid(settings, models, few)
    errors = {}
    for way in ways(settings.device):
        tolerance = TOLERANCE[way.precision]
        error = errors[str(way)] = float((ours(models, few, way) - truth).abs().max())
        if not error <= tolerance:
            sys.exit(f"comparison, {way}: error {error:.1e} over {tolerance}")

    for batch, count in settings.images:
        yield timed(settings, models, Images(settings, count, batch), errors, activation_bytes)


def timed(
    settings: Settings,
    models: list[nn.Module],
    images: Images,
    errors: dict[str, float],
    activation_bytes: float,
) -> Rows:
    """Every way to compare in batches of one size, and the forward passes alone."""
    warm = Images(settings, min(images.count, 3 * images.batch), images.batch)
    alternatives: dict[str, Callable[[Images], object]] = {
        "forwards": lambda data: forwards(settings, models, data),
        **{
            str(way): lambda data, way=way: ours(models, data, way)  # type: ignore[misc]
            for way in ways(settings.device)
        },
    }
    if settings.device == "cuda":
        alternatives["forwards, graph"] = lambda data: graphed_forwards(settings, models, data)
    for run in alternatives.values():
        run(warm)
    times = side_by_side(
        {name: lambda run=run: run(images) for name, run in alternatives.items()},  # type: ignore[misc]
        rounds=settings.rounds,
        warmup=0,
    )
    bare = times["forwards"].median
    rows = []
    for name, timing in times.items():
        row = {"case": f"comparison, batches of {images.batch}, {name}", **timing.row()}
        row["ratio"] = timing.median / bare
        row["examples_per_s"] = images.count / timing.median
        if name in errors:
            row["max_error"] = errors[name]
        if settings.device == "cuda" and name in errors:
            reading = activation_bytes * images.count / copy_bytes_per_ms() / 1e3
            row["bound_ratio"] = 1 + reading / bare
        rows.append(row)
    return rows


# ---- 2. attack


def executions(device: str) -> dict[str, Execution]:
    found = {"exact": Execution(), "folded": Execution(fold_batchnorm=True, channels_last=True)}
    if device == "cuda":
        found["graph"] = Execution(cuda_graph=True)
        found["folded, graph"] = Execution(True, True, cuda_graph=True)
    return found


def check_attacks(settings: Settings) -> None:
    """In float64 rounding flips no sign of a gradient: the same steps as the textbook's."""
    wide = torchvision.models.resnet18(weights=None).to(settings.device).double().eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64, device=settings.device)
    y = wide(x).argmax(1)
    want = textbook.pgd(wide, x, y)
    for name, execution in executions(settings.device).items():
        attack = PGD(EPS, step_size=SIZE, steps=STEPS, random_start=False, execution=execution)
        differing = ((attack(wide, x, y) - want).abs() > 1e-9).double().mean()
        if not differing < 1e-3:
            sys.exit(f"PGD, {name}: {differing:.1%} of the pixels differ in float64")


def attacks(settings: Settings, model: nn.Module) -> Rows:
    check_attacks(settings)
    (x,) = Images(settings, settings.attacked, settings.attacked)
    with torch.no_grad(), autocast(settings):
        y = model(x).argmax(1)

    def harm(adv: Tensor) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(adv), y))

    def eager() -> Tensor:
        with autocast(settings):
            return textbook.pgd(model, x, y)

    alternatives: dict[str, Callable[[], Tensor]] = {"textbook": eager}
    for name, execution in executions(settings.device).items():
        attack = PGD(
            EPS,
            step_size=SIZE,
            steps=STEPS,
            random_start=False,
            execution=execution,
            autocast=torch.bfloat16,
        )
        alternatives[name] = lambda attack=attack: attack(model, x, y)  # type: ignore[misc]
    reached = {name: run() for name, run in alternatives.items()}  # also captures the graphs
    for name, adv in reached.items():
        if not (adv - x).abs().max() <= EPS + 1e-6 or not (adv == adv.clamp(0, 1)).all():
            sys.exit(f"PGD, {name}: leaves the ball or the box")
    clean, wanted = harm(x), harm(reached["textbook"])
    times = side_by_side(alternatives, rounds=settings.attack_rounds, warmup=0)
    bare = times["textbook"].median
    return [
        {
            "case": f"PGD-{STEPS}, {name}",
            **timing.row(),
            "ratio": timing.median / bare,
            "examples_per_s": settings.attacked / timing.median,
            "harm_relative_to_textbook": (harm(reached[name]) - clean) / (wanted - clean),
        }
        for name, timing in times.items()
    ]


# ---- 3. kernels


def kernel_table(settings: Settings, models: list[nn.Module]) -> Rows:
    """The kernels (on a CPU: operations) of some batches of the comparison, by time."""
    batch = settings.images[0][0]
    images = Images(settings, settings.profiled * batch, batch)
    on_gpu = settings.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        ours(models, images, Way("bfloat16"))
    found = []
    for event in profiler.key_averages():
        is_kernel = event.device_type == torch.autograd.DeviceType.CUDA
        if is_kernel == on_gpu:
            time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found.append((time, event.count, event.key))
    total = sum(time for time, _, _ in found)
    return [
        {
            "kernel": name,
            "calls": calls,
            "us": time,
            "share": time / total,
            "ours": "repsim_fast" in name,
        }
        for time, calls, name in sorted(found, reverse=True)
    ]


# ---- table


def show(rows: Sequence[dict[str, Any]], kernels: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        extra = {
            key: row[key]
            for key in ("bound_ratio", "max_error", "harm_relative_to_textbook")
            if key in row
        }
        shown = "  ".join(f"{key} {value:.3g}" for key, value in extra.items())
        print(
            f"{row['case']:56} {row['median_s']:8.3f} s {row['examples_per_s']:8.0f} /s"
            f"  ratio {row['ratio']:5.2f}  {shown}"
        )
    for kernel in kernels[:15]:
        print(f"{kernel['share']:6.1%} {kernel['calls']:6} calls  {kernel['kernel'][:90]}")
    print(f"{sum(k['share'] for k in kernels if k['ours']):6.1%} of it in kernels of repsim_fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU runs in seconds")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    settings = small(options.device) if options.small else Settings(options.device)
    torch.manual_seed(0)
    models = networks(settings)
    out = options.out or BENCHMARKS / "results" / machine_name()
    about = {"machine": machine(), "settings": asdict(settings)}
    rows: Rows = []
    for more in comparison(settings, models):
        rows += more
        write_json(out / "end_to_end.json", {**about, "rows": rows})  # kept if the rest fails
    rows += attacks(settings, models[0])
    write_json(out / "end_to_end.json", {**about, "rows": rows})
    kernels = kernel_table(settings, models)
    show(rows, kernels)
    write_json(out / "kernel_table.json", {**about, "rows": kernels})


if __name__ == "__main__":
    main()
