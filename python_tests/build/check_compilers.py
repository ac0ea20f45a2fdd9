"""Every C++ source with each compiler that is here, warnings as errors.

    python python_tests/build/check_compilers.py [COMPILER ...]
    python python_tests/build/check_compilers.py --quick    # the package alone, read by $CXX

g++ and clang++ under every name that they have on PATH, and g++ for aarch64, or clang++ without it;
not $CXX, with which the package is built and which --quick asks, unless it is named or alone. CPU
kernels are compiled down to assembly, for some errors come no earlier (instructions that a function
may not use); all else, and CUDA kernels with the runner that executes them on the CPU, is read
only, the latter by native compilers. Nothing is written. Operators of CUDA tensors need the CUDA
runtime's headers (CUDA_HOME or nvcc on PATH) and are left out, by name, without them.

About a minute of one core for each compiler. `problems` is the quick check, with the headers of
any torch.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pybind11

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from python_tests.csrc.build_runner import runner_commands

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CROSS = "aarch64-linux-gnu"
FLAGS = [
    *("-std=c++20", "-O1", "-fvisibility=hidden"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-Werror"),
    *("-DTORCH_TARGET_VERSION=0x020b000000000000", "-DUSE_CUDA", "-DTORCH_EXTENSION_NAME=_C"),
    *(
        f'-DREPSIM_{name}=""'
        for name in ("CXX", "CXX_FLAGS", "TORCH_TARGET", "TORCH_BUILT_WITH", "CUDA", "CUDA_REASON")
    ),
    '-DREPSIM_CUDA_ARCHITECTURES=""',
    f"-I{CSRC}",
]


def cuda_headers() -> Path | None:
    """The include folder of the CUDA toolkit, None without one."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and Path(nvcc).resolve().parents[1]]
    homes.append("/usr/local/cuda")
    includes = [Path(home) / "include" for home in homes if home]
    return next((i for i in includes if (i / "cuda_runtime_api.h").exists()), None)


def sources(cuda: bool) -> list[Path]:
    """What is part of the package; operators of CUDA tensors as asked."""
    found = [p for p in sorted(CSRC.rglob("*.cpp")) if CSRC / "tests" not in p.parents]
    return [p for p in found if cuda or CSRC / "cuda" not in p.parents]


class Compiler(NamedTuple):
    """How it is called, and what it says that it is."""

    command: tuple[str, ...]
    version: str


def compilers(named: Sequence[str]) -> list[Compiler]:
    """Those that were named, or those of the description; each once, whatever its names."""
    usual, cross = os.environ.get("CXX", "c++"), f"{CROSS}-g++"
    versions = [*(f"g++-{v}" for v in range(11, 20)), *(f"clang++-{v}" for v in range(14, 25))]
    found: dict[Path, Compiler] = {}
    for name in named or [usual, "g++", "clang++", *versions, cross]:
        if (path := shutil.which(name)) is None:
            if name in named:
                sys.exit(f"{name}: not found")
            continue
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
        found.setdefault(Path(path).resolve(), Compiler((name,), said.stdout.splitlines()[0]))
    if named:
        return list(found.values())
    everything = [c for c in found.values() if c.command != (usual,)] or list(found.values())
    clang = next((c for c in everything if "clang" in c.version), None)
    if shutil.which(cross) is None and clang is not None:
        target = f"--target={CROSS}"
        everything.append(Compiler((*clang.command, target), f"{clang.version} for aarch64"))
    return everything


def problem(command: Sequence[str], source: Path) -> str:
    """What the compiler says; empty if nothing."""
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{source.relative_to(ROOT)}:\n{done.stderr}"


def package_commands(
    torch: Path, compiler: Sequence[str], *, assembly: bool
) -> list[tuple[list[str], Path]]:
    """For each source of the package, with the headers of this torch, a package's folder. CPU
    kernels are read only, or compiled down to assembly."""
    # torch comes with a pybind11 of its own, which refuses to be included.
    headers = [Path(pybind11.get_include()), Path(sysconfig.get_path("include"))]
    headers += [torch / "include", torch / "include/torch/csrc/api/include"]
    cuda = cuda_headers()
    if cuda is None:
        left_out = sorted({*sources(cuda=True)} - {*sources(cuda=False)})
        print("not compiled, as there are no CUDA headers:", *(s.name for s in left_out))
    else:
        headers.append(cuda)
    command = [*compiler, *FLAGS, *(f"-isystem{folder}" for folder in headers)]
    read, compiled = [*command, "-fsyntax-only"], [*command, "-S", "-o", os.devnull]
    return [
        (compiled if assembly and source.stem.endswith("_kernels") else read, source)
        for source in sources(cuda is not None)
    ]


def run(jobs: Sequence[tuple[list[str], Path]]) -> list[str]:
    """What compilers say of all jobs, if anything."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [said for said in pool.map(lambda job: problem(*job), jobs) if said]


def problems(torch: Path) -> list[str]:
    """What $CXX says of the package, read with the headers of this torch, a package's folder."""
    return run(package_commands(torch, [os.environ.get("CXX", "c++")], assembly=False))


def main() -> int:
    """Status 1, and the compilers' messages, if there is one."""
    import torch

    if sys.argv[1:] == ["--quick"]:
        print(*(found := problems(Path(torch.__file__).parent)), sep="\n", end="")
        return int(bool(found))
    failed = False
    for compiler in compilers(sys.argv[1:]):
        jobs = package_commands(Path(torch.__file__).parent, compiler.command, assembly=True)
        if CROSS not in " ".join((*compiler.command, compiler.version)):
            runner = runner_commands(compiler.command)
            threads = [CSRC / "tests" / f"{n}.cpp" for n in ("runner_threads", "sanitize_main")]
            runner += [(source, runner[0][1]) for source in threads]
            jobs += [([*command, "-Werror", "-fsyntax-only"], source) for source, command in runner]
        found = run(jobs)
        said = f"{len(found)} FAILED" if found else "no warning"
        print(f"{compiler.version}: {len(jobs)} sources, {said}", flush=True)
        print(*found, sep="\n", end="")
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
