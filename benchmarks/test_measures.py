"""Measures of the CCA family and Procrustes: grids of 10 x 10 layers and single pairs.

The baseline is careful plain torch: features centred, one factorisation a layer, all products of
two models in one matrix product, `torch.linalg.svdvals` over the whole batch, float32. Other
packages are timed on single pairs where they are installed and correct.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import peers
import pytest
import torch
from timing import side_by_side
from torch import Tensor

from repsim_fast.similarity import cka, get_measure, grid, prepare

LAYERS, SAMPLES = 10, 2000


def features(n: int, p: int, seed: int) -> Tensor:
    """Like activations after a ReLU: nonzero means, a decaying spectrum, full rank."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=generator) * torch.arange(1, p + 1).pow(-0.5)
    x = x @ torch.linalg.qr(torch.randn(p, p, generator=generator))[0] * p**0.5 / 2
    return (x + 0.3 * torch.randn(p, generator=generator)).relu()


def model(p: int, seed: int) -> list[Tensor]:
    """Layers that have something in common with the ones before."""
    layers = [features(SAMPLES, p, seed)]
    for k in range(1, LAYERS):
        layers.append(0.6 * layers[-1] + 0.6 * features(SAMPLES, p, 100 * seed + k))
    return layers


# ---- careful plain torch


def centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=0)


def blocks(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Products of all pairs of equally wide factors (L * M, k, k), from one matrix product."""
    k = left[0].shape[1]
    whole = torch.cat(left, dim=1).T @ torch.cat(right, dim=1)
    return whole.view(len(left), k, len(right), k).transpose(1, 2).reshape(-1, k, k)


def plain_cca(a: list[Tensor], b: list[Tensor]) -> Tensor:
    left, right = ([torch.linalg.qr(centred(x))[0] for x in side] for side in (a, b))
    return torch.linalg.svdvals(blocks(left, right)).mean(dim=1).view(len(a), len(b))


def plain_svcca(a: list[Tensor], b: list[Tensor]) -> Tensor:
    def reduced(x: Tensor) -> Tensor:
        u, s, _ = torch.linalg.svd(centred(x), full_matrices=False)
        share = s.square().cumsum(0) / s.square().sum()
        return u[:, : int((share < 0.99).sum()) + 1]

    left, right = ([reduced(x) for x in side] for side in (a, b))
    widest = max(u.shape[1] for u in (*left, *right))
    padded = [
        [torch.nn.functional.pad(u, (0, widest - u.shape[1])) for u in side]
        for side in (left, right)
    ]
    total = torch.linalg.svdvals(blocks(*padded)).sum(dim=1).view(len(a), len(b))
    return total / torch.tensor([[min(u.shape[1], v.shape[1]) for v in right] for u in left])


def plain_pwcca(a: list[Tensor], b: list[Tensor]) -> Tensor:
    left, right = ([torch.linalg.qr(centred(x)) for x in side] for side in (a, b))
    products = blocks([q for q, _ in left], [q for q, _ in right])
    u, rho, _ = torch.linalg.svd(products, full_matrices=False)
    coordinates = torch.stack([r for _, r in left]).repeat_interleave(len(b), dim=0)
    weights = (u.mT @ coordinates).abs().sum(dim=2)
    return ((weights * rho).sum(dim=1) / weights.sum(dim=1)).view(len(a), len(b))


def plain_procrustes(a: list[Tensor], b: list[Tensor]) -> Tensor:
    left, right = ([centred(x) for x in side] for side in (a, b))
    left, right = ([x / x.norm() for x in side] for side in (left, right))
    return torch.linalg.svdvals(blocks(left, right)).sum(dim=1).view(len(a), len(b))


PLAIN: dict[str, Callable[[list[Tensor], list[Tensor]], Tensor]] = {
    "cca": plain_cca,
    "svcca": plain_svcca,
    "pwcca": plain_pwcca,
    "procrustes_similarity": plain_procrustes,
}


def reference(name: str, a: list[Tensor], b: list[Tensor]) -> Tensor:
    return PLAIN[name]([x.double() for x in a], [x.double() for x in b])


# ---- benchmarks


@pytest.mark.parametrize("width", [128, 512])
@pytest.mark.parametrize("name", PLAIN)
def test_grid_of_two_models(benchmark, record, name, width):
    """10 layers of one model against 10 of another; errors against float64 plain torch."""
    a, b = model(width, 1), model(width, 2)
    some = slice(0, 3)  # float64 is slow
    truth = reference(name, a[some], b[some])
    error = float((grid(name, a, b)[some, some] - truth).abs().max())
    plain_error = float((PLAIN[name](a, b)[some, some] - truth).abs().max())
    assert error <= 2 * plain_error + 1e-6
    times = side_by_side(
        {"plain torch": lambda: PLAIN[name](a, b), "repsim_fast": lambda: grid(name, a, b)},
        rounds=5,
        warmup=1,
    )
    for side, timing in times.items():
        record(
            f"{name} {SAMPLES}x{width} 10x10 {side}",
            **timing.row(),
            speedup=times["plain torch"].median / timing.median,
            max_error=error if side == "repsim_fast" else plain_error,
        )
    benchmark.pedantic(lambda: grid(name, a, b), rounds=1)


@pytest.mark.parametrize("width", [128, 512])
def test_grid_within_a_model(benchmark, record, width):
    """45 pairs: symmetry halves products and singular values, in both."""
    layers = model(width, 1)

    def plain() -> Tensor:
        left = [torch.linalg.qr(centred(x))[0] for x in layers]
        pairs = [(i, j) for i, j in product(range(LAYERS), repeat=2) if i < j]
        products = torch.stack([left[i].T @ left[j] for i, j in pairs])
        values = torch.eye(LAYERS)
        for (i, j), value in zip(pairs, torch.linalg.svdvals(products).mean(dim=1), strict=True):
            values[i, j] = values[j, i] = value
        return values

    torch.testing.assert_close(grid("cca", layers), plain().double(), atol=1e-5, rtol=0)
    times = side_by_side(
        {"plain torch": plain, "repsim_fast": lambda: grid("cca", layers)}, rounds=5, warmup=1
    )
    for side, timing in times.items():
        record(
            f"cca within {SAMPLES}x{width} {side}",
            **timing.row(),
            speedup=times["plain torch"].median / timing.median,
        )
    benchmark.pedantic(lambda: grid("cca", layers), rounds=1)


@pytest.mark.parametrize(
    "name",
    [
        *PLAIN,
        "angular_procrustes_distance",
        "rsa",
        "distance_correlation",
        "bias_corrected_distance_correlation",
    ],
)
def test_single_pair(benchmark, record, name):
    """2000 x 512, nothing prepared: plain torch, and packages that compute the same."""
    x, y = features(SAMPLES, 512, 1), features(SAMPLES, 512, 2)
    y = 0.6 * x + y
    measure = get_measure(name)
    ours = float(measure(x, y))
    alternatives: dict[str, Callable[[], object]] = {"repsim_fast": lambda: measure(x, y)}
    if name in PLAIN:
        alternatives["plain torch"] = lambda: PLAIN[name]([x], [y])
    arrays = x.numpy(), y.numpy()
    for peer in peers.available():
        if get_measure(peer.measure, **peer.options) == measure:
            assert peer.function(*arrays) == pytest.approx(ours, abs=1e-4), peer.name
            alternatives[peer.name] = lambda f=peer.function: f(*arrays)
    times = side_by_side(alternatives, rounds=5, warmup=1)
    for side, timing in times.items():
        record(
            f"{name} pair {SAMPLES}x512 {side}",
            **timing.row(),
            speedup=timing.median / times["repsim_fast"].median,
        )
    benchmark.pedantic(lambda: measure(x, y), rounds=1)


def test_linear_cka_of_one_pair(benchmark, record):
    """Against the feature-side form in NumPy, the fastest public one."""
    x, y = features(SAMPLES, 512, 1), features(SAMPLES, 512, 2)

    def in_numpy() -> float:
        a, b = (m.numpy() - m.numpy().mean(axis=0) for m in (x, y))
        xy, xx, yy = ((p.T @ q).ravel() for p, q in ((a, b), (a, a), (b, b)))
        return float(xy @ xy / ((xx @ xx) * (yy @ yy)) ** 0.5)

    def in_torch() -> Tensor:
        a, b = centred(x), centred(y)
        return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())

    def ours() -> Tensor:
        return cka(x, y, estimator="biased")

    truth = cka(x.double(), y.double(), estimator="biased")
    assert abs(float(ours()) - float(truth)) < 1e-6
    assert in_numpy() == pytest.approx(float(truth), abs=1e-5)
    times = side_by_side({"repsim_fast": ours, "numpy": in_numpy, "plain torch": in_torch})
    for side, timing in times.items():
        record(
            f"cka pair {SAMPLES}x512 {side}",
            **timing.row(),
            speedup=timing.median / times["repsim_fast"].median,
        )
    benchmark.pedantic(ours, rounds=3)


@pytest.mark.parametrize("layers", [2, 4, 8, 16, 32])
def test_cost_grows_with_layers(benchmark, record, layers):
    """One model of more and more layers, 2000 x 128; plot_cost.py draws it."""
    many = [features(SAMPLES, 128, k) for k in range(layers)]
    measure = get_measure("cca")
    times = side_by_side(
        {
            "factorisations": lambda: [measure.view(prepare(x)) for x in many],
            "grid": lambda: grid("cca", many),
        },
        rounds=5,
    )
    pairs = layers * (layers - 1) // 2
    record(
        f"cost of {layers} layers",
        **times["grid"].row(),
        layers=layers,
        per_layer=times["factorisations"].median / layers,
        per_pair=(times["grid"].median - times["factorisations"].median) / pairs,
    )
    benchmark.pedantic(lambda: grid("cca", many), rounds=1)
