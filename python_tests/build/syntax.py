"""Our own C++ without a warning: every source that g++ or clang++ compiles, warnings as errors.

    python python_tests/build/syntax.py

Nothing is written. With the headers of the torch that is installed, or of another: `problems`.
Operators of CUDA tensors need the CUDA runtime's headers (CUDA_HOME or nvcc on PATH) and are left
out, by name, without them.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
FLAGS = [
    *("-std=c++20", "-O3", "-fsyntax-only", "-fvisibility=hidden"),
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


def problem(source: Path, headers: list[Path]) -> str:
    """What the compiler says; empty if nothing."""
    command = [os.environ.get("CXX", "c++"), *FLAGS, *(f"-isystem{folder}" for folder in headers)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{source.relative_to(ROOT)}:\n{done.stderr}"


def problems(torch: Path) -> list[str]:
    """What the compiler says with the headers of this torch, a package's folder."""
    headers = [Path(pybind11.get_include()), Path(sysconfig.get_path("include"))]
    headers += [torch / "include", torch / "include/torch/csrc/api/include"]
    cuda = cuda_headers()
    if cuda is None:
        left_out = sorted({*sources(cuda=True)} - {*sources(cuda=False)})
        print("not compiled, as there are no CUDA headers:", *(s.name for s in left_out))
    else:
        headers.append(cuda)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [p for p in pool.map(lambda s: problem(s, headers), sources(cuda is not None)) if p]


def main() -> None:
    """Status 1 and the compiler's messages if there is one."""
    import torch

    found = problems(Path(torch.__file__).parent)
    sys.exit("\n".join(found) if found else 0)


if __name__ == "__main__":
    main()
