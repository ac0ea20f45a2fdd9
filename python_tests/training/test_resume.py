"""A training that was stopped goes on as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast._core.tensor_files import read_tensors, write_tensors
from repsim_fast.attacks import FGSM, PGD
from repsim_fast.training import (
    Evaluation,
    History,
    Optimisation,
    OverfittingDetector,
    Ramp,
    Saving,
    evaluate,
    methods,
    train,
)
from repsim_fast.training.evaluation import Attack
from repsim_fast.training.methods import Method, TrainingBatch, free, pgd

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


class Stop(Exception):
    """Stands for a kill in the middle of an epoch."""


def interrupted(method: Method, batches: int) -> Method:
    """The same method, until it has seen so many batches."""
    seen = 0

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        nonlocal seen
        seen += 1
        if seen > batches:
            raise Stop
        return method.perturb(model, batch)

    return replace(method, perturb=perturb)


def run(net: nn.Module, data: Pair, method: Method, saving: Saving) -> History:
    """Everything random or stateful at once: dropout, crops, random starts, momentum, EMA."""
    return train(
        net, data, method=method, epochs=4, batch_size=64, augment="crop", seed=5,
        optimisation=Optimisation(ema=0.9),
        evaluation=Evaluation(
            data, PGD(0.1, steps=2, seed=1), detector=OverfittingDetector(0.1, n=32)
        ),
        saving=saving, progress=False,
    )  # fmt: skip


@pytest.mark.parametrize("method", [pgd(0.1, steps=2), free(0.1, replays=2)], ids=["pgd", "free"])
def test_resumed_is_bit_identical(
    small_net: Build, few: Pair, tmp_path: Path, method: Method
) -> None:
    whole = small_net(dropout=0.3)
    want = run(whole, few, method, Saving(log=tmp_path / "whole.jsonl"))

    folder, log = tmp_path / "run", tmp_path / "log.jsonl"
    saving = Saving(folder, log=log, resume=True)
    stopped_at = (2 * 4 + 2) * method.replays  # in the middle of the third epoch
    with pytest.raises(Stop):
        run(small_net(dropout=0.3), few, interrupted(method, stopped_at), saving)
    assert len(log.read_text().splitlines()) == 2  # at most one epoch is lost

    torch.rand(11)  # the global state differs when a process starts again
    net = small_net(dropout=0.3)
    nn.init.zeros_(net[0].weight)  # whatever was there before
    got = run(net, few, method, saving)
    for (name, value), other in zip(
        net.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    figures = [(e.loss, e.clean_accuracy, e.robust_accuracy, e.pgd_accuracy) for e in got.epochs]
    assert figures == [
        (e.loss, e.clean_accuracy, e.robust_accuracy, e.pgd_accuracy) for e in want.epochs
    ]
    lines = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert lines == [0, 1, 2, 3]


def test_a_finished_training_is_not_repeated(small_net: Build, few: Pair, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "progress": False}
    first = small_net()
    train(first, few, saving=Saving(tmp_path), **options)
    second = small_net()
    assert len(train(second, few, saving=Saving(tmp_path, resume=True), **options)) == 2
    assert torch.equal(first[0].weight, second[0].weight)


def test_interrupt_says_how_to_resume(
    small_net: Build, few: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(model: nn.Module, batch: TrainingBatch) -> Tensor:
        raise KeyboardInterrupt

    method = Method("pgd", interrupt, pgd().loss)
    net = small_net().eval()
    with pytest.raises(KeyboardInterrupt):
        train(net, few, method=method, saving=Saving(tmp_path), progress=False)
    assert "resume=True" in caplog.text
    assert str(tmp_path) in caplog.text
    assert not net.training


class TestFiles:
    def test_weights_load_as_models(self, few: Pair, tmp_path: Path) -> None:
        architecture = {"name": "resnet-digits", "num_classes": 10, "in_channels": 1}
        net = models.build(**architecture, seed=0)
        history = train(
            net, few, epochs=2, evaluation=Evaluation(few), saving=Saving(tmp_path, architecture),
            progress=False,
        )  # fmt: skip
        last, described = models.load_checkpoint(tmp_path / "last.safetensors")
        assert evaluate(last, few).clean == history.last.clean_accuracy
        assert described["epoch"]["epoch"] == 1
        best, described = models.load_checkpoint(tmp_path / "best.safetensors")
        assert evaluate(best, few).clean == history.best.clean_accuracy
        assert described["epoch"]["epoch"] == history.best.epoch

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"name": ["resnet-8"]}, "name of the architecture must be str, got"),
            ({"num_classes": "10"}, "num_classes of the architecture must be int, got '10'"),
        ],
    )
    def test_entries_of_an_architecture_have_types(
        self, other: dict[str, Any], message: str, few: Pair
    ) -> None:
        architecture = {"name": "resnet-8", "num_classes": 10, "in_channels": 1}
        net = models.build(**architecture, seed=0)
        with pytest.raises(TypeError, match=message):
            train(net, few, saving=Saving(architecture=architecture | other), progress=False)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"name": "resnet-20"}, r"resnet-20 with num_classes=10, .*stage1\.1\..* is missing"),
            ({"num_classes": 9}, r"fc\.bias must have shape \(9,\), got \(10,\)"),
            ({"in_channels": 3}, r"conv1\.weight must have shape \(16, 3, 3, 3\), got \(16, 1, "),
        ],
    )
    def test_another_architecture_is_found_before_the_first_epoch(
        self, few: Pair, tmp_path: Path, other: dict[str, Any], message: str
    ) -> None:
        architecture = {"name": "resnet-8", "num_classes": 10, "in_channels": 1}
        net = models.build(**architecture, seed=0)
        before = net.fc.weight.clone(), torch.get_rng_state()
        with pytest.raises(ValueError, match=f"^architecture: the weights do not fit .*{message}"):
            train(net, few, saving=Saving(tmp_path, architecture | other), progress=False)
        assert torch.equal(net.fc.weight, before[0])
        assert torch.equal(torch.get_rng_state(), before[1])
        assert not list(tmp_path.iterdir())

    def test_nothing_is_pickled_and_nothing_is_left_over(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        train(small_net(), few, epochs=2, saving=Saving(tmp_path), progress=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "best.safetensors",
            "last.safetensors",
            "resume.safetensors",
        ]
        for path in tmp_path.iterdir():
            assert load_file(path)

    def test_momentum_of_frozen_and_unused_parameters(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        net = small_net()
        net[0].weight.requires_grad_(False)
        train(net, few, epochs=1, saving=Saving(tmp_path), progress=False)
        again = small_net()
        again[0].weight.requires_grad_(False)
        resuming = Saving(tmp_path, resume=True)
        assert len(train(again, few, epochs=1, saving=resuming, progress=False)) == 1


def resume(net: nn.Module, data: Pair, folder: Path, **options: Any) -> History:
    saving = Saving(folder, resume=True)
    return train(net, data, saving=saving, progress=False, **({"epochs": 1} | options))


class TestBadCheckpoints:
    @pytest.fixture
    def folder(self, small_net: Build, few: Pair, tmp_path: Path) -> Path:
        train(small_net(), few, epochs=1, saving=Saving(tmp_path), progress=False)
        return tmp_path

    def test_other_settings(self, small_net: Build, few: Pair, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"other settings \(epochs: 1 there, 3 here; lr: 0.1"):
            resume(small_net(), few, folder, epochs=3, lr=0.2)

    def test_other_normalization(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        def net(mean: float) -> nn.Module:
            return models.normalized(small_net(), mean, 0.25)

        train(net(0.5), few, epochs=1, saving=Saving(tmp_path), progress=False)
        assert len(resume(net(0.5), few, tmp_path)) == 1
        for other, said in (
            (net(0.4), r"'mean': \[0.5\].* there, .*'mean': \[0.4"),
            (small_net(), ""),
        ):
            with pytest.raises(ValueError, match=rf"other settings \(normalization: .*{said}"):
                resume(other, few, tmp_path)

    def test_other_evaluation(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        def measured(**other: Any) -> Evaluation:
            sets = {"clean": few, "dark": (0.5 * few[0], few[1])}
            attacks = {"pgd": PGD(0.1, steps=2), "fgsm": FGSM(0.1)}
            detector = OverfittingDetector(0.1, n=20)
            usual = {"data": sets, "attack": attacks, "best": "dark", "detector": detector}
            return Evaluation(**usual | other)

        train(
            small_net(), few, epochs=1, evaluation=measured(), saving=Saving(tmp_path),
            progress=False,
        )  # fmt: skip
        assert len(resume(small_net(), few, tmp_path, evaluation=measured())) == 1
        for other, message in (
            ({"best": "clean"}, "evaluation best: 'dark' there, 'clean' here"),
            ({"every": 2}, "evaluation every: 1 there, 2 here"),
            ({"attacked": ["dark"]}, r"evaluation attacked: None there, \['dark'\] here"),
            ({"attack": {"pgd": PGD(0.1, steps=3), "fgsm": FGSM(0.1)}}, "attacks: .*steps: 3"),
            ({"attack": {"pgd": PGD(0.1, steps=2, momentum=1)}}, "attacks: .*momentum: 1"),
            ({"data": {"clean": few, "dark": few}}, "evaluation sets: .*dark.* there"),
            ({"detector": OverfittingDetector(0.2)}, "evaluation detector: .* there, .*eps: 0.2"),
        ):
            with pytest.raises(ValueError, match=rf"other settings \(.*{message}"):
                resume(small_net(), few, tmp_path, evaluation=measured(**other))

    @pytest.mark.parametrize("attack", [PGD(0.1, steps=1), lambda model, x, y: x])
    def test_evaluation_with_random_starts_of_its_own_or_any_code(
        self, small_net: Build, few: Pair, tmp_path: Path, attack: Attack
    ) -> None:
        evaluation = Evaluation(few, attack)
        train(
            small_net(), few, epochs=1, evaluation=evaluation, saving=Saving(tmp_path),
            progress=False,
        )  # fmt: skip
        again = Evaluation(few, PGD(0.1, steps=1) if isinstance(attack, PGD) else attack)
        assert len(resume(small_net(), few, tmp_path, evaluation=again)) == 1

    def test_file_that_does_not_say_how_was_evaluated(
        self, small_net: Build, few: Pair, folder: Path
    ) -> None:
        path = folder / "resume.safetensors"
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["repsim_fast_training"])
        del header["settings"]["evaluation"]
        save_file(load_file(path), path, {"repsim_fast_training": json.dumps(header)})
        assert len(resume(small_net(), few, folder, evaluation=Evaluation(few))) == 1

    @pytest.mark.parametrize(
        ("before", "now", "said"),
        [
            (pgd(0.1, steps=1), pgd(0.2, steps=1), "eps: 0.2"),
            (pgd(0.1, steps=1), pgd(0.1, steps=1, norm="l2"), "norm: 'l2'"),
            (free(0.1, replays=2), free(0.1, replays=1), "replays: 1"),
            (
                methods.build("pgd", eps=Ramp(0.1, 0.2), steps=1),
                methods.build("pgd", eps=Ramp(0, 0.2), steps=1),
                "start: 0,",
            ),
            (
                methods.adversarial(PGD(0.1, steps=1)),
                methods.adversarial(PGD(0.1, steps=2)),
                "steps: 2",
            ),
            (
                replace(pgd(steps=1), settings={"mine": 1}),
                replace(pgd(steps=1), settings={"mine": 2}),
                "mine: 2",
            ),
            (pgd(steps=1), "pgd", "None here"),
        ],
    )
    def test_other_method_that_was_built_already(
        self,
        small_net: Build,
        few: Pair,
        tmp_path: Path,
        before: Method,
        now: Method | str,
        said: str,
    ) -> None:
        train(small_net(), few, method=before, epochs=1, saving=Saving(tmp_path), progress=False)
        assert len(resume(small_net(), few, tmp_path, method=before)) == 1
        with pytest.raises(ValueError, match=rf"other settings \(built_method: .*{said}"):
            resume(small_net(), few, tmp_path, method=now)

    def test_file_that_does_not_say_which_method_was_built(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        method = pgd(0.1, steps=1)
        train(small_net(), few, method=method, epochs=1, saving=Saving(tmp_path), progress=False)
        path = tmp_path / "resume.safetensors"
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["repsim_fast_training"])
        del header["settings"]["built_method"]
        save_file(load_file(path), path, {"repsim_fast_training": json.dumps(header)})
        assert len(resume(small_net(), few, tmp_path, method=method)) == 1

    def test_options_in_another_order(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        options = {"steps": 1, "eps": Ramp(0, 0.1, end=0.5), "bounds": (0.0, 1.0)}
        train(
            small_net(), few, method="pgd", method_options=options, epochs=1,
            saving=Saving(tmp_path), progress=False,
        )  # fmt: skip
        again = dict(reversed(options.items()))
        assert len(resume(small_net(), few, tmp_path, method="pgd", method_options=again)) == 1
        other = {**options, "bounds": (0.0, 2.0)}
        with pytest.raises(ValueError, match=r"bounds=\(0.0, 1.0\).* there, .*\(0.0, 2.0\)"):
            resume(small_net(), few, tmp_path, method="pgd", method_options=other)

    def test_other_architecture(self, small_net: Build, few: Pair, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"state of another architecture: 0\.bias has shape"):
            resume(small_net(width=8), few, folder)

    def test_damaged_file(self, small_net: Build, few: Pair, folder: Path) -> None:
        path = folder / "resume.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            resume(small_net(), few, folder)

    def test_other_file(self, small_net: Build, few: Pair, folder: Path) -> None:
        (folder / "last.safetensors").replace(folder / "resume.safetensors")
        with pytest.raises(ValueError, match="not a training checkpoint"):
            resume(small_net(), few, folder)

    def test_header_of_another_form(self, small_net: Build, few: Pair, folder: Path) -> None:
        path = folder / "resume.safetensors"
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["repsim_fast_training"])
        for entry, value in (
            ("settings", None), ("settings", {"epochs": "1"}), ("history", [3]), ("answered", 2),
            ("history", [{"epoch": 5, "seconds": 0.0}]), ("ema_updates", -1), ("scaler", []),
        ):  # fmt: skip
            text = json.dumps({**header, entry: value})
            save_file(load_file(path), path, {"repsim_fast_training": text})
            with pytest.raises(ValueError, match=r"resume\.safetensors"):
                resume(small_net(), few, folder)


def test_an_unfinished_training_is_not_overwritten(
    small_net: Build, few: Pair, tmp_path: Path
) -> None:
    def stop(*_: Any) -> None:
        raise Stop

    options: dict[str, Any] = {"epochs": 2, "progress": False}
    with pytest.raises(RuntimeError, match="Stop"):
        train(small_net(), few, saving=Saving(tmp_path), on_epoch=stop, **options)
    kept = (tmp_path / "resume.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"1 of 2 epochs.*resume=True.*resume=False"):
        train(small_net(), few, saving=Saving(tmp_path), **options)
    assert (tmp_path / "resume.safetensors").read_bytes() == kept
    assert len(train(small_net(), few, saving=Saving(tmp_path, resume=False), **options)) == 2
    assert len(train(small_net(), few, saving=Saving(tmp_path), **options)) == 2


@pytest.mark.parametrize("architecture", [True, False])
def test_files_of_a_compiled_model_are_those_of_the_model(
    few: Pair, tmp_path: Path, architecture: bool
) -> None:
    described = {"name": "resnet-digits", "num_classes": 10, "in_channels": 1}
    net = models.build(**described, seed=0)
    compiled = torch.compile(net, backend="eager")
    saving = Saving(tmp_path, described if architecture else None)
    how = Optimisation(ema=0.9)
    train(compiled, few, epochs=2, saving=saving, optimisation=how, progress=False)
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert not [name for name in file.keys() if "_orig_mod" in name]  # noqa: SIM118
    resumed = models.build(**described, seed=1)  # the state is that of the model, compiled or not
    train(
        resumed, few, epochs=2, saving=replace(saving, resume=True), optimisation=how,
        progress=False,
    )  # fmt: skip
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


class TestOtherData:
    """Of equal size."""

    @pytest.fixture
    def resume(self, small_net: Build, few: Pair, tmp_path: Path) -> Callable[[Any], None]:
        def run(data: Any) -> None:
            train(small_net(), data, epochs=2, saving=Saving(tmp_path, resume=True), progress=False)

        run(few)
        return run

    def test_is_refused(self, few: Pair, resume: Callable[[Any], None]) -> None:
        images, labels = few
        resume((images.clone(), labels.to(torch.int32)))  # the same values
        for other in (
            (images, labels.roll(1)),
            (images.double(), labels),
            (images.flip(0), labels),
            (images[:, :, :, ::2].repeat_interleave(2, 3), labels),
        ):
            with pytest.raises(ValueError, match=r"other settings.*data: '200 images"):
                resume(other)

    def test_of_a_loader(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        net = nn.Sequential(nn.AdaptiveAvgPool2d(8), small_net())
        saving = Saving(tmp_path, resume=True)
        train(net, [few], epochs=1, saving=saving, progress=False)
        wide = (few[0].repeat(1, 1, 2, 2), few[1])
        with pytest.raises(ValueError, match=r"other settings.*\(1, 8, 8\)' there.*\(1, 16, 16\)"):
            train(net, [wide], epochs=1, saving=saving, progress=False)


def test_a_state_without_momentum_is_refused(small_net: Build, few: Pair, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "progress": False}
    train(small_net(), few, saving=Saving(tmp_path), **options)
    path = tmp_path / "resume.safetensors"
    metadata, tensors = read_tensors(path)
    name = "optimizer.0.momentum_buffer"
    for broken in (
        {key: value for key, value in tensors.items() if key != name},
        tensors | {name: tensors[name][:1].clone()},
    ):
        write_tensors(path, broken, metadata)
        with pytest.raises(ValueError, match=r"expected the optimizer's .*0\.momentum_buffer"):
            train(small_net(), few, saving=Saving(tmp_path, resume=True), **options)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("epochs", r"epochs must be a whole number, got 1\.5"),
        ("batch_size", r"batch_size must be a whole number, got 1\.5"),
        ("seed", "seed must be an integer, got float"),
    ],
)
def test_counts_are_whole(name: str, said: str, small_net: Build, few: Pair) -> None:
    with pytest.raises(TypeError, match=said):
        train(small_net(), few, progress=False, **{name: 1.5})


def test_settings_are_the_same_in_another_process(
    small_net: Build, few: Pair, tmp_path: Path
) -> None:
    """Functions and objects have other addresses there."""

    def option() -> dict[str, Any]:
        def loss(logits: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, y, reduction="none")

        bounds = (torch.tensor([0.0]), torch.tensor([1.1]))  # of channels
        return {"loss": loss, "steps": 1, "eps": torch.tensor(0.1), "bounds": bounds}

    def run(folder: Path, **changes: Any) -> History:
        return train(
            small_net(), few, method="pgd", method_options=option() | changes, epochs=1,
            saving=Saving(folder, resume=True), progress=False,
        )  # fmt: skip

    kept = [option()["loss"]]  # in memory, so that the next has another address
    run(tmp_path)
    kept.append(option()["loss"])
    assert len(run(tmp_path)) == 1
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path, eps=torch.tensor(0.1 + 1e-6))  # printed by torch as 0.1000
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path, bounds=(torch.tensor([0.0]), torch.tensor([1.1 + 1e-6])))


def test_a_detector_may_come_later(small_net: Build, few: Pair, tmp_path: Path) -> None:
    saving = Saving(tmp_path, resume=True)
    train(small_net(), few, epochs=1, saving=saving, progress=False)
    later = Evaluation(detector=OverfittingDetector(0.1, n=8))
    history = train(small_net(), few, epochs=1, saving=saving, evaluation=later, progress=False)
    assert (len(history), history.overfitting) == (1, None)


def test_evaluation_of_nothing(small_net: Build) -> None:
    with pytest.raises(ValueError, match="data must hold at least one image, got none"):
        evaluate(small_net(), [])
