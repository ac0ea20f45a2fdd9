"""PGD: the iterates, the region, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import APGD, FGSM, MIFGSM, NFGSM, PGD, RSFGSM

EPS, STEP = 8 / 255, 2 / 255


def written_out(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, size: float, steps: int
) -> Tensor:
    """Linf PGD as in the paper, on plain cross-entropy."""
    model = model.eval()
    adv = x.clone()
    for _ in range(steps):
        adv.requires_grad_()
        loss = nn.functional.cross_entropy(model(adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adv)
        with torch.no_grad():
            adv = adv + size * gradient.sign()
            adv = torch.minimum(torch.maximum(adv, (x - eps).clamp(min=0)), (x + eps).clamp(max=1))
    return adv


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_linf_iterates_are_those_of_the_written_out_loop_bit_for_bit(
    model: nn.Module, images: Tensor, labels: Tensor, steps: int
) -> None:
    images[images < 0.2] = 0.0  # exact black and white pixels must not lose their gradient
    images[images > 0.8] = 1.0
    attack = PGD(EPS, step_size=STEP, steps=steps, random_start=False)
    got = attack(model, images, labels)
    assert torch.equal(got, written_out(model, images, labels, EPS, STEP, steps))


def test_stays_in_ball_and_box(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    adv = PGD(EPS, steps=5, seed=0)(model, images, labels)
    assert (adv - images).abs().max() <= EPS * (1 + 1e-6)
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert not adv.requires_grad


def test_raises_the_loss(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    adv = PGD(EPS, seed=0)(model, images, labels)
    model.eval()
    before = nn.functional.cross_entropy(model(images), labels)
    assert nn.functional.cross_entropy(model(adv), labels) > 1.5 * before


def test_eps_zero_gives_back_the_images(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    assert torch.equal(PGD(0.0, step_size=0.1, seed=0)(model, images, labels), images)


def test_same_seed_same_result_and_the_stream_advances(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    first = PGD(EPS, steps=2, seed=3)
    adv = first(model, images, labels)
    assert torch.equal(adv, PGD(EPS, steps=2, seed=3)(model, images, labels))
    assert not torch.equal(adv, first(model, images, labels))


def test_result_does_not_depend_on_the_batch(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    attack = PGD(EPS, steps=3, random_start=False)
    whole = attack(model, images, labels)
    alone = torch.cat([attack(model, images[i : i + 1], labels[i : i + 1]) for i in range(12)])
    # One ulp: convolutions of different batch sizes may round differently and flip no sign here.
    assert torch.allclose(whole, alone, rtol=0, atol=1e-7)


def test_targeted_moves_towards_the_target(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    target = (labels + 1) % 5
    adv = PGD(EPS, targeted=True, seed=0)(model, images, target)
    model.eval()
    before = nn.functional.cross_entropy(model(images), target)
    assert nn.functional.cross_entropy(model(adv), target) < 0.8 * before


class TestBadInput:
    def test_images_out_of_bounds(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match=r"x must lie in bounds \[0, 1\]"):
            PGD(EPS)(model, images * 255, labels)
        images[0, 0, 0, 0] = torch.nan
        with pytest.raises(ValueError, match="x must lie in bounds"):
            PGD(EPS)(model, images, labels)

    def test_a_rounding_below_zero_is_accepted(
        self, model: nn.Module, images: Tensor, labels: Tensor
    ) -> None:
        images[0, 0, 0, 0] = -2.98e-8
        PGD(EPS, steps=1)(model, images, labels)

    def test_integer_images(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(TypeError, match="x must be a floating-point tensor"):
            PGD(EPS)(model, (images * 255).byte(), labels)

    @pytest.mark.parametrize("attack", [PGD, APGD])
    def test_arguments_of_another_type(
        self, model: nn.Module, images: Tensor, labels: Tensor, attack: type[PGD]
    ) -> None:
        with pytest.raises(TypeError, match=r"x must be a floating-point tensor .* got ndarray"):
            attack(EPS)(model, images.numpy(), labels)
        with pytest.raises(TypeError, match=r"bounds must be a pair \(low, high\), got None"):
            attack(EPS, bounds=None)(model, images, labels)
        with pytest.raises(ValueError, match=r"bounds must be \(low, high\), low first"):
            attack(EPS, bounds=(1.0, 0.0))(model, images, labels)
        with pytest.raises(ValueError, match=r"autocast: expected .* got 'bfloat16'"):
            attack(EPS, autocast="bfloat16")
        with pytest.raises(TypeError, match=r"seed must be an integer, .* got 'a'"):
            attack(EPS, seed="a")

    @pytest.mark.parametrize("attack", [PGD, FGSM, RSFGSM, NFGSM, MIFGSM, APGD])
    def test_eps_as_text(
        self, model: nn.Module, images: Tensor, labels: Tensor, attack: type[PGD]
    ) -> None:
        with pytest.raises(TypeError, match=r"eps must be a number or .* got '8/255'"):
            attack("8/255")(model, images, labels)

    @pytest.mark.parametrize("attack", [PGD, MIFGSM])
    @pytest.mark.parametrize("momentum", [-0.1, float("nan"), float("inf"), "a", None])
    def test_momentum(self, attack: type[PGD], momentum: float) -> None:
        with pytest.raises((TypeError, ValueError), match=f"^momentum must be .* got {momentum!r}"):
            attack(EPS, momentum=momentum)

    @pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
    def test_eps(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> None:
        with pytest.raises(ValueError, match="eps must be finite and non-negative"):
            PGD(eps)(model, images, labels)

    def test_step_size(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match="step_size must be finite and positive"):
            PGD(EPS, step_size=0.0)(model, images, labels)

    def test_labels(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match=r"y must lie in \[0, 4\]"):
            PGD(EPS)(model, images, labels + 1)
        with pytest.raises(ValueError, match=r"y must have shape \(12,\)"):
            PGD(EPS)(model, images, labels[:3])
        with pytest.raises(TypeError, match="y must be an integer tensor"):
            PGD(EPS)(model, images, labels.float())

    def test_empty_batch(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match="non-empty batch"):
            PGD(EPS)(model, images[:0], labels[:0])

    def test_model_without_logits(self, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match="must return logits"):
            PGD(EPS)(lambda x: (x, x), images, labels)
        with pytest.raises(ValueError, match="must return logits"):
            PGD(EPS)(lambda x: x, images, labels)

    def test_model_with_nan(self, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match="NaN logits for 12 of 12"):
            PGD(EPS)(lambda x: x.flatten(1)[:, :5] * torch.nan, images, labels)

    def test_model_without_gradient(self, images: Tensor, labels: Tensor) -> None:
        with pytest.raises(ValueError, match="not differentiable"):
            PGD(EPS)(lambda x: x.flatten(1)[:, :5].detach(), images, labels)
        weight = torch.ones(5, requires_grad=True)
        with pytest.raises(ValueError, match="not differentiable"):
            PGD(EPS)(lambda x: weight.expand(len(x), 5) * 1, images, labels)
