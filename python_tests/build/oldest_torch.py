"""Compiles the C++ sources with the headers of the oldest torch that the package promises.

    python python_tests/build/oldest_torch.py

Newer headers have what older ones lack. Only the headers are taken from that torch (its wheel is
fetched with pip, without what it depends on), and nothing is linked: whether a build also runs with
another torch is for wheel_check.sh. Operators of CUDA tensors need the CUDA runtime's headers
(CUDA_HOME or nvcc on PATH) and are left out, by name, without them.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[2]
OLDEST = os.environ.get("OLDEST_TORCH", "2.11.0")


def torch_headers(folder: Path) -> Path:
    """The include folder of the oldest torch, unpacked into `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, f"torch=={OLDEST}"], check=True)
    (wheel,) = folder.glob("torch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(
            folder, [n for n in archive.namelist() if n.startswith("torch/include/")]
        )
    wheel.unlink()
    return folder / "torch" / "include"


def cuda_headers() -> Path | None:
    """The include folder of the CUDA toolkit, None without one."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and Path(nvcc).resolve().parents[1]]
    homes.append("/usr/local/cuda")
    includes = [Path(home) / "include" for home in homes if home]
    return next((i for i in includes if (i / "cuda_runtime_api.h").exists()), None)


def problems(source: Path, headers: list[Path]) -> str:
    """What the compiler says; empty if nothing."""
    command = [
        *(
            os.environ.get("CXX", "c++"),
            "-std=c++20",
            "-O3",
            "-fsyntax-only",
            "-fvisibility=hidden",
        ),
        *("-Wall", "-Wextra", "-Wno-psabi", "-Werror"),
        *("-DTORCH_TARGET_VERSION=0x020b000000000000", "-DUSE_CUDA"),
        *('-DREPSIM_CXX=""', '-DREPSIM_CXX_FLAGS=""', '-DREPSIM_TORCH_TARGET=""'),
        *('-DREPSIM_TORCH_BUILT_WITH=""', '-DREPSIM_CUDA=""', '-DREPSIM_CUDA_REASON=""'),
        *('-DREPSIM_CUDA_ARCHITECTURES=""', "-DTORCH_EXTENSION_NAME=_C"),
        f"-I{ROOT / 'csrc'}",
        *(f"-isystem{folder}" for folder in headers),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{source.relative_to(ROOT)}:\n{done.stderr}"


def main() -> int:
    csrc = ROOT / "csrc"
    sources = [*csrc.glob("*.cpp"), *csrc.glob("cpu/**/*.cpp")]
    with tempfile.TemporaryDirectory() as folder:
        torch = torch_headers(Path(folder))
        # torch comes with a pybind11 of its own, which refuses to be included.
        headers = [Path(pybind11.get_include()), Path(sysconfig.get_path("include"))]
        headers += [torch, torch / "torch/csrc/api/include"]
        cuda = cuda_headers()
        operators = sorted(csrc.glob("cuda/**/*.cpp"))
        if cuda is None:
            print("not compiled, as there are no CUDA headers:", *(o.name for o in operators))
        else:
            sources += operators
            headers.append(cuda)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            found = [text for text in pool.map(lambda s: problems(s, headers), sources) if text]
    print("\n".join([*found, f"{len(sources) - len(found)} of {len(sources)} sources compile"
                     f" with torch {OLDEST}"]))  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
