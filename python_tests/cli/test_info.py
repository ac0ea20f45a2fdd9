from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import pytest
import torch

import repsim_fast
from python_tests.support.commands import Run


def test_shows_build_machine_and_parts(run: Run) -> None:
    result = run("info")
    assert result.exit_code == 0
    build = repsim_fast.build_info()
    for expected in (
        torch.__version__,
        build["compiler"],
        build["compiler_flags"],
        build["simd_level"],
        f"{build['threads']} threads",
        "CUDA kernels",
        "torchvision",
        "timm",
    ):
        assert expected in result.output


def break_torchvision(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make its import fail, and no other: torch imports some of its parts when first needed."""
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == "torchvision":
            raise error
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_missing_package_comes_with_its_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
    break_torchvision(monkeypatch, missing)
    assert "missing, for models torchvision:NAME: pip install torchvision" in run("info").output


def test_missing_package_comes_with_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(package: str) -> str:
        if package == "pandas":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert 'missing: pip install "repsim_fast[tables]"' in run("info").output


def test_package_of_another_torch_is_told_from_a_missing_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_torchvision(monkeypatch, RuntimeError("operator torchvision::nms does not exist"))
    assert "does not fit this torch: operator torchvision::nms" in run("info").output


def test_build_without_cuda_says_why_and_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = repsim_fast.build_info() | {
        "cuda": "",
        "cuda_reason": "nvcc was not found (set CUDA_HOME)",
        "cuda_missing": "this build has no CUDA kernels: nvcc was not found (set CUDA_HOME)",
    }
    monkeypatch.setattr(repsim_fast, "build_info", lambda: without)
    output = run("info").output
    assert "none (nvcc was not found" in output
    assert "missing: this build has no CUDA kernels" in output
    assert "FORCE_CUDA=1 pip install" in output


@pytest.mark.parametrize(("cuda", "expected"), [(None, "CPU-only build"), ("13.0", "finds no GPU")])
def test_no_gpu_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, cuda: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert expected in run("info").output
