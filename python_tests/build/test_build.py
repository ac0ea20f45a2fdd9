from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import repsim_fast
from repsim_fast import build_info

ROOT = Path(__file__).resolve().parents[2]


def setup(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_build_info_says_what_was_built():
    info = build_info()
    assert info["torch_target"] == "2.11"
    assert re.match(r"\d+\.\d+", info["torch_built_with"])
    assert "-std=c++20" in info["compiler_flags"]
    assert info["simd_level"] in ("baseline", "avx2", "avx512", "avx512_vnni")
    if info["cuda"]:
        assert info["cuda_architectures"]
    else:
        assert info["cuda_missing"], "without CUDA kernels there is a reason"


def test_forced_cuda_fails_loudly_without_a_compiler(tmp_path):
    # A toolkit that is not there: no nvcc on PATH and none in the usual places is simulated by a
    # torch without CUDA, which fails first in the same way.
    script = (
        "import torch, sys; torch.version.cuda = None; sys.argv = ['setup.py', '--version'];"
        "exec(open('setup.py').read(), {'__file__': 'setup.py', '__name__': '__main__'})"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "FORCE_CUDA": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "FORCE_CUDA=1, but torch" in run.stderr
    assert "CPU-only build" in run.stderr


def test_setup_prints_its_decision():
    run = setup(["--version"], FORCE_CUDA="0")
    assert run.returncode == 0, run.stderr
    assert "not building CUDA kernels: FORCE_CUDA=0" in run.stdout
    assert run.stdout.strip().endswith(repsim_fast.__version__)


def test_gpu_tensor_without_gpu_kernels_is_an_error(monkeypatch):
    from repsim_fast import ops
    from repsim_fast.ops import extension

    monkeypatch.setattr(extension, "cuda_missing", "this build has no CUDA kernels: a test")
    with (
        torch._subclasses.FakeTensorMode(),
        pytest.raises(RuntimeError, match="x: is on cuda:0, but this build has no CUDA kernels"),
    ):
        ops.centered_gram(torch.empty(8, 3, device="cuda"))


def test_missing_core_says_how_to_build():
    script = (
        "import sys; sys.modules['repsim_fast._C'] = None\n"
        "try:\n    import repsim_fast\n"
        "except ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install --no-build-isolation ." in run.stdout


def test_extension_uses_the_stable_abi_only():
    """No ATen, c10 or torch C++ symbol is imported, so another torch version can load it."""
    folder = Path(repsim_fast.__file__).parent
    for library in folder.glob("_C*.so"):
        run = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True)
        symbols = run.stdout.decode().split()
        unstable = [s for s in symbols if re.match(r"_ZNK?(2at|3c10|5torch)", s)]
        assert not unstable, f"{library.name} imports {unstable[:5]}"


def test_readme_and_ci_call_the_same_commands():
    for name in ("README.md", ".ci/run"):
        text = (ROOT / name).read_text()
        for command in ("make demo", "make test"):
            assert command in text, f"{name} does not call {command}"
