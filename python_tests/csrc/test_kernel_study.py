"""The kernel study (benchmarks/kernels) on edge shapes, and the scripts that measure kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_summary import lines
from benchmarks.kernels import operators
from benchmarks.kernels.gram_paths import TOLERANCE, check
from benchmarks.kernels.study import GRAM_ERROR, Kernels, finished, gram_runs
from benchmarks.timing import machine
from python_tests.support.forked import run_python
from python_tests.support.op_tester import devices

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "benchmarks" / "kernels"


@pytest.fixture(scope="module", params=devices())
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7])
def test_gram_versions(kernels: Kernels, version: int, dtype: torch.dtype) -> None:
    shapes = [
        (2, 1),
        (5, 31),
        (17, 130),
        (64, 70),
        *([(65, 900), (128, 69)] if version != 5 else []),
        *([(200, 72), (256, 300)] if version in (3, 7) else []),
    ]
    for n, p in shapes:
        padded = torch.full((n, -(-p // 8) * 8 + 8), torch.nan, device=kernels.device, dtype=dtype)
        x = padded[:, :p]  # rows that start at 16 bytes, and NaN between them
        means = torch.where(torch.arange(p) % 2 == 0, 100.0, 1.0)
        x.copy_(torch.randn(n, p) + means)
        runs = gram_runs(kernels, version, [x])
        if runs is None:
            pytest.skip("this GPU has not what the version needs: compute capability 9.0")
        run, tiles = runs
        run(0)
        wide = x.double()
        wide -= wide.mean(dim=0)
        expected = (wide @ wide.T).tril()
        error = (finished(version, tiles, n) - expected).norm()
        assert error <= GRAM_ERROR * expected.norm(), (n, p)


@pytest.mark.parametrize(("version", "limit"), [(3, 256), (5, 64), (6, 128), (7, 256)])
def test_single_passes_have_a_limit(kernels: Kernels, version: int, limit: int) -> None:
    for n in (limit, limit + 1):
        runs = gram_runs(kernels, version, [torch.randn(n, 8, device=kernels.device)])
        assert (runs is None) == (n > limit)


def rows_of(script: str, out: Path) -> list[dict[str, Any]]:
    """What a script writes without a GPU, and what it prints of it."""
    done = run_python(SCRIPTS / script, "--device", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    content = json.loads(out.read_text())
    assert content["machine"]["commit"]
    rows: list[dict[str, Any]] = content["rows"]
    assert all(row["right"] for row in rows)
    # Nothing is timed, so nothing is claimed.
    assert printed.count("not measured yet") == len(rows)
    assert not any("ms" in row for row in rows)
    return rows


def test_the_study_checks_every_version_without_a_gpu(tmp_path: Path) -> None:
    rows = rows_of("study.py", tmp_path / "study.json")
    for family, versions in (("gram", {1, 2, 3, 4, 5, 6, 7}), ("linf", {1, 2, 3, 4, 5})):
        assert {row["version"] for row in rows if row["family"] == family} == versions


def test_every_operator_is_checked_without_a_gpu(tmp_path: Path) -> None:
    rows = rows_of("operators.py", tmp_path / "operators.json")
    names = {row["case"].split()[0] for row in rows}
    steps = {"pgd_linf_step", "pgd_l2_step", "pgd_l1_step", "random_start"}
    assert names == steps | {"centered_gram", "batched_svdvals", "batched_svd"}


def test_every_path_is_checked_without_a_gpu(tmp_path: Path) -> None:
    rows = rows_of("gram_paths.py", tmp_path / "gram_paths.json")
    assert {row["path"] for row in rows} == {
        *("single", "bulk", "warpgroups", "tiles64", "tiles128", "vendor", "matmul")
    }


@pytest.mark.parametrize(
    ("beside", "on", "right"),
    # Of long sums in float32; of products in tf32; of a wrong diagonal; of entries not written.
    [(1e-5, 1e-4, True), (4e-4, 0.0, False), (0.0, 1e-2, False), (0.0, torch.nan, False)],
)
def test_paths_are_judged_beside_the_diagonal(beside: float, on: float, right: bool) -> None:
    """Whose entries are so large that they would hide the others, and lose more in long sums."""
    x = torch.randn(40, 3000, dtype=torch.float64)
    expected = (x @ x.T).tril()
    found = expected * (1 + beside)
    found.diagonal().copy_(expected.diagonal() * (1 + on))
    assert (check(lambda _: found, x, expected) <= TOLERANCE["float32"]) == right


def test_the_program_for_compute_sanitizer_is_right() -> None:
    printed = run_python(HERE / "small_shapes.py", "--device", "cpu").stdout
    assert printed.startswith("0 failures in ")


def test_predictions_are_of_cases_that_are_measured() -> None:
    names = [
        f"centered_gram {n} x {p} {dtype} {precision}"
        for n, p in operators.GRAMS
        for dtype, precision in (("float32", "float32"), ("bfloat16", "bfloat16"))
    ]
    names += [f"pgd_{norm}_step {shape}" for norm in operators.EPS for shape in operators.IMAGES]
    names += [
        f"batched_{kind} {batch} x {n} x {n}"
        for kind in ("svd", "svdvals")
        for batch, n in operators.MATRICES
    ]
    assert set(operators.PREDICTIONS) <= set(names)
    for case in operators.PREDICTIONS:
        for card in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
            low, high = operators.predicted_ms(case, card) or (0, 0)
            assert 0 < low <= high, case
    assert operators.predicted_ms(names[0], "NVIDIA A100-SXM4-80GB") is None
    assert operators.predicted_ms("another", "NVIDIA H200") is None


def test_the_summary_says_where_predictions_were_off(tmp_path: Path) -> None:
    machine = {"processor": "some", "gpu": "NVIDIA H200", "torch": "2", "commit": "abc"}
    rows = [
        {"case": "good", "of_bound": 0.5, "ms": 5.0, "predicted_ms": [4.0, 4.5]},
        {"case": "slow", "of_bound": 0.5, "ms": 6.0, "predicted_ms": [4.0, 4.5]},
        {"case": "fast", "of_bound": 0.5, "ms": 3.0, "predicted_ms": [4.0, 4.0]},
        {"case": "unknown", "of_bound": 0.5, "ms": 3.0, "predicted_ms": None},
    ]
    (tmp_path / "operators.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    versions = [
        {"case": "1", "of_bound": 0.3, "of_copy": 0.3, "predicted_of_copy": 0.3},
        {"case": "2", "of_bound": 0.3, "of_copy": 0.3, "predicted_of_copy": 0.5},
        {"case": "3", "of_bound": 0.3, "of_copy": 0.3, "predicted_of_copy": None},
    ]
    (tmp_path / "kernel_study.json").write_text(json.dumps({"machine": machine, "rows": versions}))
    printed = lines(tmp_path)
    assert "    50% of bound  good; 5 ms, predicted 4 to 4.5 ms" in printed
    assert "    50% of bound  unknown" in printed
    assert "    30% of bound  1; 30% of copy, predicted 30%" in printed
    assert printed[-4:] == [
        "predictions off by more than 30%: 3 of 5",
        "    50% of bound  slow; 6 ms, predicted 4 to 4.5 ms",
        "    50% of bound  fast; 3 ms, predicted 4 ms",
        "    30% of bound  2; 30% of copy, predicted 50%",
    ]


def test_a_machine_without_git_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine()["commit"] == "unknown"


def test_the_summary_names_what_is_missing(tmp_path: Path) -> None:
    machine = {"processor": "some", "torch": "2", "commit": "abc"}
    rows = [{"case": "one", "of_bound": 0.5}, {"case": "two"}]
    (tmp_path / "operators.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    learnt = {"case": "a", "clean": 38.0, "robust": 26.0, "reached": False}
    learnt |= {"published_clean": 41.5, "published_robust": 26.58}
    (tmp_path / "learning.json").write_text(json.dumps({"machine": machine, "rows": [learnt]}))
    assert lines(tmp_path) == [
        "operators: some, torch 2, abc",
        "    50% of bound  one",
        "kernel_study: not measured yet",
        "gram_paths: not measured yet",
        "end_to_end: not measured yet",
        "learning: some, torch 2, abc",
        "  38.0/26.0, published 41.5/26.6: NOT reached  a",
    ]
