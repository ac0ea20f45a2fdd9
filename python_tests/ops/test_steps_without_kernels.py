"""Attack steps on devices without kernels: the plain-torch twins, through torch's dispatcher.

What the twins compute is tested through `Region` (python_tests/attacks/test_steps.py) and, as the
oracle of the kernels, in test_pgd_steps.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from python_tests.support.op_tester import take_kernels_of_steps_away
from repsim_fast import ops
from repsim_fast.ops import extension

SHAPE = (3, 4, 5, 6)
LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.to(memory_format=torch.channels_last),
    "turned": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "samples inside": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "cut": lambda t: torch.cat((t, t), 1)[:, : t.shape[1]],
}


def images(*, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """x_adv, grad, x."""
    x = torch.rand(SHAPE, dtype=dtype)
    return (x + 0.2 * torch.randn(SHAPE, dtype=dtype)).clamp(0, 1), torch.randn(SHAPE).to(dtype), x


def step_of(norm: str, suffix: str = "", **options: object):
    """The step with arguments of the kinds an operator distinguishes."""
    if norm == "l1":
        options["fraction"] = torch.tensor([0.1, 0.5, 1.0])
    function = getattr(ops, f"pgd_{norm}_step{suffix}")
    bounds = (torch.linspace(0.0, 0.1, 4), torch.linspace(0.8, 1.0, 4))
    eps = torch.tensor([0.1, 1.0, 20.0])
    return lambda *tensors: function(*tensors, step_size=0.3, eps=eps, bounds=bounds, **options)


@pytest.mark.parametrize("norm", ops.NORMS)
@pytest.mark.parametrize("options", [{"targeted": False}, {"targeted": True}], ids=str)
def test_steps_are_those_of_the_kernels(norm, options, monkeypatch):
    cases = [images(), images(dtype=torch.float64)]
    cases.append((cases[0][0], cases[1][1] * 1e-60, cases[0][2]))  # a float64 gradient of float32
    orders = ops.ORDERS if norm == "l2" else (None,)
    steps = [step_of(norm, **options, **({"order": order} if order else {})) for order in orders]
    wanted = [step(*tensors) for step in steps for tensors in cases]
    take_kernels_of_steps_away(monkeypatch)
    found = [step(*tensors) for step in steps for tensors in cases]
    for have, want in zip(found, wanted, strict=True):
        assert have.dtype == want.dtype
        rounding = torch.finfo(have.dtype).eps
        torch.testing.assert_close(have, want, rtol=0, atol=0 if norm == "linf" else 8 * rounding)


@pytest.mark.parametrize("norm", ops.NORMS)
def test_in_place_is_the_same(norm, monkeypatch):
    take_kernels_of_steps_away(monkeypatch)
    x_adv, grad, x = images()
    want, projected = step_of(norm)(x_adv, grad, x), getattr(ops, f"project_{norm}_box")
    eps = 0.3
    want_projected = projected(x_adv, x, eps=eps)
    for function, expected, arguments in (
        (step_of(norm, "_"), want, (grad, x)),
        (lambda t, x: getattr(ops, f"project_{norm}_box_")(t, x, eps=eps), want_projected, (x,)),
    ):
        changed = x_adv.clone()
        version = changed._version
        assert function(changed, *arguments) is changed
        assert torch.equal(changed, expected)
        assert changed._version > version


@pytest.mark.parametrize("norm", ops.NORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_starts_are_those_of_the_kernels(norm, layout, monkeypatch):
    """Bit for bit the same noise, so the same up to the rounding of one sum."""
    x = LAYOUTS[layout](torch.rand(SHAPE))
    options = {"norm": norm, "eps": torch.tensor([0.2, 0.0, 3.0]), "bounds": (-9.0, 9.0)}
    want = ops.random_start(x, seed=3, offset=5, **options)
    into = ops.random_start_(torch.empty_like(x), x, seed=3, offset=5, **options)
    take_kernels_of_steps_away(monkeypatch)
    torch.testing.assert_close(
        ops.random_start(x, seed=3, offset=5, **options), want, rtol=0, atol=5e-7
    )
    same = ops.random_start_(torch.empty_like(x), x, seed=3, offset=5, **options)
    torch.testing.assert_close(same, into, rtol=0, atol=5e-7)


def test_results_are_constants_for_autograd_and_no_batch_is_none(monkeypatch):
    take_kernels_of_steps_away(monkeypatch)
    x_adv, grad, x = images()
    for norm in ops.NORMS:
        leaf = x_adv.clone().requires_grad_()
        assert not step_of(norm)(leaf, grad, x).requires_grad
        nothing = x[:0]
        step = getattr(ops, f"pgd_{norm}_step")
        assert step(nothing, nothing, nothing, step_size=0.1, eps=0.1).shape == nothing.shape
        assert ops.random_start(nothing, norm=norm, eps=0.1, seed=0).shape == nothing.shape


def test_a_gpu_whose_kernels_are_missing_is_told(monkeypatch):
    monkeypatch.setattr(extension, "cuda_missing", "this build has no CUDA kernels: a test")
    operator = torch.ops.repsim_fast.pgd_linf_step.default
    monkeypatch.setattr(Tensor, "is_cuda", True)
    x = torch.full((1, 2), 0.5)
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.MPS)
    with pytest.warns(RuntimeWarning, match=r"x: is on .* this build has no CUDA kernels: a test"):
        operator.redispatch(keys, x, x, x, 0.1, None, 0.1, None, 0.0, None, 1.0, None)


def test_sparse_images_are_refused():
    x = torch.rand(2, 3).to_sparse()
    with pytest.raises(RuntimeError, match="x: expected a dense tensor, got torch"):
        ops.pgd_linf_step(x, x, x, step_size=0.1, eps=0.1)
