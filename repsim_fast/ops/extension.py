"""Loads the compiled parts: `_C` always, `_C_cuda` when torch has CUDA."""

from __future__ import annotations

from pathlib import Path

import torch

try:
    from repsim_fast import _C
except ImportError as error:
    raise ImportError(
        "repsim_fast's compiled module _C could not be loaded. Build it with "
        "`pip install --no-build-isolation .` in the repository (a C++20 compiler is needed); "
        f"in a source tree, `make build` does it in place. Cause: {error}"
    ) from error

_C.simd_level()  # says at once that REPSIM_SIMD names no level, not in the first operator


def _load_cuda() -> str:
    """Registers the CUDA kernels; returns "" or the reason why there are none."""
    if not _C.build_info()["cuda"]:
        return f"this build has no CUDA kernels: {_C.build_info()['cuda_reason']}"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU-only build"
    libraries = sorted(Path(__file__).parents[1].glob("_C_cuda*.so"))
    if not libraries:
        return "the CUDA library _C_cuda is missing from the installation"
    try:
        torch.ops.load_library(str(libraries[0]))  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"the CUDA library could not be loaded: {error}"
    return ""


cuda_missing: str = _load_cuda()
"""Why the CUDA kernels are not there; empty when they are."""


def build_info() -> dict[str, str]:
    """What this build is and what it found: compilers, flags, torch target, CUDA, SIMD level and
    those that the processor has, and the threads that torch gives the CPU kernels."""
    info: dict[str, str] = dict(_C.build_info())
    info["simd_level"] = _C.simd_level()
    info["simd_levels"] = ", ".join(_C.simd_levels())
    info["threads"] = str(torch.get_num_threads())
    info["cuda_missing"] = cuda_missing
    return info
