"""Every instruction set of this processor gives the same results, and none but those is taken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from python_tests.support.forked import run_python
from python_tests.support.level_results import features, results
from python_tests.support.op_tester import relative_error
from repsim_fast import build_info
from repsim_fast.ops.reference import gram as reference

ROOT = Path(__file__).parents[2]
LEVELS = ("baseline", "avx2", "avx512", "avx512_vnni", "amx")


def in_a_process(level: str, out: Path) -> subprocess.CompletedProcess[str]:
    """The level is chosen once a process."""
    script = ROOT / "python_tests" / "support" / "level_results.py"
    return run_python(script, out, cwd=ROOT, env={"REPSIM_SIMD": level, "PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def own_results() -> dict[str, Tensor]:
    return results()


def check(name: str, got: Tensor, own: Tensor) -> None:
    """Steps against this process's level, up to the order of float64 sums; Linf and its starts have
    the same bits. Norms likewise, up to rounding. The others against float64."""
    narrow = got.dtype == torch.float32
    if " linf" in name:
        assert torch.equal(got, own), name
    elif name.startswith(("step", "start")):
        assert (got - own).abs().max() <= (2e-7 if narrow else 1e-13), name
    elif name.startswith("norm"):
        assert relative_error(got, own.double()) <= (2.0**-7 if "bfloat16" in name else 5e-6), name
    else:
        kind, _, source = name.partition(" ") if not name.startswith("gram") else ("", "", name)
        x = features()[source].double()
        truth = {
            "": lambda: reference.centered_gram(x),
            "bfloat16": lambda: reference.centered_gram(x),
            "cross": lambda: x.T @ x[:, ::2],
            "values": lambda: torch.linalg.svdvals(x),
            "vectors": lambda: x,
        }[kind]()
        allowed = 2.0**-7 if kind == "bfloat16" else 5e-6 if narrow else 1e-13
        assert relative_error(got, truth) <= allowed, name


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set(level: str, tmp_path: Path, own_results: dict[str, Tensor]) -> None:
    done = in_a_process(level, tmp_path / "results.pt")
    if level not in build_info()["simd_levels"].split(", "):
        assert done.returncode != 0
        assert "REPSIM_SIMD: expected a level that this processor has (base" in done.stderr
        assert f"got {level}" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == level
    got = torch.load(tmp_path / "results.pt", weights_only=True)
    assert got.keys() == own_results.keys()
    for name, tensor in got.items():
        check(name, tensor, own_results[name])


def test_an_unknown_level_is_refused_at_import(tmp_path: Path) -> None:
    done = in_a_process("sse9", tmp_path / "results.pt")
    assert done.returncode != 0
    has = f"a level that this processor has ({build_info()['simd_levels']})"
    assert f"ValueError: REPSIM_SIMD: expected {has}, got sse9" in done.stderr


def test_the_best_level_is_taken_where_none_is_named() -> None:
    if not os.environ.get("REPSIM_SIMD"):
        assert build_info()["simd_levels"].split(", ")[-1] == build_info()["simd_level"]
