"""`repsim-fast info`: what is installed, how it was built, what is missing and how to get it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping

import typer

import repsim_fast

from .version import version_line

# Packages that some features need, imported by name, and how to install what they are part of.
_OPTIONAL = {
    "torchvision": ("models torchvision:NAME", "pip install torchvision"),
    "transformers": ("models hf:NAME", "pip install transformers"),
    "timm": ("models timm:NAME", "pip install timm"),
    "pyautoattack": ("all stages of AutoAttack", "pip install pyautoattack"),
    "imagecorruptions": ("common corruptions", "pip install imagecorruptions-imaug"),
    "tensorboard": ("TensorBoard logs of trainings", "pip install tensorboard"),
}
_PACKAGES = ("torch", "numpy", "safetensors", "pyarrow", "scikit-learn", "matplotlib", "pandas")
_INSTALL = {
    "pyarrow": '"repsim_fast[parquet]"',
    "scikit-learn": '"repsim_fast[sklearn]"',
    "pandas": '"repsim_fast[tables]"',
}


def info() -> None:
    """Show versions, build, processor and GPUs, and what is missing and how to get it.

    \b
    Example:
      repsim-fast info
    """
    build = repsim_fast.build_info()
    typer.echo(version_line())
    python = {"python": f"{platform.python_version()} ({sys.executable})"}
    _section("Versions", python | {name: _version(name) for name in _PACKAGES})
    _section("Build", _build(build))
    _section("This machine", _machine(build))
    _section("Optional parts", {"CUDA kernels": _cuda_kernels(build), **_optional()})


def _section(heading: str, entries: Mapping[str, str]) -> None:
    typer.echo(f"\n{heading}")
    width = max(map(len, entries))
    for name, value in entries.items():
        typer.echo(f"  {name:<{width}}  {value}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing: pip install {_INSTALL.get(package, package)}"


def _build(build: Mapping[str, str]) -> dict[str, str]:
    return {
        "compiler": build["compiler"],
        "flags": build["compiler_flags"],
        "torch": f"built with {build['torch_built_with']}, runs with {build['torch_target']} and "
        "later",
        "CUDA": f"{build['cuda']}, architectures {build['cuda_architectures'].replace(';', ', ')}"
        if build["cuda"]
        else f"none ({build['cuda_reason']})",
    }


def _machine(build: Mapping[str, str]) -> dict[str, str]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    entries = {
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": f"{cores} cores usable, {build['threads']} threads used",
        "SIMD level": f"{build['simd_level']}; REPSIM_SIMD chooses one of {build['simd_levels']}",
    }
    if not torch.cuda.is_available():
        return entries | {"GPU": f"none: {_no_gpu_reason()}"}
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        entries[f"GPU cuda:{i}"] = (
            f"{device.name}, {device.total_memory / 2**30:.0f} GiB, "
            f"compute capability {device.major}.{device.minor}"
        )
    return entries


def _no_gpu_reason() -> str:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU-only build (see pytorch.org to get another)"
    return f"torch has CUDA {torch.version.cuda}, but finds no GPU and driver; all runs on the CPU"


def _cuda_kernels(build: Mapping[str, str]) -> str:
    import torch

    from repsim_fast.ops.cards import card_missing

    if not build["cuda_missing"]:
        if not torch.cuda.is_available():
            return "built, loaded, without a GPU to run on"
        missing = [reason for i in range(torch.cuda.device_count()) if (reason := card_missing(i))]
        return "; ".join(dict.fromkeys(missing)) or "ready"
    return (
        f"missing: {build['cuda_missing']}; to get them: a torch with CUDA, nvcc of the same "
        "major version (12.5 or later), then FORCE_CUDA=1 pip install --no-build-isolation ."
    )


def _optional() -> dict[str, str]:
    return {name: _state(name, *about) for name, about in _OPTIONAL.items()}


def _state(name: str, feature: str, how: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return f"missing, for {feature}: {how}"
        return f"installed, but its own needs are not met ({error}): {how}"
    except Exception as error:  # one built for another torch fails in many ways
        return f"{_version(name)}, but it does not fit this torch: {str(error).splitlines()[0]}"
    return _version(name)
