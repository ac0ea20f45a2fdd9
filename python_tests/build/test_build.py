from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import repsim_fast
from python_tests.support.forked import run_python
from repsim_fast import build_info

ROOT = Path(__file__).resolve().parents[2]


def setup(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python(ROOT / "setup.py", *arguments, cwd=ROOT, env=environment)


def test_build_info_says_what_was_built():
    info = build_info()
    assert info["torch_target"] == "2.11"
    assert re.match(r"\d+\.\d+", info["torch_built_with"])
    assert "-std=c++20" in info["compiler_flags"]
    assert info["simd_level"] in ("baseline", "avx2", "avx512", "avx512_vnni", "amx")
    if info["cuda"]:
        assert info["cuda_architectures"]
    else:
        assert info["cuda_missing"], "without CUDA kernels there is a reason"


def in_setup(
    before: str = "", after: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`setup.py --version`, with lines of Python before and after it in the same process."""
    script = f"""
import sys
sys.argv = ["setup.py", "--version"]
{before}
space = {{"__file__": "setup.py", "__name__": "__main__"}}
exec(open("setup.py").read(), space)
{after}
"""
    return run_python(script, cwd=ROOT, env=environment)


def test_forced_cuda_fails_loudly_without_a_compiler():
    # A torch without CUDA fails first, in the way that a missing toolkit does.
    run = in_setup(before="import torch; torch.version.cuda = None", FORCE_CUDA="1")
    assert run.returncode != 0
    assert "FORCE_CUDA=1, but torch" in run.stderr
    assert "CPU-only build" in run.stderr


def cuda_build(
    nvcc: str = "13.0", known: str = "80 86 90 100 103 120", after: str = "", **environment: str
) -> str:
    """What setup.py says of its CUDA build, with a torch and an nvcc that are not there."""
    before = f"""
import os, subprocess, torch
from pathlib import Path
torch.version.cuda = {nvcc!r}
home = Path({str(ROOT)!r}) / "no-toolkit"
answers = {{"--version": "release {nvcc}, V", "--list-gpu-arch": " ".join(
    "compute_" + name for name in {known!r}.split())}}
run, exists = subprocess.run, Path.exists
subprocess.run = lambda command, **options: (
    subprocess.CompletedProcess(command, 0, answers[command[1]], "")
    if command[0].endswith("nvcc") else run(command, **options))
Path.exists = lambda path: str(path).startswith(str(home)) or exists(path)
"""
    done = in_setup(before, after, CUDA_HOME=str(ROOT / "no-toolkit"), **environment)
    return done.stdout + done.stderr


def test_without_a_list_every_known_card_is_built_for():
    line = "for compute capabilities 8.0;9.0;10.0;12.0+PTX\n"
    assert line in cuda_build(TORCH_CUDA_ARCH_LIST="")
    old = cuda_build(nvcc="12.6", known="80 86 90", TORCH_CUDA_ARCH_LIST=" ; ")
    assert "for compute capabilities 8.0;9.0+PTX\n" in old


def test_what_can_be_built_of_a_list_is():
    built = {
        "7.5": ("7.5", []),
        "9.0a": ("9.0a", []),
        "Turing 8.0": ("7.5+PTX;8.0", []),
        "7.0;7.5,8.6+PTX": ("7.5;8.6+PTX", ["7.0"]),
    }
    after = f"""
for asked, want in {built!r}.items():
    os.environ["TORCH_CUDA_ARCH_LIST"] = asked
    print("list", asked, space["cuda_architectures"]() == want)
"""
    said = cuda_build(after=after, TORCH_CUDA_ARCH_LIST="7.0 8.0")
    assert "for compute capabilities 8.0; left out, below 7.5: 7.0\n" in said
    assert [f"list {asked} True" in said for asked in built] == [True] * len(built), said


def test_lists_with_nothing_to_build_are_named():
    message = "TORCH_CUDA_ARCH_LIST=6.1;7.0 has nothing from compute capability 7.5 on"
    asked = {"TORCH_CUDA_ARCH_LIST": "6.1;7.0"}
    assert f"not building CUDA kernels: {message}" in cuda_build(**asked)
    assert f"FORCE_CUDA=1, but {message}" in cuda_build(FORCE_CUDA="1", **asked)
    unknown = cuda_build(TORCH_CUDA_ARCH_LIST="abc")
    assert "TORCH_CUDA_ARCH_LIST=abc: Unknown CUDA arch (abc)" in unknown


def test_an_nvcc_that_is_too_old_is_named():
    assert "nvcc 12.4 is too old: 12.5 or later is needed" in cuda_build(nvcc="12.4")
    assert "building CUDA kernels: nvcc 12.10" in cuda_build(nvcc="12.10")


def test_a_wheel_has_the_extension(tmp_path):
    # Half an installation would fail at its first import.
    run = setup(["bdist_wheel", "-d", str(tmp_path)], REPSIM_BUILD_EXTENSIONS="0")
    assert run.returncode != 0
    assert "REPSIM_BUILD_EXTENSIONS=0 is for `pip install -e`" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["pybind11", "torch"])
def test_setup_names_what_it_needs(missing):
    run = in_setup(before=f"sys.modules[{missing!r}] = None")
    assert run.returncode != 0
    assert f"{missing} is missing" in run.stderr
    needed = run.stderr.strip().partition("pip install ")[2].replace('"torch>=2.11" ', "")
    assert f"pip install {needed}\n" in (ROOT / "README.md").read_text()


def test_old_setuptools_is_named():
    run = in_setup(before="import setuptools; setuptools.__version__ = '76.1.0'")
    assert run.returncode != 0
    assert "setuptools 76.1.0 is too old" in run.stderr


def test_ninja_of_the_environment_is_found():
    """Also where its folder is not on PATH: pip and Python called by their paths."""
    own = str(Path(sys.executable).parent)
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != own]
    after = "print('ninja', space['cpp_extension'].is_ninja_available())"
    run = in_setup(after=after, PATH=os.pathsep.join(others), FORCE_CUDA="0")
    assert run.stdout.strip().endswith("ninja True"), run.stdout + run.stderr


def test_other_peoples_headers_are_system_headers():
    run = in_setup(after="print('headers', *space['system_headers']())", FORCE_CUDA="0")
    folders = run.stdout.strip().splitlines()[-1].split()[1:]
    assert all(folder.startswith("-isystem/") for folder in folders)
    # torch may come with a pybind11 of its own, which refuses to be included.
    assert "pybind11" in folders[0]
    assert any(folder.endswith("torch/include") for folder in folders)
    assert "-isystem/usr/include" not in folders  # whose order is the compiler's


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
        "try:\n    from repsim_fast import ops\n"
        "except ImportError as error:\n    print(error)"
    )
    run = run_python(script)
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
