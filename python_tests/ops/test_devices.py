"""Tensors that do not belong together are refused by name, by every operator.

torch lets a meta tensor among others through to the fake kernel, which returns memory that nobody
has written: no operator may hand that to its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from repsim_fast import ops

X = torch.rand(4, 3, 2, 2)
MATRIX = torch.rand(5, 3)
LENGTHS = torch.tensor([2, 3])


class Call(NamedTuple):
    """A call with tensors everywhere where an operator takes them."""

    function: Callable[..., Any]
    tensors: dict[str, Tensor]
    options: dict[str, Any] = {}  # noqa: RUF012  (never written to)

    def __call__(self, **changes: Any) -> Any:
        return self.function(**{**self.tensors, **self.options, **changes})


SCALARS = {"eps": torch.full((4,), 0.1), "step_size": torch.full((4,), 0.1)}
STEPPED = {"x_adv": X.clone(), "grad": X - 0.5, "x": X, **SCALARS}
PROJECTED = {"x_adv": X.clone(), "x": X, "eps": SCALARS["eps"]}
START = {"norm": "l2", "seed": 0}
BATCH = {"a": torch.rand(2, 4, 3), "rows": LENGTHS, "columns": LENGTHS}

CALLS = {
    "centered_gram": Call(ops.centered_gram, {"x": MATRIX, "out": torch.empty(5, 5)}),
    "cross_gram": Call(ops.cross_gram, {"x": MATRIX, "y": MATRIX.clone()}),
    "batch_norm_relu": Call(
        ops.batch_norm_relu, {"x": MATRIX, "weight": MATRIX[0], "bias": MATRIX[1]}
    ),
    "batched_eigh": Call(ops.batched_eigh, {"a": torch.eye(3)[None]}),
    "batched_svd": Call(ops.batched_svd, BATCH),
    "batched_svdvals": Call(ops.batched_svdvals, BATCH),
    "batched_nuclear_norm": Call(ops.batched_nuclear_norm, BATCH),
    "random_start": Call(ops.random_start, {"x": X, "eps": SCALARS["eps"]}, START),
    "random_start_": Call(
        ops.random_start_, {"x_adv": X.clone(), "x": X, "eps": SCALARS["eps"]}, START
    ),
} | {
    f"{name}{suffix}": Call(getattr(ops, f"{name}{suffix}"), tensors)
    for norm in ops.NORMS
    for name, tensors in ((f"pgd_{norm}_step", STEPPED), (f"project_{norm}_box", PROJECTED))
    for suffix in ("", "_")
}
OTHERS = [
    (name, argument)
    for name, call in CALLS.items()
    for argument in call.tensors
    if len(call.tensors) > 1
]


def test_no_operator_is_missing_here() -> None:
    """Every function of `ops` that takes a tensor and computes with it."""
    functions = {name for name in ops.__all__ if callable(getattr(ops, name))}
    words = {"Bounds", "Centering", "Norm", "Order", "Precision", "Scalar"}
    assert functions - words - {"build_info", "products_in", "resolve_precision"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_work_as_they_are(name: str) -> None:
    CALLS[name]()


@pytest.mark.parametrize(("name", "argument"), OTHERS)
def test_one_tensor_on_another_device(name: str, argument: str) -> None:
    call = CALLS[name]
    leader = next(iter(call.tensors)) if "x" not in call.tensors else "x"
    # Where the first of all is the odd one, another is named, and lengths belong on the CPU.
    named = "[a-z_]+" if argument == leader else argument
    if argument == "a":
        assert all(part.is_meta for part in _parts(call(a=call.tensors["a"].to("meta"))))
        return
    with pytest.raises(RuntimeError, match=rf"^{named}: expected .* on .*, got (meta|cpu)"):
        call(**{argument: call.tensors[argument].to("meta")})


@pytest.mark.parametrize("name", [name for name in CALLS if "pgd" in name or "project" in name])
@pytest.mark.parametrize("bound", ["low", "high"])
def test_bounds_on_another_device(name: str, bound: str) -> None:
    edge = torch.zeros(3, device="meta")
    bounds = (edge, 1.0) if bound == "low" else (0.0, edge)
    with pytest.raises(RuntimeError, match=f"^{bound}: expected a tensor on cpu as x, got meta"):
        CALLS[name](bounds=bounds)


def test_fraction_on_another_device() -> None:
    with pytest.raises(RuntimeError, match="fraction: expected a tensor on cpu as x, got meta"):
        CALLS["pgd_l1_step"](fraction=torch.full((4,), 0.1, device="meta"))


@pytest.mark.parametrize("name", CALLS)
def test_all_on_meta_gives_shapes(name: str) -> None:
    call = CALLS[name]
    lengths = ("rows", "columns")
    moved = {k: t if k in lengths else t.to("meta") for k, t in call.tensors.items()}
    for here, there in zip(_parts(call()), _parts(call(**moved)), strict=True):
        assert (there.device.type, there.shape, there.dtype) == ("meta", here.shape, here.dtype)


@pytest.mark.parametrize("name", [n for n in CALLS if "pgd" in n or n.startswith("random")])
def test_raw_fake_kernels_check_too(name: str) -> None:
    operator = getattr(torch.ops.repsim_fast, name)
    names = [argument.name for argument in operator.default._schema.arguments]
    given = {
        "x_adv": X.clone(), "grad": X, "x": X, "norm": "l2", "step_size": 0.1, "eps": 0.1,
        "low": 0.0, "high": 1.0, "seed": 0, "offset": 0, "clip_first": True, "fraction": 0.1,
    }  # fmt: skip
    given["radii"] = SCALARS["eps"].to("meta")
    with pytest.raises(RuntimeError, match="radii: expected a tensor on cpu as x, got meta"):
        operator(*(given.get(argument) for argument in names))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cross_gram", (MATRIX, MATRIX.to("meta")), "y: expected a tensor on cpu as x, got meta"),
        (
            "centered_gram_out",
            (MATRIX, "none", False, "float32", torch.empty(5, 5, device="meta")),
            "out: expected a tensor on cpu as x, got meta",
        ),
        *(
            (name, (BATCH["a"], None, LENGTHS.to("meta")), "columns: expected lengths on the CPU")
            for name in ("batched_svd", "batched_svdvals", "batched_nuclear_norm")
        ),
    ],
)
def test_other_raw_fake_kernels_check_too(
    name: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.repsim_fast, name)(*arguments)


@pytest.mark.parametrize(("name", "argument"), [*OTHERS, ("batched_eigh", "a")])
def test_other_kinds_of_numbers(name: str, argument: str) -> None:
    """Complex numbers and truth values nowhere, integers as numbers for samples and as lengths."""
    call = CALLS[name]
    tensor = call.tensors[argument]
    for dtype in (torch.complex64, torch.bool, torch.int64):
        if dtype == torch.int64 and argument in ("eps", "step_size", "rows", "columns"):
            call(**{argument: tensor.to(dtype)})
            continue
        with pytest.raises((TypeError, RuntimeError), match=rf"\b{argument}: expected "):
            call(**{argument: tensor.to(dtype)})


@pytest.mark.parametrize("name", ["centered_gram", "batched_svd", "batched_svdvals"])
def test_a_device_without_kernels(name: str) -> None:
    argument = next(iter(CALLS[name].tensors))
    with torch._subclasses.FakeTensorMode():
        tensor = torch.empty(CALLS[name].tensors[argument].shape, device="mps")
        with pytest.raises(RuntimeError, match=f"^{argument}: expected a tensor on CPU or CUDA"):
            CALLS[name].function(tensor)


def _parts(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result
