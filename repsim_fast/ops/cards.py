"""Which cards the CUDA kernels of this build run on."""

from __future__ import annotations

import re
from functools import cache

import torch
from torch import Tensor

from repsim_fast import _C

Capability = tuple[int, int]

MINIMAL_CAPABILITY = (7, 5)
"""Below it the kernels cannot be compiled: ``ldmatrix`` is missing."""


def runs_on(architectures: str, capability: Capability) -> bool:
    """Whether code for ``architectures`` ("8.0;9.0a;12.0+PTX") runs on a card of ``capability``.

    Compiled code runs on cards of its major version from its minor one on, PTX on all later cards,
    and what is for one architecture alone (9.0a) on that.
    """
    for name in architectures.split(";"):
        found = re.fullmatch(r"(\d+)\.(\d)(a?)(\+PTX)?", name)
        if found is None:
            continue
        least = (int(found[1]), int(found[2]))
        same_major = least[0] == capability[0]
        if found[3]:
            if capability == least:
                return True
        elif capability >= least and (same_major or found[4]):
            return True
    return False


@cache
def card_missing(index: int) -> str:
    """Why the kernels do not run on a GPU, and what helps; empty where they do."""
    architectures = _C.build_info()["cuda_architectures"]
    capability = torch.cuda.get_device_capability(index)
    if runs_on(architectures, capability):
        return ""
    card = f"{torch.cuda.get_device_name(index)} has compute capability {_dotted(capability)}"
    if capability < MINIMAL_CAPABILITY:
        least = _dotted(MINIMAL_CAPABILITY)
        return f"{card} and the CUDA kernels need {least} or later: move the tensors to the CPU"
    return (
        f"{card} and this build has CUDA kernels for {architectures.replace(';', ', ')}: "
        f"TORCH_CUDA_ARCH_LIST={_dotted(capability)} FORCE_CUDA=1 "
        "pip install --no-build-isolation . builds them for it"
    )


def card_missing_for(x: Tensor) -> str:
    """Likewise, for the card that a CUDA tensor is on."""
    # While a graph is traced nothing runs, and its tensors may be fake ones of no card.
    if torch.compiler.is_compiling() or not torch.cuda.is_available():
        return ""
    return card_missing(x.device.index)


def _dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))
