"""What the caller is told after each epoch and a method at each step, and what they may answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.training import (
    Epoch,
    Evaluation,
    History,
    Optimisation,
    Saving,
    StopTraining,
    evaluate,
    methods,
    train,
)
from repsim_fast.training.methods import Progress, TrainingBatch

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


def run(net: nn.Module, data: Pair, **options: Any) -> History:
    return train(net, data, batch_size=64, seed=3, progress=False, **options)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class TestFigures:
    def test_are_in_history_log_and_checkpoint(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        def on_epoch(model: nn.Module, record: Epoch) -> dict[str, Any] | None:
            if record.epoch == 1:
                return None
            return {"largest": model[0].weight.detach().abs().max(), "twice": 2 * record.loss}

        net, log = small_net(), tmp_path / "log.jsonl"
        history = run(net, few, epochs=3, on_epoch=on_epoch, saving=Saving(tmp_path, log=log))
        assert [sorted(epoch.figures) for epoch in history.epochs] == [
            ["largest", "twice"], [], ["largest", "twice"]
        ]  # fmt: skip
        assert history.last.figures["twice"] == 2 * history.last.loss
        assert history.last.figures["largest"] == net[0].weight.detach().abs().max().item()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert lines[2]["largest"] == history.last.figures["largest"]
        assert lines[2]["loss"] == history.last.loss
        assert "largest" not in lines[1]
        resumed = run(small_net(), few, epochs=3, saving=Saving(tmp_path, resume=True))
        assert resumed.epochs == history.epochs

    def test_the_model_has_the_weights_that_were_evaluated(
        self, small_net: Build, few: Pair
    ) -> None:
        def on_epoch(model: nn.Module, record: Epoch) -> dict[str, float]:
            return {"gap": evaluate(model, few).clean - (record.clean_accuracy or 0.0)}

        history = run(
            small_net(), few, epochs=2, optimisation=Optimisation(ema=0.99),
            evaluation=Evaluation(few), on_epoch=on_epoch,
        )  # fmt: skip
        assert [epoch.figures["gap"] for epoch in history.epochs] == [0.0, 0.0]

    def test_training_does_not_notice(self, small_net: Build, few: Pair) -> None:
        def on_epoch(model: nn.Module, record: Epoch) -> None:
            model(0.2 * few[0])  # whose statistics are others
            model.train(record.epoch == 1)
            torch.rand(5)

        quiet, watched = small_net(dropout=0.3), small_net(dropout=0.3)
        run(quiet, few, epochs=3)
        run(watched, few, epochs=3, on_epoch=on_epoch)
        assert same_weights(quiet, watched)
        assert watched.training

    def test_the_model_is_in_eval_mode(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        modes: list[list[bool]] = []

        def fail(model: nn.Module, record: Epoch) -> None:
            modes.append([module.training for module in model.modules()])
            raise OSError("disk full")

        net = small_net()
        net[1].eval()
        before = [module.training for module in net.modules()]
        for saving in (Saving(tmp_path), Saving(tmp_path, resume=True)):
            with pytest.raises(RuntimeError, match="disk full"):
                run(net, few, epochs=1, on_epoch=fail, saving=saving)
            assert [module.training for module in net.modules()] == before
        assert not any(mode for seen in modes for mode in seen)
        assert len(modes) == 2

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            (3.0, "must return a mapping of figures or None, got float"),
            ({"loss": 1.0}, "the record has a figure 'loss' already"),
            ({"name": "high"}, "figure 'name' must be a number, got 'high'"),
        ],
    )
    def test_bad_ones(self, small_net: Build, few: Pair, returned: Any, message: str) -> None:
        with pytest.raises(RuntimeError, match=message):
            run(small_net(), few, epochs=1, on_epoch=lambda *_: returned)


class TestEnd:
    def test_stopped_training_is_as_if_it_had_so_many_epochs(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        def on_epoch(model: nn.Module, record: Epoch) -> None:
            if record.epoch == 1:
                raise StopTraining("good enough", {"margin": 0.5})

        net, whole = small_net(), small_net()
        options: dict[str, Any] = {"epochs": 4, "schedule": "constant"}
        resuming = Saving(tmp_path, resume=True)
        history = run(net, few, on_epoch=on_epoch, saving=Saving(tmp_path), **options)
        assert (len(history), history.stopped) == (2, "good enough")
        assert history.last.figures == {"margin": 0.5}
        again = run(small_net(), few, on_epoch=on_epoch, saving=resuming, **options)
        assert again.epochs == history.epochs
        assert again.stopped == "good enough"
        resumed = small_net()
        assert run(resumed, few, saving=resuming, **options).stopped is None
        run(whole, few, **options)
        assert same_weights(resumed, whole)

    def test_of_an_error_the_epoch_is_kept_and_asked_for_again(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        asked: list[int] = []

        def full_disk(model: nn.Module, record: Epoch) -> None:
            asked.append(record.epoch)
            if record.epoch == 1:
                raise OSError("disk full")

        def steps(model: nn.Module, record: Epoch) -> dict[str, float]:
            asked.append(record.epoch)
            return {"norm": model[0].weight.detach().norm()}

        net, whole, log = small_net(), small_net(), tmp_path / "log.jsonl"
        options: dict[str, Any] = {"epochs": 3, "optimisation": Optimisation(ema=0.9)}
        saving = Saving(tmp_path, log=log)
        with pytest.raises(RuntimeError, match=r"OSError after epoch 1: disk full .*is saved in"):
            run(net, few, on_epoch=full_disk, saving=saving, **options)
        assert (tmp_path / "resume.safetensors").exists()
        saving = replace(saving, resume=True)
        got = run(net, few, on_epoch=steps, saving=saving, **options)
        assert asked == [0, 1, 1, 2]
        want = run(whole, few, on_epoch=steps, **options)
        assert [e.figures for e in got.epochs[1:]] == [e.figures for e in want.epochs[1:]]
        assert same_weights(net, whole)
        assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [0, 1, 2]

    def test_error_without_a_checkpoint(self, small_net: Build, few: Pair) -> None:
        def broken(model: nn.Module, record: Epoch) -> None:
            raise KeyError("name")

        with pytest.raises(RuntimeError, match=r"KeyError after epoch 0: .*nothing is saved"):
            run(small_net(), few, epochs=2, on_epoch=broken)

    def test_interrupted(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        def interrupt(model: nn.Module, record: Epoch) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(small_net(), few, epochs=2, on_epoch=interrupt, saving=Saving(tmp_path))
        assert len(run(small_net(), few, epochs=2, saving=Saving(tmp_path, resume=True))) == 2


@pytest.mark.parametrize("replays", [1, 2])
def test_a_method_is_told_how_far_training_is(
    small_net: Build, few: Pair, tmp_path: Path, replays: int
) -> None:
    told: list[Progress] = []

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        told.append(batch.progress)
        return batch.x

    def stop(model: nn.Module, record: Epoch) -> None:
        raise StopTraining("once")

    method = replace(methods.standard(), perturb=perturb, replays=replays)
    options: dict[str, Any] = {"epochs": 2, "method": method}
    run(small_net(), few, on_epoch=stop, saving=Saving(tmp_path), **options)
    run(small_net(), few, saving=Saving(tmp_path, resume=True), **options)
    steps = 4 * replays  # 200 images in batches of 64
    want = [
        Progress(
            epoch,
            2,
            pytest.approx((epoch + step / steps) / 2),
            first=step == 0,
            batch=step // replays,
        )
        for epoch in range(2)
        for step in range(steps)
    ]
    assert told == want
