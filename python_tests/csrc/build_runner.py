"""Builds the test-only module in which the CUDA kernels run on the CPU (csrc/README.md).

The same `.cu` files that nvcc compiles are compiled as C++ here, with the runner's fibre engine,
the pybind11 module of the launchers and the CUDA operators registered for CPU tensors. The result
is kept in `build/cuda_runner/<hash of the sources>/`, so that only a change rebuilds it.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pybind11
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
MODULE = "_cuda_runner"

SOURCES = [
    *sorted(CSRC.glob("cuda/*.cu")),
    *sorted(CSRC.glob("cuda/*.cpp")),
    CSRC / "tests" / "probe_kernels.cu",
    CSRC / "tests" / "runner_fibres.cpp",
    CSRC / "tests" / "runner_module.cpp",
]

# -O1 compiles fast and is fast enough; the fibres switch by longjmp, which fortified libraries
# refuse; contraction off, so that float results do not depend on the machine.
FLAGS = [
    *("-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"),
    *("-DREPSIM_CPU_RUNNER", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
    f"-I{CSRC}",
    *(
        f"-isystem{path}"
        for path in (
            sysconfig.get_paths()["include"],
            pybind11.get_include(),
            *cpp_extension.include_paths(),
        )
    ),
]


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _digest() -> str:
    digest = hashlib.sha256()
    version = subprocess.run([_compiler(), "--version"], capture_output=True, check=True).stdout
    for part in (version, " ".join(FLAGS).encode(), torch.__version__.encode()):
        digest.update(part)
    for folder in ("common", "cuda", "math", "tests"):
        for path in sorted((CSRC / folder).iterdir()):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def build() -> Path:
    """Path of the built module; compiles it if its sources changed (about 20 s on two cores)."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = ROOT / "build" / "cuda_runner" / _digest() / f"{MODULE}{suffix}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [str(Path(folder) / f"{source.name}.o") for source in SOURCES]
        commands = [
            [_compiler(), *FLAGS, "-x", "c++", "-c", str(source), "-o", out]
            for source, out in zip(SOURCES, objects, strict=True)
        ]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        linked = str(Path(folder) / MODULE)
        libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
        _run(
            [
                *(_compiler(), "-shared", "-o", linked, *objects, *libraries),
                *("-ltorch", "-ltorch_cpu", "-lc10"),
            ]
        )
        os.replace(linked, target)  # another process may be building the same
    return target


if __name__ == "__main__":
    print(build())
