from __future__ import annotations

from types import ModuleType

import pytest
import torch

import repsim_fast.ops  # noqa: F401  (its operators' schemas are copied)
from python_tests.csrc.build_runner import STUDY_MODULE, load
from python_tests.support.op_tester import devices

_library = torch.library.Library("repsim_fast_runner", "DEF")


def _define_schemas() -> None:
    """Every operator of the package once more, under the name that the runner registers for."""
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("repsim_fast::"):
            packet, _, overload = name.removeprefix("repsim_fast::").partition(".")
            operator = getattr(getattr(torch.ops.repsim_fast, packet), overload or "default")
            _library.define(str(operator._schema).removeprefix("repsim_fast::"))


@pytest.fixture(scope="session")
def cpu_runner() -> ModuleType:
    """The launchers on CPU memory; their operators are in torch.ops.repsim_fast_runner."""
    _define_schemas()
    return load("cpu")


@pytest.fixture(scope="session", params=devices())
def runner(request: pytest.FixtureRequest) -> ModuleType:
    """The launchers: on the CPU, and where there is a GPU on that as well."""
    if request.param == "cpu":
        module: ModuleType = request.getfixturevalue("cpu_runner")
        return module
    return load("cuda")


@pytest.fixture(scope="session")
def study(runner: ModuleType) -> ModuleType:
    """The kernel study's versions, where the launchers are, whose types they take."""
    return load(runner.device.type, STUDY_MODULE)
