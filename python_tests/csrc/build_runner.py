"""Builds the test-only module of the CUDA launchers, for the CPU or for a GPU (csrc/README.md),
and with it that of the kernel study (benchmarks/kernels), which runs the same kernels.

For the CPU the `.cu` files that nvcc compiles are compiled as C++, with the runner's fibre engine
and with the CUDA operators registered for CPU tensors. For a GPU they are compiled by nvcc, for
the GPU that is there. The result is kept in `build/cuda_runner/<device>-<hash of the sources>/`,
so that only a change rebuilds it.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pybind11
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
STUDY = ROOT / "benchmarks" / "kernels"
MODULE, STUDY_MODULE = "_cuda_runner", "_kernel_study"  # of one shared object

KERNELS = [
    *sorted(CSRC.glob("cuda/**/*.cu")),
    CSRC / "tests" / "probe_kernels.cu",
    *sorted(STUDY.glob("*.cu")),
]
BINDINGS = [CSRC / "tests" / "runner_module.cpp"]
CPU_ONLY = [*sorted(CSRC.glob("cuda/**/*.cpp")), CSRC / "tests" / "runner_fibres.cpp"]

INCLUDES = [
    f"-I{CSRC}",
    f"-I{STUDY.parent}",
    *(
        f"-isystem{path}"
        for path in (
            sysconfig.get_paths()["include"],
            pybind11.get_include(),
            *cpp_extension.include_paths(),
        )
    ),
]
# -O1 compiles fast and is fast enough; the fibres switch by longjmp, which fortified libraries
# refuse; contraction off, so that float results do not depend on the machine.
CXX_FLAGS = [
    *("-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Wno-psabi"),
    *("-DREPSIM_CPU_RUNNER", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
]
if os.environ.get("REPSIM_WERROR") == "1":
    CXX_FLAGS.append("-Werror")
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", "--expt-relaxed-constexpr", "-Xcompiler", "-fPIC"]


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _nvcc() -> str:
    if cpp_extension.CUDA_HOME is None:
        raise RuntimeError("nvcc was not found: set CUDA_HOME")
    return str(Path(cpp_extension.CUDA_HOME) / "bin" / "nvcc")


def runner_commands(compiler: Sequence[str]) -> list[tuple[Path, list[str]]]:
    """Each source of the module for the CPU, with the command that compiles it."""
    command = [*compiler, *CXX_FLAGS, *INCLUDES, "-x", "c++"]
    return [(source, command) for source in (*KERNELS, *BINDINGS, *CPU_ONLY)]


def _commands(device: str) -> tuple[list[tuple[Path, list[str]]], tuple[list[str], list[str]]]:
    """Each source with the command that compiles it, and what comes before and after the names of
    the objects to link them."""
    cxx = [_compiler(), *CXX_FLAGS, *INCLUDES, "-x", "c++"]
    if device == "cpu":
        libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
        libraries += ["-ltorch", "-ltorch_cpu", "-lc10"]
        return runner_commands([_compiler()]), ([_compiler(), "-shared"], libraries)
    major, minor = torch.cuda.get_device_capability()
    # Products by warpgroups are of sm_90a alone, not of later architectures.
    hopper = (major, minor) == (9, 0)
    name = f"{major}{minor}{'a' if hopper else ''}"
    target = f"-gencode=arch=compute_{name},code=sm_{name}"
    nvcc = [
        _nvcc(),
        *NVCC_FLAGS,
        *["-DREPSIM_SM90A"] * hopper,
        target,
        f"-I{CSRC}",
        f"-I{STUDY.parent}",
    ]
    commands = [*((source, nvcc) for source in KERNELS), *((source, cxx) for source in BINDINGS)]
    # nvcc knows where its libraries are, also where the one on PATH is a link or a wrapper.
    return commands, ([_nvcc(), "-shared", "-cudart", "shared"], [])


def _compiled_faster(
    commands: list[tuple[Path, list[str]]], scratch: Path
) -> list[tuple[Path, list[str]]]:
    """The same objects, for the CPU, in half of the time: the words that every kernel reads first
    are compiled once, the operators, most of whose text is torch's, as one source, and the
    bindings, which take no time when called, without being optimised."""
    cxx = commands[0][1]
    words = scratch / "words.h"
    words.write_text('#include "cuda/portability/portability.h"\n')
    _run([*cxx[:-1], "c++-header", str(words), "-o", f"{words}.gch"])
    operators = scratch / "operators.cpp"
    operators.write_text("".join(f'#include "{source}"\n' for source in CPU_ONLY))
    return [
        *((source, [*cxx, "-O0"]) for source in BINDINGS),
        (operators, cxx),
        *((source, [*cxx, "-include", str(words)]) for source in KERNELS),
    ]


def _digest(commands: object) -> str:
    digest = hashlib.sha256()
    version = subprocess.run([_compiler(), "--version"], capture_output=True, check=True).stdout
    for part in (version, repr(commands).encode(), torch.__version__.encode()):
        digest.update(part)
    folders = [*(CSRC / name for name in ("common", "cuda", "math", "tests")), STUDY]
    for path in (path for folder in folders for path in sorted(folder.rglob("*"))):
        if path.suffix in (".h", ".cpp", ".cu", ".cuh"):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def build(device: str = "cpu") -> Path:
    """Path of the module for "cpu" or "cuda"; compiles it if its sources changed (about 20 s)."""
    commands, (link, libraries) = _commands(device)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    folder = ROOT / "build" / "cuda_runner" / f"{device}-{_digest(commands)}"
    target = folder / f"{MODULE}{suffix}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():  # another process has built it meanwhile
            return target
        if device == "cpu":
            commands = _compiled_faster(commands, Path(scratch))
        objects = [str(Path(scratch) / f"{source.name}.o") for source, _ in commands]
        complete = [
            [*command, "-c", str(source), "-o", out]
            for (source, command), out in zip(commands, objects, strict=True)
        ]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, complete))
        linked = str(Path(scratch) / MODULE)
        _run([*link, "-o", linked, *objects, *libraries])
        os.replace(linked, target)
    return target


def load(device: str = "cpu", name: str = MODULE) -> ModuleType:
    """The built module; its `device` says where the tensors have to be whose pointers it takes."""
    spec = importlib.util.spec_from_file_location(name, build(device))
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} for {device}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.device = torch.device(device)
    return module


if __name__ == "__main__":
    print(build(*sys.argv[1:]))
