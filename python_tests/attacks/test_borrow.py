"""A model that was attacked is exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import PGD
from repsim_fast.training import evaluate


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fail if anything of the model or the global state differs afterwards."""

    def state() -> tuple[list[object], dict[str, Tensor]]:
        plain: list[object] = [module.training for module in model.modules()]
        plain += [p.requires_grad for p in model.parameters()]
        plain += [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        plain += [torch.is_grad_enabled(), torch.is_inference_mode_enabled()]
        plain += [torch.is_autocast_enabled("cpu"), [id(b) for b in model.buffers()]]
        tensors = {f"buffer {k}": v.clone() for k, v in model.named_buffers()}
        tensors |= {f"weight {k}": v.detach().clone() for k, v in model.named_parameters()}
        tensors |= {
            f"grad {k}": v.grad.clone() for k, v in model.named_parameters() if v.grad is not None
        }
        tensors["rng"] = torch.get_rng_state()
        return plain, tensors

    plain, tensors = state()
    yield
    plain_after, tensors_after = state()
    assert plain == plain_after
    assert tensors.keys() == tensors_after.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, tensors_after[name]), name


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
@pytest.mark.parametrize("with_grad", [False, True])
def test_model_is_as_it_was(
    model: nn.Module, images: Tensor, labels: Tensor, mode: str, with_grad: bool
) -> None:
    model[0].weight.requires_grad_(False)
    if with_grad:
        model(images).sum().backward()
    with unchanged(model):
        PGD(0.03, steps=3, model_mode=mode)(model, images, labels)


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_also_after_an_exception(
    model: nn.Module, images: Tensor, labels: Tensor, failing_call: int
) -> None:
    calls = 0

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == failing_call:
                raise OSError("broken")
            return x

    model.append(Fails())
    with unchanged(model), pytest.raises(OSError, match="broken"):
        PGD(0.03, steps=3, model_mode="train")(model, images, labels)


def test_an_interrupt_leaves_no_trace(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model[-1].register_forward_hook(interrupt)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        PGD(0.03)(model, images, labels)
    handle.remove()


def test_no_weight_gradient_is_computed(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    asked: list[bool] = []
    model[3].register_forward_hook(lambda m, i, o: asked.append(m.weight.requires_grad))
    PGD(0.03, steps=2)(model, images, labels)
    assert asked == [False, False]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(
    model: nn.Module, images: Tensor, labels: Tensor, context: type
) -> None:
    expected = PGD(0.03, steps=3, seed=0)(model, images, labels)
    with context(), unchanged(model):
        inside = PGD(0.03, steps=3, seed=0)(model, images.clone(), labels.clone())
    assert torch.equal(inside, expected)


def test_a_stochastic_model_draws_from_the_private_stream(images: Tensor, labels: Tensor) -> None:
    def noisy(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5] * torch.rand(5)

    state = torch.get_rng_state()
    first = PGD(0.03, steps=2, seed=0)(noisy, images, labels)
    torch.rand(7)
    torch.set_rng_state(state)
    assert torch.equal(first, PGD(0.03, steps=2, seed=0)(noisy, images, labels))
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_made_in_inference_mode_comes_back_with_its_flags(
    images: Tensor, labels: Tensor
) -> None:
    with torch.inference_mode():
        network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 5))
    flags = [p.requires_grad for p in network.parameters()]
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        PGD(0.1, steps=1)(network, images, labels)
    assert [p.requires_grad for p in network.parameters()] == flags
    assert 0 <= evaluate(network, (images, labels)).clean <= 1
