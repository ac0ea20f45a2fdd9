"""Optimizers by name and by factory: what they do to the weights, and that they resume exactly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from repsim_fast.training import Optimisation, Saving, StopTraining, methods, train
from repsim_fast.training.sam import sharpest_weights

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
PLAIN: dict[str, Any] = {"schedule": "constant", "progress": False}


def groups_of(net: nn.Module, how: Optimisation, few: Pair) -> list[dict[str, Any]]:
    """The parameter groups that a factory is given."""
    seen: list[list[dict[str, Any]]] = []

    def factory(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        seen.append([dict(group) for group in groups])
        return torch.optim.SGD(groups)

    how = Optimisation(
        factory,
        weight_decay=how.weight_decay,
        decay_norms_and_biases=how.decay_norms_and_biases,
    )
    train(net, [few], epochs=1, lr=0.01, optimisation=how, **PLAIN)
    return seen[0]


class TestGroups:
    def test_all_in_one(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        (group,) = groups_of(net, Optimisation(weight_decay=0.1), few)
        assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
        assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)

    def test_without_norms_and_biases(self, few: Pair) -> None:
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.LayerNorm((4, 6, 6)), nn.Flatten(), nn.Linear(144, 10)
        )
        how = Optimisation(weight_decay=0.1, decay_norms_and_biases=False)
        decayed, others = groups_of(net, how, few)
        assert [id(p) for p in decayed["params"]] == [id(net[0].weight), id(net[3].weight)]
        assert [id(p) for p in others["params"]] == [
            id(p) for p in (net[0].bias, net[1].weight, net[1].bias, net[3].bias)
        ]
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)

    def test_decay_alone_moves_the_matrices(self, few: Pair) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.ones_(net[1].bias)
        batch = (torch.zeros(4, 1, 8, 8), torch.arange(4))  # no gradient to the matrix
        before = net[1].weight.detach().clone()
        how = Optimisation(weight_decay=0.5, momentum=0, decay_norms_and_biases=False)
        train(net, [batch], epochs=1, lr=0.1, optimisation=how, **PLAIN)
        assert torch.allclose(net[1].weight, before * (1 - 0.1 * 0.5))

    def test_the_schedule_multiplies_the_rate_of_each(self, small_net: Build, few: Pair) -> None:
        rates = []

        class Spy(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:
                rates.append([group["lr"] for group in self.param_groups])

        def factory(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            head, *rest = reversed(groups[0]["params"])
            return Spy([{**groups[0], "params": [head], "lr": 1.0}, {**groups[0], "params": rest}])

        history = train(
            small_net(), [few] * 2, epochs=1, lr=0.01, schedule=lambda t: 1 - t / 2,
            optimisation=Optimisation(factory), progress=False,
        )  # fmt: skip
        assert rates == [[1.0, 0.01], [0.75, 0.0075]]
        assert history.last.learning_rate == 0.75


@pytest.mark.parametrize(
    ("how", "written_out"),
    [
        (
            {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
            partial(torch.optim.SGD, momentum=0.8, nesterov=True, weight_decay=0.01),
        ),
        (
            {"optimizer": "adam", "momentum": 0.8, "beta2": 0.99, "weight_decay": 0.01},
            partial(torch.optim.Adam, betas=(0.8, 0.99), weight_decay=0.01),
        ),
        ({"optimizer": "adamw"}, partial(torch.optim.AdamW, weight_decay=5e-4)),
        (
            {"optimizer": partial(torch.optim.RMSprop, alpha=0.9)},
            partial(torch.optim.RMSprop, alpha=0.9, weight_decay=5e-4),
        ),
    ],
    ids=["nesterov", "adam", "adamw", "factory"],
)
def test_steps_are_those_of_torch(
    how: dict[str, Any], written_out: Callable[..., Any], small_net: Build, few: Pair
) -> None:
    net, other = small_net().double(), small_net().double()
    train(net, [few] * 3, epochs=1, lr=1e-3, optimisation=Optimisation(**how), **PLAIN)
    optimizer = written_out(other.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(other(few[0].double()), few[1]).backward()
        optimizer.step()
    for got, want in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(got, want)


class TestSharpness:
    def test_a_step_is_the_published_one(self, small_net: Build, few: Pair) -> None:
        net, other = small_net().double(), small_net().double()
        images, labels = few[0].double(), few[1]
        how = Optimisation("sam", rho=0.3, momentum=0, weight_decay=0)
        history = train(
            net, [(images, labels)], epochs=1, lr=0.1, optimisation=how, **PLAIN
        )  # fmt: skip
        first = copy.deepcopy(other)
        weights = list(first.parameters())
        gradients = torch.autograd.grad(cross_entropy(first(images), labels), weights)
        length = sum((g**2).sum() for g in gradients).sqrt()
        worst = copy.deepcopy(other)
        with torch.no_grad():
            for weight, gradient in zip(worst.parameters(), gradients, strict=True):
                weight += 0.3 * gradient / length
        loss = cross_entropy(worst(images), labels)
        gradients = torch.autograd.grad(loss, list(worst.parameters()))
        for got, old, gradient in zip(net.parameters(), other.parameters(), gradients, strict=True):
            assert torch.allclose(got, old - 0.1 * gradient, rtol=1e-9, atol=1e-12)
        for got, want in zip(net.buffers(), first.buffers(), strict=True):
            assert torch.equal(got, want)  # running statistics see the pass at the old weights
        assert history.last.loss == pytest.approx(loss.item())

    def test_both_passes_draw_the_same_dropout(self, few: Pair) -> None:
        masks: list[Tensor] = []

        class Watched(nn.Dropout):
            def forward(self, x: Tensor) -> Tensor:
                masks.append(super().forward(torch.ones_like(x)))
                return x * masks[-1]

        net = nn.Sequential(nn.Flatten(), Watched(0.5), nn.Linear(64, 10))
        train(net, [few] * 2, epochs=1, optimisation=Optimisation("sam"), **PLAIN)
        at_w, within, at_next, _ = (mask for mask in masks if mask.shape[0] == 200)
        assert torch.equal(at_w, within)
        assert not torch.equal(within, at_next)

    @pytest.mark.parametrize("how", [{"optimizer": "sam"}, {"awp": 0.01}])
    def test_both_passes_draw_the_same_noise(
        self, how: dict[str, Any], small_net: Build, few: Pair
    ) -> None:
        drawn: list[Tensor] = []

        def loss(
            model: nn.Module, batch: methods.TrainingBatch, x: Tensor
        ) -> tuple[Tensor, Tensor]:
            drawn.append(torch.rand(3, generator=batch.generator))
            logits = model(x)
            return batch.cross_entropy(logits), logits

        method = methods.Method("noisy", lambda model, batch: batch.x, loss)
        train(
            small_net(), [few] * 2, method=method, epochs=1, optimisation=Optimisation(**how),
            **PLAIN,
        )  # fmt: skip
        before, step, next_before, _ = drawn
        assert torch.equal(before, step)
        assert not torch.equal(step, next_before)

    @pytest.mark.parametrize("method", methods.available())
    def test_goes_with_every_method(self, method: str, small_net: Build, few: Pair) -> None:
        weights = []
        for name in ("sgd", "sam"):
            net = small_net()
            train(
                net, [few], epochs=1, method=method, optimisation=Optimisation(name), **PLAIN
            )  # fmt: skip
            weights.append(net[0].weight.detach())
        assert weights[1].isfinite().all()
        assert not torch.equal(*weights)

    def test_float16_gradients_do_not_underflow(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

        def loss() -> Tensor:
            with torch.autocast("cpu", torch.float16):
                logits = net(few[0]) * 1e-6
            return cross_entropy(logits.float(), few[1])

        before = [p.detach().clone() for p in net.parameters()]
        with sharpest_weights(net, loss, 0.05, scaler):
            moved = [(new - old).norm() for new, old in zip(net.parameters(), before, strict=True)]
            assert torch.stack(moved).norm().item() == pytest.approx(0.05, rel=1e-3)
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))

    def test_weights_without_a_gradient(self, few: Pair) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        batch = (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
        nn.init.zeros_(net[1].weight)
        with torch.no_grad():
            net[1].bias.fill_(-1e9)[:2] = 0.0  # equal gradients of two classes: none in all
        before = [p.detach().clone() for p in net.parameters()]
        train(
            net, [batch], epochs=1, optimisation=Optimisation("sam", weight_decay=0), **PLAIN
        )  # fmt: skip
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


class TestClipping:
    def test_to_the_norm_of_all_gradients(self, small_net: Build, few: Pair) -> None:
        net, other = small_net(), small_net()
        how = Optimisation(momentum=0, weight_decay=0, max_grad_norm=0.01)
        train(net, [few], epochs=1, lr=1.0, optimisation=how, **PLAIN)
        pairs = list(zip(net.parameters(), other.parameters(), strict=True))
        moved = torch.stack([(new - old).norm() for new, old in pairs]).norm()
        assert moved.item() == pytest.approx(0.01, rel=1e-3)

    def test_short_gradients_are_left_alone(self, small_net: Build, few: Pair) -> None:
        net, other = small_net(), small_net()
        for one, bound in ((net, 1e6), (other, None)):
            how = Optimisation(max_grad_norm=bound)
            train(one, few, epochs=1, optimisation=how, progress=False)
        assert torch.equal(net[0].weight, other[0].weight)

    def test_scaled_gradients_are_measured_unscaled(self, small_net: Build, few: Pair) -> None:
        net, other = small_net(), small_net()
        how = Optimisation(
            momentum=0, weight_decay=0, max_grad_norm=0.01, autocast=torch.float16
        )  # fmt: skip
        train(net, [few], epochs=1, lr=1.0, optimisation=how, **PLAIN)
        pairs = list(zip(net.parameters(), other.parameters(), strict=True))
        moved = torch.stack([(new - old).norm() for new, old in pairs]).norm()
        assert moved.item() == pytest.approx(0.01, rel=1e-3)


OPTIMISERS: dict[str, dict[str, Any]] = {
    "nesterov": {"nesterov": True, "max_grad_norm": 0.5},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "decay_norms_and_biases": False},
    "sam": {"optimizer": "sam"},
    # Their states: a product kept in float32 beside float64 weights, means of the weights, steps
    # beside sums, a previous gradient.
    "nadam": {"optimizer": torch.optim.NAdam},
    "asgd": {"optimizer": torch.optim.ASGD},
    "adagrad": {"optimizer": torch.optim.Adagrad},
    "rprop": {"optimizer": torch.optim.Rprop},
}


class TestResume:
    @pytest.mark.parametrize("name", OPTIMISERS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_exact(
        self, name: str, dtype: torch.dtype, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        def stop(_: nn.Module, record: Any) -> None:
            if record.epoch == 1:
                raise StopTraining("for now")

        options: dict[str, Any] = {
            "epochs": 4, "lr": 1e-3, "progress": False,
            "optimisation": Optimisation(**OPTIMISERS[name], ema=0.9),
        }  # fmt: skip
        few = few[0][:64], few[1][:64]
        whole, resumed = small_net().to(dtype), small_net(dropout=0.0).to(dtype)
        train(whole, few, **options)
        saving = Saving(tmp_path, resume=True)
        train(small_net().to(dtype), few, saving=saving, on_epoch=stop, **options)
        nn.init.zeros_(resumed[0].weight)
        assert len(train(resumed, few, saving=saving, **options)) == 4
        for key, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[key]), key

    @pytest.mark.parametrize("raised", [OSError("disk full"), KeyboardInterrupt()])
    def test_after_a_callback_that_raised(
        self, raised: BaseException, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        def fail(_: nn.Module, record: Any) -> None:
            if record.epoch == 1:
                raise raised

        init = tmp_path / "init.safetensors"
        save_file(dict(small_net().state_dict()), init)
        soft = 0.9 * nn.functional.one_hot(few[1], 10).float() + 0.01
        options: dict[str, Any] = {
            "epochs": 3, "method": "pgd", "method_options": {"steps": 2, "model_mode": "train"},
            "optimisation": Optimisation(
                "sam", ema=0.9, max_grad_norm=1.0, label_smoothing=0.1,
                decay_norms_and_biases=False, freeze_batch_norm="affine",
            ),
            "init": init, "progress": False,
        }  # fmt: skip
        whole, resumed = small_net(), small_net()
        train(whole, (few[0], soft), **options)
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            train(small_net(), (few[0], soft), saving=Saving(tmp_path), on_epoch=fail, **options)
        saving = Saving(tmp_path, resume=True)
        assert len(train(resumed, (few[0], soft), saving=saving, **options)) == 3
        for key, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[key]), key

    def test_numbers_and_settings_that_an_optimizer_changes(
        self, few: Pair, tmp_path: Path
    ) -> None:
        class Counting(torch.optim.SGD):
            """Counts its steps in a setting and in numbers that are no tensors."""

            def __init__(self, groups: list[dict[str, Any]]) -> None:
                super().__init__([{**group, "steps": 0, "span": (0, 0)} for group in groups])

            def step(self, closure: Any = None) -> None:
                for group in self.param_groups:
                    group["steps"] += 1
                    group["span"] = (0, group["steps"])
                    for p in group["params"]:
                        self.state[p]["halves"] = self.state[p].get("halves", 0) + 0.5
                seen.append((group["steps"], group["span"], self.state[p]["halves"]))

        seen: list[Any] = []
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        options: dict[str, Any] = {"optimisation": Optimisation(Counting), "progress": False}

        def fail(_: nn.Module, record: Any) -> None:
            raise OSError("disk full")

        with pytest.raises(RuntimeError, match=r"disk full.*the epoch is saved"):
            train(net, [few], epochs=2, saving=Saving(tmp_path), on_epoch=fail, **options)
        train(net, [few], epochs=2, saving=Saving(tmp_path, resume=True), **options)
        assert seen == [(1, (0, 1), 0.5), (2, (0, 2), 1.0)]

    @pytest.mark.parametrize(
        ("other", "difference"),
        [
            ({"optimizer": "adamw"}, r"optimizer: '.*\.Adam' there, '.*\.AdamW' here"),
            (
                {"optimizer": torch.optim.Adam, "weight_decay": 1.0},
                "weight_decay: 0.0005 there",
            ),
            ({"optimizer": "adam", "beta2": 0.9}, r"betas: \[0.9, 0.999\] there, \[0.9, 0.9\] h"),
            ({"optimizer": "adam", "max_grad_norm": 1.0}, "max_grad_norm: None there, 1.0 here"),
            ({"optimizer": "adam", "decay_norms_and_biases": False}, "group 0 parameters: 10 th"),
        ],
    )
    def test_of_another_optimizer_is_refused(
        self, other: dict[str, Any], difference: str, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {"epochs": 1, "progress": False}
        how = Optimisation("adam")
        train(small_net(), [few], saving=Saving(tmp_path), optimisation=how, **options)
        saving = Saving(tmp_path, resume=True)
        with pytest.raises(ValueError, match=f"other settings .*{difference}"):
            train(small_net(), [few], saving=saving, optimisation=Optimisation(**other), **options)

    def test_of_another_rho_is_refused(self, few: Pair, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        options: dict[str, Any] = {"epochs": 1, "progress": False}
        how = Optimisation("sam")
        train(net, [few], saving=Saving(tmp_path), optimisation=how, **options)
        for other in (Optimisation("sam", rho=0.1), Optimisation("sgd")):
            with pytest.raises(ValueError, match=r"other settings \(rho: 0.05 there, .* here"):
                train(
                    net, [few], saving=Saving(tmp_path, resume=True), optimisation=other, **options
                )

    def test_of_another_rate_of_a_group_is_refused(self, few: Pair, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def faster(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            return torch.optim.SGD([{**groups[0], "lr": 0.5}])

        how = Optimisation(faster)
        train(net, [few], epochs=1, saving=Saving(tmp_path), optimisation=how, progress=False)
        with pytest.raises(ValueError, match=r"other settings \(group 0 lr: 0\.5 there, None here"):
            train(
                net, [few], epochs=1, saving=Saving(tmp_path, resume=True),
                optimisation=Optimisation(torch.optim.SGD), progress=False,
            )  # fmt: skip

    def test_of_a_damaged_state_is_refused(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {
            "epochs": 1, "optimisation": Optimisation("adam"), "progress": False,
        }  # fmt: skip
        train(small_net(), [few], saving=Saving(tmp_path), **options)
        path = tmp_path / "resume.safetensors"
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        header = json.loads(metadata["repsim_fast_training"])

        def resume(tensors: dict[str, Tensor], **changed: Any) -> None:
            kept = {**header, "optimizer": {**header["optimizer"], **changed}}
            save_file(tensors, path, {"repsim_fast_training": json.dumps(kept)})
            train(small_net(), [few], saving=Saving(tmp_path, resume=True), **options)

        resume(tensors)
        name = "optimizer.0.step"
        for broken in (
            {key: value for key, value in tensors.items() if key != name},
            tensors | {name: tensors[name].to(torch.int64)},
            tensors | {name: tensors[name].reshape(1)},
        ):
            with pytest.raises(ValueError, match=r"expected the optimizer's state .*0\.step"):
                resume(broken)
        with pytest.raises(ValueError, match=r"expected state of 10 parameters, got '99\.step'"):
            resume(tensors, numbers={"99.step": 1})
        with pytest.raises(ValueError, match=r"expected optimizer\.NUMBER\.NAME, got 'step'"):
            resume(tensors, numbers={"step": 1})
        with pytest.raises(ValueError, match="parameter groups of another optimizer"):
            resume(tensors, groups=[{"momentum": 0.9}])
        with pytest.raises(ValueError, match=r"resume\.safetensors: optimizer.*numbers"):
            resume(tensors, numbers=[3])


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"optimizer": "lion"}, "optimizer: expected one of 'sgd', 'adam', .*got 'lion'"),
            ({"beta2": 1.0}, r"beta2: an option of optimizer 'adam', 'adamw', got it beside 'sgd'"),
            ({"optimizer": "adam", "beta2": 1.0}, r"beta2 must lie in \[0, 1\), got 1.0"),
            ({"optimizer": "adam", "nesterov": True}, "nesterov: an option of optimizer 'sgd'"),
            ({"optimizer": torch.optim.SGD, "momentum": 0.5}, "momentum: an option of optimizer"),
            ({"nesterov": True, "momentum": 0.0}, "nesterov needs momentum"),
            ({"rho": 0.1}, "rho: an option of optimizer 'sam'"),
            ({"optimizer": "sam", "rho": 0.0}, "rho must be positive and finite, got 0.0"),
            ({"optimizer": "sam", "awp": 0.01}, "awp: 'sam' perturbs the weights itself"),
            ({"max_grad_norm": 0.0}, "max_grad_norm must be positive and finite, got 0.0"),
            ({"max_grad_norm": float("nan")}, "max_grad_norm must be positive and finite, got nan"),
            ({"weight_decay": float("inf")}, "weight_decay must be non-negative and finite"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Optimisation(**options)

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (partial(torch.optim.SGD, lr=1e-4), r"lr=0\.0001 beside .* lr 0\.1, which count"),
            (partial(torch.optim.SGD, lr=1e-3), r"lr=0\.001 beside"),  # SGD's own default
            (lambda groups: torch.optim.Adam(groups, lr=0.01), r"lr=0\.01 beside"),
            (partial(torch.optim.AdamW, weight_decay=0.3), r"weight_decay=0\.3 beside .* 0\.0005"),
        ],
    )
    def test_settings_that_the_groups_override(
        self, small_net: Build, few: Pair, factory: Any, message: str
    ) -> None:
        how = Optimisation(factory)
        with pytest.raises(ValueError, match=f"optimizer: the factory gave {message}"):
            train(small_net(), few, epochs=1, optimisation=how, progress=False)

    @pytest.mark.parametrize(
        "factory",
        [
            partial(torch.optim.SGD, momentum=0.9),
            lambda groups: torch.optim.SGD(groups, lr=groups[0]["lr"], weight_decay=0.0),
            lambda groups: torch.optim.SGD([p for g in groups for p in g["params"]], lr=0.02),
            lambda groups: torch.optim.SGD([{**g, "lr": 2 * g["lr"]} for g in groups]),
        ],
    )
    def test_settings_that_count(self, small_net: Build, few: Pair, factory: Any) -> None:
        how = Optimisation(factory, decay_norms_and_biases=False)
        train(small_net(), few, epochs=1, optimisation=how, progress=False)

    def test_factories(self, few: Pair) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def run(factory: Any) -> None:
            train(net, [few], epochs=1, optimisation=Optimisation(factory), progress=False)

        with pytest.raises(TypeError, match=r"optimizer must be one of sgd, .*got int"):
            run(3)
        with pytest.raises(TypeError, match=r"must make a torch\.optim\.Optimizer, got list"):
            run(list)
        with pytest.raises(ValueError, match="steps without a closure, got LBFGS"):
            run(lambda groups: torch.optim.LBFGS(groups[0]["params"]))
        with pytest.raises(ValueError, match=r"left out '1\.bias' and 0 more"):
            run(lambda groups: torch.optim.SGD(groups[0]["params"][:1]))
        with pytest.raises(ValueError, match=r"setting 'owner' .* numbers or texts.* got object"):
            run(lambda groups: torch.optim.SGD([{**groups[0], "owner": object()}]))
