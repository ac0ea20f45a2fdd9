"""Training methods against their formulas, written out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import FGSM, losses
from repsim_fast.training import methods, train
from repsim_fast.training.methods import Progress, TrainingBatch
from repsim_fast.training.regularisers import gradient_misalignment

Build = Callable[..., nn.Module]
WITH_ATTACK = ("pgd", "trades", "mart", "fgsm", "rs-fgsm", "n-fgsm", "gradalign")
EPS = 0.1


@pytest.fixture
def batch(few: tuple[Tensor, Tensor]) -> TrainingBatch:
    return TrainingBatch(few[0][:32], few[1][:32], torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", [n for n in methods.available() if n not in ("standard", "noise", "smoothing")]
)
def test_perturbations_keep_to_radius_and_box_and_leave_the_model_alone(
    small_net: Build, batch: TrainingBatch, name: str
) -> None:
    net = small_net()
    method = methods.build(name, eps=EPS)
    buffers = [buffer.clone() for buffer in net.buffers()]
    for _ in range(2):
        perturbed = method.perturb(net, batch)
        limit = 3 * EPS if name == "n-fgsm" else EPS
        assert (perturbed - batch.x).abs().max() <= limit + 1e-7
        assert perturbed.min() >= 0
        assert perturbed.max() <= 1
        assert net.training
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
        assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))
        if name == "free":  # moves only with the weights
            method.loss(net, batch, perturbed)[0].backward()
            method.after_backward()
            net.zero_grad()
            buffers = [buffer.clone() for buffer in net.buffers()]
    assert method.eps == EPS


def test_trades_loss(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net().eval()
    other = (batch.x + 0.05).clamp(0, 1)
    loss, _ = methods.trades(beta=3.0).loss(net, batch, other)
    p, q = net(batch.x).softmax(1), net(other).softmax(1)
    want = -p[range(32), batch.y].log().mean() + 3.0 * (p * (p / q).log()).sum(1).mean()
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)


def test_trades_computes_the_clean_predictions_once(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net()
    calls: list[int] = []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    methods.trades(EPS, steps=7).perturb(net, batch)
    assert len(calls) == 1 + 7


def test_trades_raises_the_divergence(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net()
    perturbed = methods.trades(EPS).perturb(net, batch)
    net.eval()
    p, q = net(batch.x).softmax(1), net(perturbed).softmax(1)
    signs = torch.rand(batch.x.shape, generator=batch.generator).sub(0.5).sign()
    noise = net((batch.x + EPS * signs).clamp(0, 1)).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    assert divergence > 3 * (p * (p / noise).log()).sum(1).mean() > 0


def test_mart_loss(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net().eval()
    other = (batch.x + 0.05).clamp(0, 1)
    loss, _ = methods.mart(beta=4.0).loss(net, batch, other)
    p, q = net(batch.x).softmax(1), net(other).softmax(1)
    rows = torch.arange(32)
    rivals = q.clone()
    rivals[rows, batch.y] = 0
    boosted = -q[rows, batch.y].log() - (1.0001 - rivals.amax(1)).log()
    want = boosted + 4.0 * (p * (p / q).log()).sum(1) * (1 - p[rows, batch.y])
    assert loss.item() == pytest.approx(want.mean().item(), rel=1e-5)


def test_gradalign_loss(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net().eval()
    method = methods.gradalign(EPS, weight=0.7)
    state = batch.generator.get_state()
    loss, _ = method.loss(net, batch, batch.x)
    batch.generator.set_state(state)
    noise = EPS * (2 * torch.rand(batch.x.shape, generator=batch.generator) - 1)

    def gradient(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        value = nn.functional.cross_entropy(net(x), batch.y, reduction="sum")
        return torch.autograd.grad(value, x)[0].flatten(1)

    a, b = gradient(batch.x), gradient(batch.x + noise)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    want = nn.functional.cross_entropy(net(batch.x), batch.y) + 0.7 * (1 - cosine.mean())
    assert loss.item() == pytest.approx(want.item(), rel=1e-4)
    loss.backward()
    assert net[0].weight.grad.abs().max() > 0


def test_gradalign_of_a_model_without_gradient_is_finite(
    small_net: Build, batch: TrainingBatch
) -> None:
    net = small_net()
    nn.init.zeros_(net[-1].weight)
    loss, _ = methods.gradalign(EPS).loss(net, batch, batch.x)
    assert loss.isfinite()


def test_gradalign_does_not_take_saturated_samples_for_misaligned(
    small_net: Build, batch: TrainingBatch
) -> None:
    """Of samples that are right with certainty cross-entropy has gradients of exactly 0."""
    net = small_net().eval()
    with torch.no_grad():
        net[-1].weight *= 1e4
        y = net(batch.x).argmax(1)
    nearby = (batch.x + 0.01).clamp(0, 1)

    def gradient(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        value = losses.margin(net(x), y)  # what all but ties come to at this scale
        return torch.autograd.grad(value.sum(), x)[0].flatten(1)

    want = 1 - torch.cosine_similarity(gradient(batch.x), gradient(nearby), dim=1).mean()
    got = gradient_misalignment(net, batch.x, y, nearby)
    assert got.item() == pytest.approx(want.item(), abs=1e-3)
    assert got.item() < 0.5


def test_gradalign_weights_of_the_paper() -> None:
    for eps, weight in ((4, 0.063), (8, 0.2), (16, 2.0)):
        method = methods.gradalign(eps / 255)
        closure = dict(zip(method.loss.__code__.co_freevars, method.loss.__closure__, strict=True))
        assert closure["weight"].cell_contents == pytest.approx(weight, rel=0.01)


def test_free_moves_perturbation_and_weights_with_one_backward(
    small_net: Build, batch: TrainingBatch
) -> None:
    net = small_net()
    method = methods.free(EPS, replays=3, step_size=EPS / 2)
    assert method.replays == 3
    assert torch.equal(method.perturb(net, batch), batch.x)
    backwards: list[int] = []
    net[0].register_full_backward_hook(lambda *_: backwards.append(1))
    for _ in range(3):
        perturbed = method.perturb(net, batch)
        loss, _ = method.loss(net, batch, perturbed)
        net.zero_grad()
        loss.backward()
        want = (perturbed.detach() - batch.x + EPS / 2 * perturbed.grad.sign()).clamp(-EPS, EPS)
        method.after_backward()
    assert len(backwards) == 3
    inside = (batch.x > 2 * EPS) & (batch.x < 1 - 2 * EPS)
    carried = method.perturb(net, batch) - batch.x
    assert torch.allclose(carried[inside], want[inside], atol=1e-6)
    assert net[0].weight.grad.abs().max() > 0
    shorter = TrainingBatch(batch.x[:5], batch.y[:5], batch.generator)
    assert torch.equal(method.perturb(net, shorter) - batch.x[:5], carried[:5])
    anew = replace(batch, progress=Progress(epoch=1, epochs=2, fraction=0.5, first=True))
    assert torch.equal(method.perturb(net, anew), batch.x)


def test_free_keeps_to_bounds_of_other_images(small_net: Build, batch: TrainingBatch) -> None:
    net, images = small_net(), replace(batch, x=4 * batch.x - 2)
    method = methods.free(EPS, bounds=(-2.0, 2.0))
    for _ in range(2):
        perturbed = method.perturb(net, images)
        method.loss(net, images, perturbed)[0].backward()
        method.after_backward()
    moved = perturbed.detach() - images.x
    assert moved.abs().max() == pytest.approx(EPS, rel=1e-5)
    assert -2 <= perturbed.min() < -1
    assert 1 < perturbed.max() <= 2


def test_free_keeps_the_gradient_of_black_and_white_pixels(
    small_net: Build, batch: TrainingBatch
) -> None:
    """clamp inside the graph would have none there (torch 2.15)."""
    method = methods.free(EPS)
    binary = TrainingBatch(batch.x.round(), batch.y, batch.generator)
    net = small_net()
    perturbed = method.perturb(net, binary)
    method.loss(net, binary, perturbed)[0].backward()
    assert (perturbed.grad != 0).float().mean() > 0.9


def test_noise_has_the_stated_deviation(small_net: Build, few: tuple[Tensor, Tensor]) -> None:
    batch = TrainingBatch(*few, torch.Generator().manual_seed(0))
    noise = methods.noise(0.3).perturb(small_net(), batch) - batch.x
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("direction", ["noisy||clean", "clean||noisy"])
@pytest.mark.parametrize("classified", ["clean", "noisy"])
def test_smoothing_is_cross_entropy_and_divergence(
    small_net: Build, few: tuple[Tensor, Tensor], direction: str, classified: str
) -> None:
    net, (x, y) = small_net().double().eval(), (few[0].double(), few[1])
    method = methods.build(
        "smoothing", sigma=0.3, beta=2.0, direction=direction, classified=classified
    )
    batch = TrainingBatch(x, y, torch.Generator().manual_seed(0))
    perturbed = method.perturb(net, batch)
    assert (perturbed - x).std() == pytest.approx(0.3, rel=0.02)
    p = {"clean": net(x).softmax(1), "noisy": net(perturbed).softmax(1)}
    first, second = direction.split("||")
    gap = (p[first] * (p[first] / p[second]).log()).sum(1).mean()
    hit = p[classified].gather(1, y[:, None]).log().mean()
    value, logits = method.loss(net, batch, perturbed)
    assert value.item() == pytest.approx((2 * gap - hit).item(), rel=1e-9)
    assert torch.equal(logits, net(perturbed))
    assert gap > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta must be non-negative"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"direction": "noisy"}, "direction: expected one of 'noisy||clean'"),
        ({"classified": "both"}, "classified: expected one of 'clean', 'noisy'"),
    ],
)
def test_bad_settings_of_smoothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        methods.build("smoothing", **options)


def test_any_attack_is_a_training_method(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net()
    ours = methods.fgsm(EPS).perturb(net, batch)
    assert torch.equal(methods.adversarial(FGSM(EPS)).perturb(net, batch), ours)


def test_batch_statistics_on_request(small_net: Build, batch: TrainingBatch) -> None:
    net = small_net()
    in_eval = methods.fgsm(EPS).perturb(net, batch)
    in_train = methods.fgsm(EPS, model_mode="train").perturb(net, batch)
    assert not torch.equal(in_eval, in_train)


@pytest.mark.parametrize(("mode", "trains"), [("eval", False), ("train", True), ("keep", True)])
def test_the_inner_loop_of_trades_is_in_one_mode(
    small_net: Build, batch: TrainingBatch, mode: str, trains: bool
) -> None:
    net, seen = small_net(dropout=0.5), list[tuple[bool, Tensor]]()
    net.train()
    net[7].register_forward_hook(lambda layer, x, y: seen.append((layer.training, y == 0)))
    method = methods.trades(EPS, steps=2, model_mode=mode)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(2):
        method.perturb(net, batch)
    assert [training for training, _ in seen] == 6 * [trains]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    if trains:  # the clean predictions of each batch have a dropout of their own
        assert not torch.equal(seen[0][1], seen[3][1])


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_gradalign_is_of_the_linf_ball(norm: str) -> None:
    with pytest.raises(ValueError, match=f"norm: method 'gradalign' has linf only, got '{norm}'"):
        methods.build("gradalign", eps=EPS, norm=norm)
    assert methods.build("gradalign", eps=EPS, norm="linf").eps == EPS


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("trades", {"early_stop": True}, "early_stop: no early_stop for trades"),
            ("free", {"eps": -0.1}, "eps must be non-negative"),
            ("free", {"step_size": float("nan")}, "step_size must be non-negative"),
            ("free", {"replays": 2.5}, "replays must be a whole number"),
            *((name, {"norm": "Linf"}, "norm.*got 'Linf'") for name in WITH_ATTACK),
            ("trades", {"loss": "ce"}, "loss: that of trades is the divergence, got 'ce'"),
            *((name, {"seed": 3}, "seed: .*got 3 of its own") for name in WITH_ATTACK),
        ],
    )
    def test_settings_of_the_inner_attack_that_a_method_cannot_take(
        self, name: str, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            methods.build(name, **options)

    def test_names_and_options(self) -> None:
        with pytest.raises(ValueError, match=r"method must be one of .*'trades'"):
            methods.build("magic")
        with pytest.raises(ValueError, match="method 'standard'"):
            methods.build("standard", beta=1)  # the wrong method's option

        with pytest.raises(ValueError, match=r"method 'rs-fgsm': .*unexpected keyword"):
            methods.build("rs-fgsm", eps=EPS, shape="round")

    def test_values(self) -> None:
        with pytest.raises(ValueError, match="steps and restarts must be at least 1"):
            methods.pgd(EPS, steps=0)
        with pytest.raises(ValueError, match="sigma must be positive"):
            methods.noise(0.0)
        with pytest.raises(ValueError, match="replays must be at least 1"):
            methods.free(EPS, replays=0)


def _plain(model: nn.Module, batch: TrainingBatch, images: Tensor) -> tuple[Tensor, Tensor]:
    logits = model(images)
    return batch.cross_entropy(logits), logits


class TestOwnMethods:
    @pytest.mark.parametrize(
        ("loss", "error", "message"),
        [
            (lambda *a: None, TypeError, "must return two tensors, .*, got NoneType"),
            (lambda *a: _plain(*a)[0], TypeError, "must return two tensors, .*, got Tensor"),
            (lambda *a: (_plain(*a)[0], None), TypeError, "two tensors, .*, got Tensor, NoneType"),
            (
                lambda *a: _plain(*a)[::-1],
                ValueError,
                r"shape \(32, n_classes\), got \(32, 10\) and \(\)",
            ),
            (
                lambda *a: (_plain(*a)[0], _plain(*a)[1][:1]),
                ValueError,
                r"shape \(32, n_classes\), got \(\) and \(1, 10\)",
            ),
            (
                lambda *a: tuple(part.detach() for part in _plain(*a)),
                ValueError,
                "must depend on the model's weights",
            ),
        ],
    )
    def test_what_a_loss_returns(
        self,
        small_net: Build,
        few: tuple[Tensor, Tensor],
        loss: Any,
        error: type[Exception],
        message: str,
    ) -> None:
        method = methods.Method("mine", lambda model, batch: batch.x, loss)
        with pytest.raises(error, match=f"^method 'mine': loss .*{message}"):
            train(small_net(), few, method=method, epochs=1, batch_size=32, progress=False)

    @pytest.mark.parametrize("images", [None, (1, 2)])
    def test_what_perturb_returns(
        self, small_net: Build, few: tuple[Tensor, Tensor], images: Any
    ) -> None:
        method = methods.Method("mine", lambda model, batch: images, _plain)
        got = type(images).__name__
        with pytest.raises(TypeError, match=f"^method 'mine': perturb must return .*got {got}"):
            train(small_net(), few, method=method, epochs=1, progress=False)


def test_running_averages_see_the_attack_on_request(small_net: Build, batch: TrainingBatch) -> None:
    """A textbook loop attacks the model in training mode, as it is."""
    options = {"model_mode": "train", "random_start": False, "steps": 3, "step_size": 0.05}
    net, plain, textbook = small_net(), small_net(), small_net()
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    got = methods.pgd(EPS, update_statistics=True, **options).perturb(net, batch)
    assert torch.equal(got, methods.pgd(EPS, **options).perturb(plain, batch))
    for images in seen:
        textbook(images)
    for name, value in textbook.named_buffers():
        assert torch.equal(dict(net.named_buffers())[name], value), name
    assert net[1].num_batches_tracked == 3
    assert plain[1].num_batches_tracked == 0
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    with pytest.raises(ValueError, match='update_statistics needs model_mode="train"'):
        methods.fgsm(EPS, update_statistics=True)
