from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch
from build_runner import MODULE, build

# The schema of csrc/ops.cpp, under the name that the runner registers its kernels for.
SCHEMA = "centered_gram(Tensor x, str centering, bool packed, str precision) -> Tensor"

_library = torch.library.Library("repsim_fast_runner", "DEF")
_library.define(SCHEMA)


@pytest.fixture(scope="session")
def runner() -> ModuleType:
    """The launchers on CPU memory; their operators are in torch.ops.repsim_fast_runner."""
    spec = importlib.util.spec_from_file_location(MODULE, build())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
