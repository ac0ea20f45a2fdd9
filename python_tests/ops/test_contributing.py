"""CONTRIBUTING.md, "Adding an operator", walked with every operator: each step is where it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from repsim_fast import ops
from repsim_fast.ops.reference import gram, pgd, svd

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Adding an operator\n(.*?)^## ", PAGE, re.S | re.M)
REFERENCES = {"gram": gram, "svd": svd, "pgd": pgd, "norm": torch}


class Operator(NamedTuple):
    """A line of the page's table."""

    name: str
    family: str
    gradient: str
    cuda: str
    shared: str

    def path(self, template: str) -> Path:
        """The operator's own file, or the one that it shares."""
        own, shared = (
            ROOT / template.format(op=stem, family=self.family) for stem in (self.name, self.shared)
        )
        assert own.is_file() or self.shared, f"{own.relative_to(ROOT)} is missing"
        found = own if own.is_file() else shared
        assert found.is_file(), f"neither {own.relative_to(ROOT)} nor {shared.relative_to(ROOT)}"
        return found

    def text(self, template: str) -> str:
        return self.path(template).read_text(encoding="utf-8")


def _table() -> list[Operator]:
    assert SECTION is not None
    lines = [line for line in SECTION.group(1).splitlines() if line.startswith("| `")]
    return [Operator(*(cell.strip(" `") for cell in line.strip("|").split("|"))) for line in lines]


TABLE = _table()
each_operator = pytest.mark.parametrize("operator", TABLE, ids=lambda operator: operator.name)


def test_the_page_lists_every_operator() -> None:
    schemas = re.findall(r'm\.def\(\s*"(\w+)\(', (ROOT / "csrc/ops.cpp").read_text())
    forms = re.compile(r"_(out|backward)?$")  # in place, into a tensor given, gradients
    assert {forms.sub("", name) for name in schemas} == {operator.name for operator in TABLE}
    assert len(TABLE) == len(set(TABLE))


def test_the_page_names_the_places_that_are_walked() -> None:
    assert SECTION is not None
    for place in (
        "csrc/ops.cpp",
        "repsim_fast/ops/<family>/<op>.py",
        "repsim_fast/ops/__init__.py",
        "repsim_fast/ops/reference/<family>.py",
        "csrc/cpu/<family>/<op>.cpp",
        "csrc/cuda/<family>/<op>.cu",
        "<op>.cuh",
        "<op>_op.cpp",
        "python_tests/ops/test_<op>.py",
        "python_tests/ops/test_devices.py",
        "python_tests/csrc/test_<op>.py",
        "benchmarks/test_<op>.py",
    ):
        assert f"`{place}`" in SECTION.group(1), place


@each_operator
def test_python(operator: Operator) -> None:
    """Function, its documentation, fake kernel and gradient are in one file, which ops exports."""
    function = getattr(ops, operator.name)
    file = ROOT / f"repsim_fast/ops/{operator.family}/{operator.name}.py"
    assert Path(inspect.getsourcefile(function) or "") == file
    assert operator.name in ops.__all__
    documentation = inspect.getdoc(function) or ""
    for heading in ("Args:", "Returns:", "Raises:", "Example:"):
        assert heading in documentation, heading

    text = file.read_text(encoding="utf-8")
    name = f'"repsim_fast::{operator.name}"'
    if operator.gradient == "none":
        assert re.search(rf'^register_(step|start)\("{operator.name}"', text, re.M)
    else:
        assert re.search(rf"register_fake\({name}\)", text)
        assert re.search(rf"register_autograd\(\s*{name}", text)
    if operator.cuda == "torch":
        assert re.search(rf'register_kernel\(.*?{name}, "cuda"', text, re.S)


@each_operator
def test_torch_knows_fake_kernel_and_gradient(operator: Operator) -> None:
    def registered(key: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key(f"repsim_fast::{operator.name}", key)

    assert registered("CPU")
    assert registered("Meta")
    assert registered("Autograd")


@each_operator
def test_gradients_are_as_the_page_says(operator: Operator) -> None:
    matrices = torch.eye(3, dtype=torch.float64)[None] * torch.tensor([3.0, 2.0, 1.0])
    images = torch.rand(2, 3, dtype=torch.float64)
    around = {"step_size": 0.1, "eps": 0.1}
    function = getattr(ops, operator.name)
    x = {
        "gram": torch.randn(5, 3, dtype=torch.float64),
        "svd": matrices,
        "pgd": images,
        "norm": torch.randn(5, 3, dtype=torch.float64),
    }[operator.family].requires_grad_()
    calls = {
        "cross_gram": lambda: function(x, x),
        "batch_norm_relu": lambda: function(x.float(), torch.ones(3), torch.zeros(3)),
        "random_start": lambda: function(x, norm="l2", eps=0.1, seed=0),
    } | {f"pgd_{norm}_step": lambda: function(x, images, x, **around) for norm in ops.NORMS}
    result = calls.get(operator.name, lambda: function(x))()
    values = result[0] if isinstance(result, tuple) else result
    assert values.requires_grad == (operator.gradient == "twice")
    if operator.gradient == "twice":
        (once,) = torch.autograd.grad(values.square().sum(), x, create_graph=True)
        (again,) = torch.autograd.grad(once.square().sum(), x)
        assert again.shape == x.shape


@each_operator
def test_reference(operator: Operator) -> None:
    twin = getattr(REFERENCES[operator.family], operator.name, None)
    assert (twin is None) == (operator.cuda == "torch"), "torch has the function, or we do"


@each_operator
def test_cpu(operator: Operator) -> None:
    text = operator.text("csrc/cpu/{family}/{op}.cpp")
    assert _registered(operator, text, "STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU")


@each_operator
def test_cuda(operator: Operator) -> None:
    if operator.cuda == "torch":
        folder = ROOT / "csrc/cuda" / operator.family
        assert not list(folder.glob(f"{operator.name}*")), "kernels, where the page says torch"
        return
    assert operator.cuda == "kernels"
    kernels = operator.text("csrc/cuda/{family}/{op}.cu")
    launcher = operator.path("csrc/cuda/{family}/{op}.cuh").name
    assert f'#include "cuda/{operator.family}/{launcher}"' in kernels
    assert "portability/portability.h" in kernels
    assert "torch/" not in kernels
    text = operator.text("csrc/cuda/{family}/{op}_op.cpp")
    assert _registered(operator, text, "REPSIM_CUDA_LIBRARY_IMPL")


@each_operator
def test_tests_and_benchmark(operator: Operator) -> None:
    templates = [
        "python_tests/ops/test_{op}.py",
        "python_tests/ops/test_devices.py",
        "benchmarks/test_{op}.py",
    ]
    if operator.cuda == "kernels":
        templates.append("python_tests/csrc/test_{op}.py")
    names = (operator.name, re.sub("linf|l2|l1", "{norm}", operator.name))
    for template in templates:
        assert any(name in operator.text(template) for name in names), template


def _registered(operator: Operator, text: str, how: str) -> bool:
    """Whether a file, with the header that its family shares, registers the operator."""
    if operator.family == "pgd":
        common = (ROOT / "csrc/common/pgd_operators.h").read_text()
        return f'm.impl("{operator.name}"' in common
    return how in text and f'm.impl("{operator.name}"' in text
