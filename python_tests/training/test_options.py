"""The trainer's options: averages, weight perturbation, selectivity, precision, detector, logs."""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from repsim_fast.analysis.selectivity import selectivity
from repsim_fast.attacks import PGD
from repsim_fast.data.labelled import labelled
from repsim_fast.training import (
    Evaluation,
    Optimisation,
    OverfittingDetector,
    Saving,
    SelectivityRegulariser,
    class_selectivity,
    evaluate,
    methods,
    schedules,
    train,
)
from repsim_fast.training.awp import perturbed_weights
from repsim_fast.training.ema import WeightAverage
from repsim_fast.training.overfitting import Probe

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


class TestSchedules:
    def test_shapes(self) -> None:
        assert [schedules.cosine(t) for t in (0.0, 0.5)] == pytest.approx([1.0, 0.5])
        assert [schedules.cyclic(t) for t in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.5, 1.0, 0.5]
        assert schedules.cyclic(0.4, peak=0.4) == 1.0
        rates = [schedules.step(t) for t in (0.0, 0.49, 0.5, 0.75)]
        assert rates == pytest.approx([1, 1, 0.1, 0.01])

    def test_the_rate_follows_the_schedule(self, small_net: Build, few: Pair) -> None:
        history = train(
            small_net(), few, epochs=4, batch_size=100, lr=0.2, schedule="cyclic", progress=False
        )
        rates = [epoch.learning_rate for epoch in history.epochs]
        assert rates == pytest.approx([0.05, 0.15, 0.15, 0.05])
        history = train(small_net(), few, epochs=2, lr=0.2, schedule=lambda t: 0.5, progress=False)
        assert history.last.learning_rate == 0.1

    def test_unknown(self, small_net: Build, few: Pair) -> None:
        with pytest.raises(ValueError, match="schedule must be a callable or one of"):
            train(small_net(), few, schedule="linear", progress=False)


class TestAverage:
    def test_is_the_running_mean(self) -> None:
        net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(net.weight)
        average = WeightAverage(net, 0.5)
        value = 0.0
        for t in range(1, 30):
            nn.init.constant_(net.weight, float(t))
            average.update(net)
            decay = min(0.5, (1 + t) / (10 + t))
            value = decay * value + (1 - decay) * t
        assert average.state["weight"].item() == pytest.approx(value, rel=1e-5)
        with average.applied(net):
            assert net.weight.item() == pytest.approx(value, rel=1e-5)
        assert net.weight.item() == 29.0

    def test_has_the_vectors_of_a_spectral_norm_as_they_are(self) -> None:
        net = nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), nn.BatchNorm1d(3)
        )
        average = WeightAverage(net, 0.5)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            with torch.no_grad():
                net[0].parametrizations.weight.original.normal_(generator=generator)
            net(torch.rand(8, 4, generator=generator) + 5)
            average.update(net)
        state = net.state_dict()
        for name in ("_u", "_v"):
            name = f"0.parametrizations.weight.0.{name}"
            assert torch.equal(average.state[name], state[name])
        for name in ("0.parametrizations.weight.original", "1.running_mean"):
            assert not torch.equal(average.state[name], state[name])

    def test_is_what_is_evaluated_and_kept(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        history = train(
            net, few, epochs=2, optimisation=Optimisation(ema=0.99),
            evaluation=Evaluation(few, PGD(0.1, seed=0)), progress=False,
        )  # fmt: skip
        figures = evaluate(net, few, PGD(0.1, seed=0))
        assert figures.clean == history.last.clean_accuracy
        assert figures.robust == history.last.robust_accuracy


class TestWeightPerturbation:
    def test_raises_the_loss_and_goes_without_a_trace(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        x, y = few
        state = {name: value.clone() for name, value in net.state_dict().items()}

        def loss() -> Tensor:
            return nn.functional.cross_entropy(net(x), y)

        before = loss().item()
        net.load_state_dict(state)
        with perturbed_weights(net, loss, 0.05, torch.amp.GradScaler("cpu", enabled=False)):
            for name, weight in net.named_parameters():
                moved = (weight - state[name]).norm() / state[name].norm().clamp(min=1e-12)
                assert moved.item() == pytest.approx(0.05 if weight.ndim > 1 else 0.0, rel=1e-3)
            assert loss().item() > before
        for name, value in net.named_parameters():
            assert torch.equal(value, state[name]), name
        assert all(p.grad is None for p in net.parameters())

    def test_float16_gradients_do_not_underflow(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

        def loss() -> Tensor:
            with torch.autocast("cpu", torch.float16):
                logits = net(few[0]) * 1e-6
            return nn.functional.cross_entropy(logits.float(), few[1])

        before = [p.detach().clone() for p in net.parameters()]
        with perturbed_weights(net, loss, 0.05, scaler):
            for old, weight in zip(before, net.parameters(), strict=True):
                moved = ((weight - old).norm() / old.norm().clamp(min=1e-12)).item()
                assert moved == pytest.approx(0.05 if weight.ndim > 1 else 0.0, rel=1e-3)

    def test_in_training(self, small_net: Build, few: Pair) -> None:
        options = {"method": "pgd", "method_options": {"eps": 0.1, "steps": 2}, "progress": False}
        plain, late, awp = small_net(), small_net(), small_net()
        train(plain, few, epochs=2, **options)
        train(late, few, epochs=2, optimisation=Optimisation(awp=0.01, awp_warmup=2), **options)
        train(awp, few, epochs=2, optimisation=Optimisation(awp=0.01), **options)
        assert torch.equal(plain[0].weight, late[0].weight)
        assert not torch.equal(plain[0].weight, awp[0].weight)
        assert evaluate(awp, few).clean > 0.6

    def test_needs_a_matrix_or_kernel_to_train(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        for parameter in net.parameters():
            parameter.requires_grad_(parameter.ndim == 1)
        with pytest.raises(ValueError, match="awp: perturbs matrices and kernels, got a model"):
            train(net, few, epochs=1, optimisation=Optimisation(awp=0.01), progress=False)


class TestSelectivity:
    def test_index_of_known_units(self) -> None:
        y = torch.tensor([0, 0, 1, 2, 2, 2])
        constant = torch.full((6,), 0.7)
        one_class = (y == 1).float()
        mixed = torch.tensor([1.0, 3.0, 1.0, 0.0, 0.0, 0.0])  # class means 2, 1, 0
        index = class_selectivity(torch.stack((constant, one_class, mixed), 1), y)
        assert index.tolist() == pytest.approx([0.0, 1.0, (2 - 0.5) / 2.5], abs=1e-5)

    def test_a_last_batch_of_one_class(self, small_net: Build, few: Pair) -> None:
        images, labels = few
        order = torch.argsort(labels)[: int((labels < 2).sum())]
        batches = [(images[:50], labels[:50]), (images[order][:3], labels[order][:3])]
        how = Optimisation(regularisers=[SelectivityRegulariser(-1.0)])
        history = train(small_net(), batches, epochs=1, optimisation=how, progress=False)
        assert history.last.loss > 0

    def test_the_frequency_of_a_class_does_not_matter(self) -> None:
        y = torch.tensor([0, 1, 1, 1, 1])
        index = class_selectivity(torch.tensor([[1.0], [1.0], [1.0], [1.0], [1.0]]), y)
        assert index.item() == pytest.approx(0.0, abs=1e-6)  # sums would give 0.6

    def test_maps_are_averaged_over_space(self) -> None:
        maps, y = torch.rand(8, 3, 4, 4), torch.arange(8) % 2
        assert torch.allclose(class_selectivity(maps, y), class_selectivity(maps.mean((2, 3)), y))

    def test_one_class_only(self) -> None:
        with pytest.raises(ValueError, match="at least two classes"):
            class_selectivity(torch.rand(4, 2), torch.zeros(4, dtype=torch.int64))

    def test_regulariser_moves_selectivity_both_ways(
        self, small_net: Build, digits: tuple[Pair, Pair]
    ) -> None:
        means = {}
        for alpha in (-2.0, 0.0, 2.0):
            net = small_net()
            extra = Optimisation(regularisers=[SelectivityRegulariser(alpha)] if alpha else [])
            train(net, digits[0], epochs=3, optimisation=extra, progress=False)
            assert evaluate(net, digits[1]).clean > 0.85
            net.eval()
            with torch.no_grad():
                hidden = net[:6](digits[1][0])
            means[alpha] = class_selectivity(hidden, digits[1][1]).mean().item()
            assert not any(module._forward_hooks for module in net.modules())
        assert means[-2.0] < 0.7 * means[0.0] < means[0.0] < 0.8 * means[2.0]

    @pytest.mark.parametrize("method", methods.available())
    def test_regulariser_goes_with_every_method(
        self, method: str, small_net: Build, few: Pair
    ) -> None:
        losses = [
            train(
                small_net(), few, method=method, epochs=1,
                optimisation=Optimisation(regularisers=extra), progress=False,
            ).epochs[0].loss
            for extra in ([], [SelectivityRegulariser(5.0)])
        ]  # fmt: skip
        assert losses[1] < losses[0]  # by five times an index in [0, 1], at first

    def test_absent_classes_are_no_part_of_it(self) -> None:
        net, x = nn.Sequential(nn.ReLU()), torch.rand(6, 3)
        with SelectivityRegulariser(1.0).observe(net) as penalty:
            net(x)
        found = [penalty(torch.tensor(y)) for y in ([0, 1, 1, 0, 1, 0], [7, 2, 2, 7, 2, 7])]
        assert found[0].item() == pytest.approx(found[1].item())

    def test_layers_count_alike_whatever_their_units(self, few: Pair) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 30), nn.ReLU())
        with SelectivityRegulariser(-2.0).observe(net) as penalty:
            net(few[0])
        hidden, deeper = net[:3](few[0]), net(few[0])
        want = class_selectivity(hidden, few[1]).mean() + class_selectivity(deeper, few[1]).mean()
        assert penalty(few[1]).item() == pytest.approx(want.item(), rel=1e-4)

    def test_calls_of_a_layer_are_told_apart(self, few: Pair) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.relu = nn.Linear(64, 12), nn.Linear(12, 9), nn.ReLU()

            def forward(self, x: Tensor) -> Tensor:
                return self.relu(self.b(self.relu(self.a(x.flatten(1)))))

        net = Net()
        for layers in ("relu#1", "relu#2", "relu", ["relu#2", "relu#1"], "RELU"):
            with SelectivityRegulariser(-1.0, layers=layers).observe(net) as penalty:
                net(few[0])
                net(few[0])  # as the method's second pass
                found = penalty(few[1])
            want = selectivity(net, few, layers=layers).mean
            assert found.item() == pytest.approx(want, rel=1e-4), layers
        with SelectivityRegulariser(-1.0, layers="relu#3").observe(net) as penalty:
            net(few[0])
            with pytest.raises(ValueError, match="'relu' is called 2 times in a pass, and not 3"):
                penalty(few[1])

    @pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
    def test_alpha_is_finite(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="alpha must be finite"):
            SelectivityRegulariser(alpha)

    def test_layers_without_units(self, few: Pair) -> None:
        with pytest.raises(ValueError, match="layers must be names of modules"):
            SelectivityRegulariser(1.0, layers=[])
        net = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 64)), nn.Linear(64, 10))
        how = Optimisation(regularisers=[SelectivityRegulariser(1.0, layers=["0"])])
        with pytest.raises(
            ValueError, match=r"layer '0' must have units for each of the 100 .*6400"
        ):
            train(net, few, batch_size=100, optimisation=how, progress=False)

    @pytest.mark.parametrize("act", [nn.ReLU(), nn.GELU()], ids=["positive", "signed"])
    def test_units_are_channels_wherever_a_layer_has_them(self, act: nn.Module, few: Pair) -> None:
        images, labels = few
        last, tokens = nn.Linear(6, 12), nn.Linear(8, 12)

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.last, self.tokens = nn.Conv2d(1, 6, 3), last, tokens
                self.act, self.rnn = act, nn.LSTM(12, 5, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                self.act(self.conv(x))
                self.act(self.last(self.conv(x).permute(0, 2, 3, 1)))
                rows = self.act(self.tokens(x.flatten(1, 2)))
                return self.rnn(rows)[0].mean(1)

        net = Net()
        for layers in (["act"], ["rnn"], "*"):
            regulariser = SelectivityRegulariser(-1.0, layers=layers)
            for _ in range(2):  # the second knows from the first
                with warnings.catch_warnings(), regulariser.observe(net) as penalty:
                    warnings.simplefilter("ignore")
                    net(images)
                    found = penalty(labels)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    want = selectivity(net, (images, labels), layers=layers).mean
                assert found.item() == pytest.approx(want, rel=1e-4)

    def test_units_without_limits_are_said(self, few: Pair) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GELU())
        how = Optimisation(regularisers=[SelectivityRegulariser(1e-3, layers="2")])
        with pytest.warns(UserWarning, match=r"not in \[0, 1\].*negative"):
            train(net, few, epochs=1, optimisation=how, progress=False)

    def test_layers(self, small_net: Build, few: Pair) -> None:
        net = small_net()
        regulariser = SelectivityRegulariser(1.0, layers=["5"])
        with regulariser.observe(net) as penalty:
            net(few[0])
        net.train()
        want = -class_selectivity(net[:6](few[0]), few[1]).mean()
        assert penalty(few[1]).item() == pytest.approx(want.item(), rel=1e-4)
        with SelectivityRegulariser(1.0, layers=["[25]"]).observe(net) as several:
            net(few[0])
        with SelectivityRegulariser(1.0).observe(net) as every_relu:
            net(few[0])
        assert several(few[1]).item() == pytest.approx(every_relu(few[1]).item())
        wrong = Optimisation(regularisers=[SelectivityRegulariser(1.0, layers=["relu9"])])
        with pytest.raises(ValueError, match="layers: 'relu9' matched no layer"):
            train(small_net(), few, optimisation=wrong, progress=False)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        every = Optimisation(regularisers=[SelectivityRegulariser(1.0)])
        with pytest.raises(ValueError, match=r"model has no nn\.ReLU"):
            train(linear, few, optimisation=every, progress=False)


@pytest.mark.parametrize("method", ["standard", "pgd", "trades"])
def test_mixed_precision_learns_as_well(
    small_net: Build, digits: tuple[Pair, Pair], method: str
) -> None:
    options = {} if method == "standard" else {"eps": 0.1, "steps": 2}
    scores = []
    for autocast in (None, torch.bfloat16):
        net = small_net()
        train(
            net, digits[0], method=method, method_options=options, epochs=3,
            optimisation=Optimisation(autocast=autocast), progress=False,
        )  # fmt: skip
        assert net[0].weight.dtype == torch.float32
        scores.append(evaluate(net, digits[1]).clean)
    assert scores[1] > scores[0] - 0.03


def test_augmentation(small_net: Build, few: Pair) -> None:
    seen: list[Tensor] = []

    def spy(images: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(images.clone())
        return images.flip(3)

    weights = []
    for augment in (None, "crop", "crop+flip", spy):
        net = small_net()
        train(net, few, epochs=1, augment=augment, progress=False)
        weights.append(net[0].weight.detach())
    assert seen
    for i in range(4):
        assert not any(torch.equal(weights[i], other) for other in weights[:i])
    with pytest.raises(ValueError, match="augment must be"):
        train(small_net(), few, augment="rotate", progress=False)


class TestDetector:
    def test_verdicts(self) -> None:
        detector = OverfittingDetector(0.1)
        healthy = [Probe(0.5, 0.45), Probe(0.6, 0.53), Probe(0.58, 0.50)]
        assert detector.verdict(healthy) is None
        assert "collapsed from 0.530 to 0.010" in (
            detector.verdict([*healthy, Probe(0.2, 0.01)]) or ""
        )
        assert "against FGSM" in (detector.verdict([Probe(0.85, 0.4)]) or "")

    def test_masked_gradients_are_found_and_stop_the_training(
        self, digits: tuple[Pair, Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A network whose derivative points the wrong way at every value that a digit has."""

        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(64, 10)

            def forward(self, x: Tensor) -> Tensor:
                # Digits are multiples of 1/16: there the ripple is 0 and its slope just above 1.
                ripple = 0.0105 * torch.sin(32 * torch.pi * x)
                return self.linear((x - ripple).flatten(1))

        evaluation = Evaluation(detector=OverfittingDetector(0.3, n=200), stop_on_overfitting=True)
        options = {"epochs": 12, "lr": 0.2, "evaluation": evaluation, "progress": False}
        history = train(Masked(), digits[0], saving=Saving(tmp_path), **options)
        assert history.last.fgsm_accuracy is not None
        assert history.overfitting is not None
        assert history.stopped == history.overfitting
        assert len(history) < 12
        assert "catastrophic overfitting" in caplog.text
        again = train(Masked(), digits[0], saving=Saving(tmp_path, resume=True), **options)
        assert again == history

    def test_a_healthy_training_is_left_alone(
        self, small_net: Build, digits: tuple[Pair, Pair]
    ) -> None:
        history = train(
            small_net(), digits[0], method="pgd", method_options={"eps": 0.15, "steps": 3},
            epochs=4, progress=False,
            evaluation=Evaluation(
                detector=OverfittingDetector(0.15, n=128), stop_on_overfitting=True
            ),
        )  # fmt: skip
        assert history.overfitting is None
        assert len(history) == 4


class TestLogs:
    def test_json_lines(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        path = tmp_path / "new" / "log.jsonl"
        history = train(
            small_net(), few, epochs=3, evaluation=Evaluation(few, every=2),
            saving=Saving(log=path), progress=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [0, 1, 2]
        assert lines[0]["clean_accuracy"] is None
        assert lines[1]["clean_accuracy"] == history.epochs[1].clean_accuracy
        assert lines[2]["loss"] == history.last.loss

    def test_tensorboard(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        options = {"epochs": 1, "saving": Saving(tensorboard=tmp_path), "progress": False}
        if importlib.util.find_spec("tensorboard") is None:
            with pytest.raises(ImportError, match="pip install tensorboard"):
                train(small_net(), few, **options)
        else:
            train(small_net(), few, **options)
            assert list(tmp_path.glob("events*"))

    def test_progress_bar_shows_accuracy(
        self, small_net: Build, digits: tuple[Pair, Pair], capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(small_net(), digits[0], epochs=1, batch_size=32, evaluation=Evaluation(digits[1]))
        shown = capsys.readouterr().err
        assert "train (standard)" in shown
        assert "train=0." in shown
        assert "clean=0." in shown


class TestBadInput:
    def test_settings(self, small_net: Build, few: Pair) -> None:
        for options, message in (
            ({"epochs": 0}, "epochs and batch_size must be at least 1, got 0, 128"),
            ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
            ({"lr": math.inf}, "lr must be positive and finite, got inf"),
            ({"lr": math.nan}, "lr must be positive and finite, got nan"),
            ({"schedule": lambda t: math.nan}, "factor of schedule must be non-neg.*, got nan"),
            ({"schedule": lambda t: -t}, "factor of schedule must be non-negative .*, got -0"),
            ({"method": "pgd", "method_options": {"epsilon": -1}}, "unexpected keyword|epsilon"),
            ({"method": "pgd", "method_options": {"eps": 0.1, "steps": 0}}, "at least 1"),
        ):
            with pytest.raises(ValueError, match=message):
                train(small_net(), few, progress=False, **options)

    @pytest.mark.parametrize(
        ("build", "options", "message"),
        [
            (Optimisation, {"ema": 1.0}, r"ema must lie in \(0, 1\), got 1.0"),
            (Optimisation, {"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
            (Optimisation, {"weight_decay": -1e-4}, "weight_decay must be non-negative"),
            (
                Optimisation,
                {"optimizer": "sam", "rho": math.inf},
                "rho must be positive and finite, got inf",
            ),
            (Optimisation, {"awp": float("nan")}, "awp must be non-negative and .*nan"),
            (
                Optimisation,
                {"awp_warmup": -1},
                "awp_warmup must be non-neg.*got -1",
            ),
            (Optimisation, {"autocast": "bfloat16"}, "autocast: expected .* got 'bfloat16'"),
            (Evaluation, {"every": 0}, "every must be at least 1, got 0"),
            (Evaluation, {"stop_on_overfitting": True}, "needs a detector"),
            (Saving, {"resume": True}, "resume needs the folder"),
            (Saving, {"architecture": {"name": "wrn-10-1"}}, "architecture must .*'num_classes'"),
        ],
    )
    def test_groups(self, build: Callable[..., Any], options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build(**options)

    @pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
    @pytest.mark.parametrize(
        ("method", "option"),
        [
            ("trades", "beta"),
            ("mart", "beta"),
            ("smoothing", "beta"),
            ("smoothing", "sigma"),
            ("noise", "sigma"),
            ("gradalign", "weight"),
        ],
    )
    def test_numbers_of_methods(self, method: str, option: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{option} must be .* finite, got {value}"):
            methods.build(method, **{option: value})

    def test_numbers_that_are_none(self, small_net: Build, few: Pair) -> None:
        with pytest.raises(TypeError, match=r"lr must be a number, got '0\.1'"):
            train(small_net(), few, lr="0.1", progress=False)
        with pytest.raises(TypeError, match=r"awp_warmup must be a whole number, got 0\.5"):
            Optimisation(awp_warmup=0.5)

    @pytest.mark.parametrize("lr", [math.inf, math.nan])
    def test_rate_of_a_factory(self, small_net: Build, few: Pair, lr: float) -> None:
        how = Optimisation(lambda groups: torch.optim.SGD([{**groups[0], "lr": lr}]))
        with pytest.raises(ValueError, match=f"lr of parameter group 0 must .* finite, got {lr}"):
            train(small_net(), few, optimisation=how, progress=False)

    @pytest.mark.parametrize("largest", [16, 255])
    @pytest.mark.parametrize("method", ["standard", "pgd"])
    def test_images_of_another_range(
        self, small_net: Build, few: Pair, method: str, largest: int
    ) -> None:
        data = (few[0] * largest, few[1])
        got = rf"floating point images must lie in \[0, 1\], got values in \[0, {largest}\]"
        options = {"method": method, "epochs": 1, "progress": False}
        with pytest.raises(ValueError, match=f"train_data: {got}"):
            train(small_net(), data, **options)
        loader = DataLoader(TensorDataset(*data), 50)
        with pytest.raises(ValueError, match=f"train_data: batch 0: {got}"):
            train(small_net(), loader, **options)
        with pytest.raises(ValueError, match=f"evaluation data '': {got}"):
            train(small_net(), few, evaluation=Evaluation(data), **options)
        with pytest.raises(ValueError, match=f"data: {got}"):
            evaluate(small_net(), data)

    def test_images_somewhat_outside_of_the_range_train(self, small_net: Build, few: Pair) -> None:
        normalised = ((few[0] - few[0].mean()) / few[0].std(), few[1])
        assert len(train(small_net(), normalised, epochs=1, progress=False)) == 1

    def test_model_method_and_device(self, small_net: Build, few: Pair) -> None:
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
            train(lambda x: x, few, progress=False)
        with pytest.raises(ValueError, match="model must have a parameter to train"):
            train(small_net().requires_grad_(False), few, progress=False)
        with pytest.raises(TypeError, match="method must be a name or a Method, got NoneType"):
            train(small_net(), few, method=None, progress=False)
        with pytest.raises(RuntimeError, match="device='gpu' was asked for"):
            train(small_net(), few, device="gpu", progress=False)

    def test_a_folder_that_cannot_be_written_is_found_before_the_first_epoch(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        net = small_net()
        before = net[0].weight.clone()
        with pytest.raises(OSError, match=r"cannot write to .*it is not a folder"):
            train(net, few, epochs=1, saving=Saving(tmp_path / "file"), progress=False)
        assert torch.equal(net[0].weight, before)

    def test_batch_size_of_an_evaluation(self, small_net: Build, few: Pair) -> None:
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            evaluate(small_net(), few, batch_size=0)
        with pytest.raises(TypeError, match=r"batch_size must be a whole number, got 2\.5"):
            evaluate(small_net(), few, batch_size=2.5)

    def test_device_of_an_evaluation(self, small_net: Build, few: Pair) -> None:
        with pytest.raises(RuntimeError, match="device='gpu' was asked for"):
            evaluate(small_net(), few, device="gpu")

    def test_data(self, small_net: Build, few: Pair) -> None:
        with pytest.raises(TypeError, match=r"train_data: labels must be integers, got torch\.f"):
            train(small_net(), (few[0], few[1].float()), progress=False)
        images, labels = few
        with pytest.raises(ValueError, match=r"y must lie in \[0, 9\]"):
            train(small_net(), (images, labels + 1), progress=False)
        with pytest.raises(ValueError, match="train_data must hold at least one image"):
            train(small_net(), (images, labels[:5]), progress=False)
        with pytest.raises(TypeError, match=r"train_data must have \.images and \.labels"):
            train(small_net(), images, progress=False)
        with pytest.raises(ValueError, match="must return logits"):
            train(nn.Conv2d(1, 3, 3), few, progress=False)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_trains_where_gradients_are_off(
    small_net: Build, few: Pair, mode: Callable[[], Any]
) -> None:
    model, other = small_net(), small_net()
    with mode():
        train(model, few, epochs=1, progress=False)
        assert not torch.is_grad_enabled()
    train(other, few, epochs=1, progress=False)
    for got, want in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(got, want)


class TestValidation:
    """Images held out of the training images."""

    def test_are_evaluated_and_not_trained_on(self, small_net: Build, few: Pair) -> None:
        images, _ = few
        trained, evaluated = [], []
        plain = methods.standard()

        def perturb(model: nn.Module, batch: methods.TrainingBatch) -> Tensor:
            trained.extend(batch.x)
            return batch.x

        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            evaluated.extend(x)
            return x

        history = train(
            small_net(), few, method=replace(plain, perturb=perturb), epochs=1, batch_size=60,
            evaluation=Evaluation(attack=attack, validation=0.1), progress=False,
        )  # fmt: skip
        assert (len(trained), len(evaluated)) == (180, 20)
        both = [
            sorted(map(torch.Tensor.tolist, part))
            for part in (torch.stack(trained + evaluated).flatten(1), images.flatten(1))
        ]
        assert both[0] == both[1]
        assert history.last.clean_accuracy is not None

    def test_are_chosen_by_the_seed(self, few: Pair) -> None:
        held = [labelled(few).split(0.25, seed)[1].images for seed in (0, 0, 1)]
        assert torch.equal(held[0], held[1])
        assert not torch.equal(held[0], held[2])

    def test_bad_input(self, small_net: Build, few: Pair) -> None:
        for share in (-0.1, 1.0, float("nan")):
            with pytest.raises(ValueError, match=r"validation must be a share in \[0, 1\)"):
                Evaluation(validation=share)
        with pytest.raises(ValueError, match="validation takes the place of data"):
            Evaluation(few, validation=0.1)
        with pytest.raises(ValueError, match=r"a share of 0\.001 of 200 images is 0 of them"):
            train(small_net(), few, evaluation=Evaluation(validation=0.001), progress=False)
        with pytest.raises(TypeError, match=r"in memory .* batches of a list"):
            train(small_net(), [few], evaluation=Evaluation(validation=0.1), progress=False)


@pytest.mark.parametrize("native", [torch.bfloat16, None])
def test_automatic_precision(
    small_net: Build, few: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, native: torch.dtype | None,
) -> None:  # fmt: skip
    monkeypatch.setattr("repsim_fast.training.trainer.native_half", lambda device: native)
    weights = []
    for autocast in ("auto", native):
        net = small_net()
        with caplog.at_level("INFO", logger="repsim_fast"):
            train(
                net, few, epochs=2, optimisation=Optimisation(autocast=autocast),
                saving=Saving(tmp_path, resume=autocast != "auto"), progress=False,
            )  # fmt: skip
        weights.append(net[0].weight)
    # What was chosen is said, and saved as if it had been asked for.
    assert f"autocast='auto' on cpu: {native or 'none'}" in caplog.text
    assert len(weights) == 2
    assert torch.equal(*weights)
    monkeypatch.setattr("repsim_fast.training.trainer.native_half", lambda device: torch.float16)
    with pytest.raises(ValueError, match="autocast"):
        train(
            small_net(), few, epochs=2, optimisation=Optimisation(autocast="auto"),
            saving=Saving(tmp_path, resume=True), progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimisation": "adam"}, "optimisation must be of Optimisation or None, got str"),
        ({"evaluation": [1]}, "evaluation must be of Evaluation or None, got list"),
        ({"saving": "runs"}, "saving must be of Saving or None, got str"),
        ({"method_options": [("eps", 0.1)]}, "method_options must be of Mapping or None, got list"),
        ({"on_epoch": 3}, "on_epoch must be callable or None, got int"),
    ],
)
def test_arguments_of_another_kind(
    small_net: Build, few: Pair, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        train(small_net(), few, epochs=1, progress=False, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda few: Evaluation(few, "pgd"),
        lambda few: Evaluation(few, {"pgd": PGD}),
        lambda few: evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), few, PGD),
    ],
)
def test_what_is_no_attack(few: Pair, make: Callable[[Pair], object]) -> None:
    with pytest.raises(TypeError, match=r"attack must be callable as \(model, x, y\)"):
        make(few)


@pytest.mark.parametrize("given", [SelectivityRegulariser(1.0), ["selectivity"]])
def test_what_is_no_regulariser(given: Any) -> None:
    with pytest.raises(TypeError, match="regularisers must be a sequence of penalties"):
        Optimisation(regularisers=given)
