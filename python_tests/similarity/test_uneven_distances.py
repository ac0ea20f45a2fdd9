"""Samples at distances of many sizes, in tight clusters or beside one large sample: float32
features give what float64 gives, of every measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.spatial
import torch

from python_tests.support import definitions
from repsim_fast import similarity
from repsim_fast.similarity import get_measure, measure_info, prepare
from repsim_fast.similarity.base.distances import squared_distances
from repsim_fast.similarity.base.nearest import nearest

NEIGHBOURS = ("mutual_knn", "jaccard_similarity", "rank_similarity", "joint_rank_jaccard")


def normal(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def clusters(
    spread: float, n: int = 200, p: int = 64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten clusters, a rotation of them that is rounded to float32 as they are, and labels."""
    labels = torch.arange(n) % 10
    x = (normal(10, p, seed=0)[labels] + spread * normal(n, p, seed=1)).float()
    rotation = torch.linalg.qr(normal(p, p, seed=2))[0]
    return x, (x.double() @ rotation).float(), labels


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_in_tight_clusters(name, spread, metric):
    x, y, _ = clusters(spread)
    value = float(getattr(similarity, name)(x, y, metric=metric))
    wide = float(getattr(similarity, name)(x.double(), y.double(), metric=metric))
    assert value == pytest.approx(wide, abs=1e-6)
    if metric == "euclidean":  # SciPy's cosine distances themselves lose their digits here
        truth = definitions.all_definitions()[name](
            x.double().numpy(), y.double().numpy(), metric=metric
        )
        assert value == pytest.approx(truth, abs=1e-6)
    if spread >= 1e-3:  # what rounding y leaves of the order within clusters
        assert value > 0.995


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_of_cosines_are_those_of_exact_arithmetic(name):
    """Cosines of integers, compared as fractions: float64 itself has too few digits for them."""
    from fractions import Fraction

    x, y = ((1000 * m[:40]).round() for m in clusters(1e-3, p=6)[:2])
    x, y = x + torch.arange(40)[:, None] % 7, y + torch.arange(40)[:, None] % 5

    def order(m: torch.Tensor) -> list[list[int]]:
        rows = [[int(v) for v in row] for row in m]
        lists = []
        for i, a in enumerate(rows):

            def cosine(j: int, a: list[int] = a) -> Fraction:
                dot = sum(p * q for p, q in zip(a, rows[j], strict=True))
                return Fraction(dot * abs(dot), sum(q * q for q in rows[j]))

            others = sorted((j for j in range(len(rows)) if j != i), key=cosine, reverse=True)
            lists.append(others[:3])
        return lists

    of = {
        "mutual_knn": lambda a, b: len(set(a) & set(b)) / 3,
        "jaccard_similarity": definitions.jaccard,
        "rank_similarity": definitions.rank,
        "joint_rank_jaccard": lambda a, b: definitions.jaccard(a, b) * definitions.rank(a, b),
    }[name]
    truth = np.mean([of(a, b) for a, b in zip(order(x), order(y), strict=True)])
    assert float(getattr(similarity, name)(x, y, k=3)) == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize("k", [1, 10, 30, 59])
def test_nearest_beside_a_large_sample_among_copies_and_along_a_line(k):
    x = normal(60, 20, seed=3)
    x[7] *= 1e6
    x[20:40] = x[20] + torch.linspace(0, 1e-7, 20, dtype=torch.float64)[:, None]  # one by one
    x[50:] = x[40:50]  # copies, which are equally near to all others
    found = nearest(x, k, ordered=True)
    truth = scipy.spatial.distance.cdist(x, x)
    np.fill_diagonal(truth, np.inf)
    ours = np.take_along_axis(truth, found.numpy(), axis=1)
    np.testing.assert_allclose(ours, np.sort(truth, axis=1)[:, :k], rtol=1e-8)


@pytest.mark.parametrize("low", [False, True])
def test_low_precision_of_products_of_others_does_not_reach_neighbours(low):
    before = torch.get_float32_matmul_precision()
    x, y, _ = clusters(1e-2)
    try:
        torch.set_float32_matmul_precision("medium" if low else "highest")
        value = float(similarity.mutual_knn(x, y))
    finally:
        torch.set_float32_matmul_precision(before)
    assert value == pytest.approx(float(similarity.mutual_knn(x.double(), y.double())))


DISTANCES = {
    "clusters": lambda: clusters(1e-4)[0],
    "tightest": lambda: clusters(1e-6)[0],
    "large sample": lambda: large(1e5, 100, 30).float(),
    "pairs": lambda: (normal(50, 30, seed=6).repeat(2, 1) + 1e-4 * normal(100, 30, seed=7)).float(),
    "line": lambda: (torch.linspace(0, 1, 150)[:, None] + 1e-3 * normal(150, 8, seed=8)).float(),
    "copies": lambda: normal(5, 30, seed=9).float()[torch.arange(100) % 5],
    "clusters in clusters": lambda: (
        clusters(1e-3)[0] + 1e-6 * normal(200, 64, seed=10)[torch.arange(200) // 4]
    ).float(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", DISTANCES)
def test_squared_distances_have_digits_of_their_own_size(case, dtype):
    x = DISTANCES[case]().to(dtype)
    truth = scipy.spatial.distance.cdist(x.double(), x.double(), "sqeuclidean")
    found = squared_distances(prepare(x)).numpy()
    relative = 1e-4 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(found, truth, rtol=relative, atol=0)
    assert (found == found.T).all()


def test_gradients_of_distances_taken_again():
    x = clusters(1e-3, n=30, p=3)[0].double().requires_grad_()
    x.data[3] = x.data[13]
    target = normal(30, 4, seed=11)

    def value(x: torch.Tensor) -> torch.Tensor:
        return similarity.cka_rbf(x, target)

    assert torch.autograd.gradcheck(value, x, eps=1e-7, atol=1e-5)
    single = x.detach().float().requires_grad_()
    value(single).backward()
    value(x).backward()
    torch.testing.assert_close(single.grad, x.grad.float(), rtol=1e-3, atol=1e-5)


def large(ratio: float, n: int, p: int) -> torch.Tensor:
    x = normal(n, p, seed=12)
    x[0] *= ratio
    return x


UNEVEN = {
    "clusters 1e-3": clusters(1e-3)[:2],
    "clusters 1e-3, wide": clusters(1e-3, n=60, p=100)[:2],
    **{
        f"sample {ratio:g}": (
            large(ratio, 150, 20).float(),
            (large(ratio, 150, 20) @ normal(20, 30, seed=13) + normal(150, 30, seed=14)).float(),
        )
        for ratio in (1e2, 1e5)
    },
}


@pytest.mark.parametrize("case", UNEVEN)
@pytest.mark.parametrize("name", definitions.of_few_features())
def test_every_measure_in_float32(name, case):
    """To 1e-5 of the range, or of the size of the features where a distance is in their unit."""
    x, y = UNEVEN[case]
    options = {"ridge": 0.1} if name == "gulp_distance" else {}
    if name.endswith("svcca"):
        options = {"components": 5}
    measure = get_measure(name, **options)
    try:
        truth = float(measure(x.double(), y.double()))
    except similarity.UndefinedError:
        with pytest.raises(similarity.UndefinedError):
            measure(x, y)
        return
    unbounded = math.isinf(measure_info(name).high) and "scale" not in measure.info.invariant_to
    size = max(1.0, abs(truth), float(x.norm()) if unbounded else 0.0)
    assert float(measure(x, y)) == pytest.approx(truth, abs=1e-5 * size)


def exact_neighbours(x: torch.Tensor, k: int) -> torch.Tensor:
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf).topk(k, dim=1, largest=False).indices


@pytest.mark.parametrize("mean", [1e3, 1e5, 1e7, 1e9])
def test_neighbours_of_wide_features_far_from_zero(mean):
    x = normal(300, 5, seed=0)
    x[:, 1] += mean
    assert torch.equal(nearest(x, 5, ordered=True), exact_neighbours(x, 5))


@pytest.mark.parametrize("scale", [1e-12, 1e-20, 1e-22, 1e-30, 1e-60])
def test_neighbours_of_wide_features_whose_squares_float32_lacks(scale):
    x = scale * normal(300, 5, seed=0)
    assert torch.equal(nearest(x, 5, ordered=True), exact_neighbours(x, 5))
