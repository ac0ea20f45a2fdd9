"""Builds the two shared objects of repsim_fast.

_C       operator schemas, CPU kernels and the pybind11 module with the build's own description
_C_cuda  CUDA kernels, a plain library loaded at run time when torch has CUDA

Both use torch's stable ABI only, so a build with one torch (>= 2.11) runs with later ones.
Environment: FORCE_CUDA=1 (fail when CUDA cannot be built), FORCE_CUDA=0 (do not build it),
TORCH_CUDA_ARCH_LIST (compute capabilities from 7.5 on; empty: the default ones), CUDA_HOME,
MAX_JOBS, REPSIM_WERROR=1 (warnings are errors),
REPSIM_BUILD_EXTENSIONS=0 (metadata only, for `pip install -e`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import setuptools

if int(setuptools.__version__.partition(".")[0]) < 77:
    sys.exit(
        f"repsim_fast: setuptools {setuptools.__version__} is too old; without build isolation "
        'first: pip install "setuptools>=77" wheel ninja pybind11'
    )
try:
    import pybind11
    import torch
except ImportError as error:
    sys.exit(
        f"repsim_fast: {error.name} is missing; without build isolation first: "
        'pip install "torch>=2.11" "setuptools>=77" wheel ninja pybind11'
    )
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parent
TORCH_TARGET = (2, 11)

# Code for 8.0 also runs on 8.6 and 8.9; PTX of the last one is for cards still to come.
DEFAULT_CUDA_ARCHITECTURES = ((8, 0), (9, 0), (10, 0), (12, 0))
# Below, the instruction is missing that loads a matrix from shared memory (ldmatrix).
MINIMAL_CUDA_ARCHITECTURE = (7, 5)
# From here on every source of the repository compiles, those of the kernel study included.
MINIMAL_NVCC = (12, 5)

WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi"]
if os.environ.get("REPSIM_WERROR") == "1":
    WARNINGS.append("-Werror")


def sources(*patterns: str) -> list[str]:
    found = [path for pattern in patterns for path in sorted((ROOT / "csrc").glob(pattern))]
    return [str(path.relative_to(ROOT)) for path in found]


def headers() -> list[str]:
    found = [path for path in (ROOT / "csrc").rglob("*.*h") if path.suffix in (".h", ".cuh")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def first_line(command: list[str]) -> str:
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return output.splitlines()[0] if output else "unknown"


def cuda_home() -> str | None:
    """The toolkit with compiler and headers. torch takes the folder above the nvcc on PATH, which
    is wrong where that nvcc is a link or a wrapper (/usr/local/bin/nvcc)."""
    candidates = [os.environ.get("CUDA_HOME"), cpp_extension.CUDA_HOME]
    if (nvcc := shutil.which("nvcc")) is not None:
        candidates.append(str(Path(nvcc).resolve().parent.parent))
    candidates.append("/usr/local/cuda")
    for home in filter(None, candidates):
        if (Path(home) / "bin/nvcc").exists() and (
            Path(home) / "include/cuda_runtime_api.h"
        ).exists():
            return home
    return None


# Where torch's builder looks, too.
cpp_extension.CUDA_HOME = cuda_home()


def nvcc_release() -> str | None:
    """Version of the CUDA compiler, such as "13.0", or None without one."""
    if cpp_extension.CUDA_HOME is None:
        return None
    nvcc = Path(cpp_extension.CUDA_HOME) / "bin/nvcc"
    output = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True).stdout
    return output.partition("release ")[2].partition(",")[0] or None


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def nvcc_architectures() -> set[tuple[int, int]]:
    """Compute capabilities that the CUDA compiler has code for."""
    nvcc = Path(cpp_extension.CUDA_HOME or "") / "bin/nvcc"
    output = subprocess.run([str(nvcc), "--list-gpu-arch"], capture_output=True, text=True).stdout
    return {(int(major), int(minor)) for major, minor in re.findall(r"compute_(\d+)(\d)", output)}


def cuda_architectures() -> tuple[str, list[str]]:
    """What to compile for, as torch's builder reads it, and what was asked for but cannot be."""
    asked = re.split(r"[;, ]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip(";, "))
    if asked == [""]:  # which would make torch's builder look for a GPU
        known = nvcc_architectures()
        return ";".join(dotted(c) for c in DEFAULT_CUDA_ARCHITECTURES if c in known) + "+PTX", []
    # Names such as Ampere mean to torch what they mean to its version.
    os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(asked)
    try:
        flags = " ".join(cpp_extension._get_cuda_arch_flags())
    except ValueError as error:
        sys.exit(f"repsim_fast: TORCH_CUDA_ARCH_LIST={';'.join(asked)}: {error}")
    kinds: dict[tuple[int, int, str], set[str]] = {}
    for kind, major, minor, exact in re.findall(r"code=(sm|compute)_(\d+)(\d)(a?)", flags):
        kinds.setdefault((int(major), int(minor), exact), set()).add(kind)
    # What is too old in a list for many packages is no reason to build nothing.
    names, too_old = [], []
    for (major, minor, exact), code in sorted(kinds.items()):
        old = (major, minor) < MINIMAL_CUDA_ARCHITECTURE
        name = f"{major}.{minor}{exact}{'+PTX' if 'compute' in code else ''}"
        (too_old if old else names).append(name)
    return ";".join(names), too_old


def cuda_decision() -> tuple[bool, str]:
    """Whether to build the CUDA kernels, and why; never asks whether a GPU is present."""
    wanted = os.environ.get("FORCE_CUDA")
    if wanted == "0":
        return False, "FORCE_CUDA=0"
    problem = None
    nvcc = nvcc_release()
    if not sources("cuda/**/*.cu"):
        problem = "there are no CUDA sources"
    elif torch.version.cuda is None:
        problem = f"torch {torch.__version__} is a CPU-only build"
    elif nvcc is None:
        problem = "nvcc was not found (set CUDA_HOME)"
    elif nvcc.split(".")[0] != torch.version.cuda.split(".")[0]:
        problem = f"nvcc {nvcc} and torch's CUDA {torch.version.cuda} differ in major version"
    elif version_numbers(nvcc) < MINIMAL_NVCC:
        problem = f"nvcc {nvcc} is too old: {dotted(MINIMAL_NVCC)} or later is needed"
    elif not cuda_architectures()[0]:
        asked = os.environ["TORCH_CUDA_ARCH_LIST"]
        least = dotted(MINIMAL_CUDA_ARCHITECTURE)
        problem = f"TORCH_CUDA_ARCH_LIST={asked} has nothing from compute capability {least} on"
    if problem is None:
        return True, f"nvcc {nvcc}, torch with CUDA {torch.version.cuda}"
    if wanted == "1":
        sys.exit(f"repsim_fast: FORCE_CUDA=1, but {problem}")
    return False, problem


def torch_target_flag() -> str:
    major, minor = TORCH_TARGET
    return f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000"


CXX_FLAGS = ["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", "-DNDEBUG", *WARNINGS]
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", "--expt-relaxed-constexpr"]
if os.environ.get("REPSIM_WERROR") == "1":
    NVCC_FLAGS += ["-Werror", "all-warnings"]


def system_headers() -> list[str]:
    """Other people's headers, whose warnings are not ours. torch's builder gives them by -I, too,
    which g++ and clang++ ignore for a folder that is also given by -isystem."""
    # pybind11 first: some versions of torch have one of their own, which refuses to be included.
    folders = [pybind11.get_include(), sysconfig.get_path("include")]
    folders += cpp_extension.include_paths()
    if cpp_extension.CUDA_HOME is not None:
        folders.append(str(Path(cpp_extension.CUDA_HOME) / "include"))
    # The compiler's own folders come in its own order, which -isystem would change.
    own = {Path("/usr/include"), Path("/usr/local/include")}
    return [f"-isystem{folder}" for folder in folders if Path(folder).resolve() not in own]


def definition(name: str, value: str) -> tuple[str, str]:
    return name, '"' + value.replace('"', "'") + '"'


def extensions() -> list[Extension]:
    if os.environ.get("REPSIM_BUILD_EXTENSIONS") == "0":
        return []
    with_cuda, reason = cuda_decision()
    print(f"repsim_fast: {'building' if with_cuda else 'not building'} CUDA kernels: {reason}")
    compiler = os.environ.get("CXX", "c++")
    architectures = ""
    if with_cuda:
        architectures, too_old = cuda_architectures()
        os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
        left_out = f"; left out, below {dotted(MINIMAL_CUDA_ARCHITECTURE)}: {' '.join(too_old)}"
        print(f"repsim_fast: for compute capabilities {architectures}{left_out if too_old else ''}")

    built = [
        cpp_extension.CppExtension(
            "repsim_fast._C",
            sources("*.cpp", "cpu/**/*.cpp"),
            include_dirs=[str(ROOT / "csrc")],
            depends=headers(),
            define_macros=[
                definition("REPSIM_CXX", first_line([compiler, "--version"])),
                definition("REPSIM_CXX_FLAGS", " ".join(CXX_FLAGS)),
                definition("REPSIM_TORCH_TARGET", dotted(TORCH_TARGET)),
                definition("REPSIM_TORCH_BUILT_WITH", torch.__version__),
                definition("REPSIM_CUDA", nvcc_release() or "" if with_cuda else ""),
                definition("REPSIM_CUDA_ARCHITECTURES", architectures),
                definition("REPSIM_CUDA_REASON", reason),
            ],
            extra_compile_args={"cxx": [*CXX_FLAGS, *system_headers(), torch_target_flag()]},
        )
    ]
    if with_cuda:
        built.append(
            cpp_extension.CUDAExtension(
                "repsim_fast._C_cuda",
                sources("cuda/**/*.cpp", "cuda/**/*.cu"),
                include_dirs=[str(ROOT / "csrc")],
                depends=headers(),
                extra_compile_args={
                    "cxx": [*CXX_FLAGS, *system_headers(), torch_target_flag(), "-DUSE_CUDA"],
                    "nvcc": NVCC_FLAGS,
                },
            )
        )
    return built


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Waits until no other process does the same in this folder."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class BuildExtension(cpp_extension.BuildExtension):
    """One at a time: two processes would write the same objects."""

    def run(self) -> None:
        with alone("build_ext"):
            super().run()


class BuildWheel(bdist_wheel):
    """A wheel has the extension, without which nothing of the package can be imported."""

    def run(self) -> None:
        if not self.distribution.ext_modules:
            sys.exit("repsim_fast: REPSIM_BUILD_EXTENSIONS=0 is for `pip install -e`, not a wheel")
        super().run()


# ninja, which compiles in parallel and only what changed, is in the environment; that is not on
# PATH where pip or python is called by its path.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])

setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension, "bdist_wheel": BuildWheel},
)
