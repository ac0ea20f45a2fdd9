"""The guard finds a collapse where it is, and brings back the weights of before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.data.samples import Samples
from repsim_fast.training import (
    CollapseGuard,
    Epoch,
    Evaluation,
    Optimisation,
    OverfittingDetector,
    Saving,
    StopTraining,
    train,
)

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
DETECTOR = OverfittingDetector(0.1)


def record(epoch: int, fgsm: float | None, pgd: float | None) -> Epoch:
    return Epoch(epoch, 1.0, 0.5, 0.1, 1.0, fgsm_accuracy=fgsm, pgd_accuracy=pgd)


def asked(guard: CollapseGuard, probes: Sequence[tuple[float, float]], first: int = 0) -> list[Any]:
    """Answers to epochs with these probes, of a network whose only weight is the epoch."""
    net, answers = nn.Linear(1, 1), []
    for epoch, probe in enumerate(probes, first):
        nn.init.constant_(net.weight, float(epoch))
        try:
            answers.append(guard(net, record(epoch, *probe))["collapsed"])
        except StopTraining as stop:
            answers.append((stop.reason, stop.figures, net.weight.item()))
    return answers


@pytest.mark.parametrize(
    ("probes", "collapsed"),
    [
        ([(0.3, 0.2), (0.5, 0.4), (0.55, 0.45)], [0, 0, 0]),
        ([(0.3, 0.25), (0.5, 0.4), (0.9, 0.0), (0.9, 0.0)], [0, 0, 1, 1]),  # lost
        ([(0.3, 0.25), (0.9, 0.2)], [0, 1]),  # masked, before it had anything to lose
        ([(0.5, 0.4), (0.5, 0.35), (0.4, 0.25)], [0, 0, 0]),  # noise within the margin
        ([(0.5, 0.4), (0.9, 0.0), (0.5, 0.4)], [0, 1, 0]),  # and back by itself
    ],
)
def test_planted_collapses_are_found_and_nothing_else(
    probes: list[tuple[float, float]], collapsed: list[int]
) -> None:
    guard = CollapseGuard(DETECTOR)
    assert asked(guard, probes) == collapsed
    assert guard.collapsed == (collapsed.index(1) if 1 in collapsed else None)


def test_restoring_ends_the_training_with_the_weights_before() -> None:
    guard = CollapseGuard(DETECTOR, restore=True)
    *_, (reason, figures, weight) = asked(guard, [(0.3, 0.3), (0.5, 0.4), (0.9, 0.0)])
    assert weight == 1.0
    assert "collapsed from 0.400 to 0.000; back to the weights of epoch 1" in reason
    assert figures == {"collapsed": 1.0}
    assert (guard.good, guard.collapsed) == (1, 2)


def test_nothing_to_go_back_to_is_said() -> None:
    guard = CollapseGuard(DETECTOR, restore=True)
    ((reason, _, weight),) = asked(guard, [(0.9, 0.1)])
    assert "no earlier weights" in reason
    assert weight == 0.0
    with pytest.raises(ValueError, match="no weights are kept"):
        guard.restore_into(nn.Linear(1, 1))


def test_a_resumed_training_knows_what_was_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    asked(CollapseGuard(DETECTOR, kept=kept), [(0.3, 0.3), (0.5, 0.5)])
    resumed = CollapseGuard(DETECTOR, restore=True, kept=kept)
    # 0.25 is a loss only beside the best of before.
    ((reason, _, weight),) = asked(resumed, [(0.3, 0.25)], first=2)
    assert weight == 1.0
    assert "from 0.500 to 0.250" in reason
    # A new training does not take it for its own.
    afresh = CollapseGuard(DETECTOR, restore=True, kept=kept)
    assert asked(afresh, [(0.3, 0.25)]) == [0.0]


@pytest.mark.parametrize(
    ("before", "good"),
    [([(0.5, 0.5), (0.9, 0.0)], 0), ([(0.9, 0.0), (0.9, 0.0)], None)],  # from the start on
)
def test_a_resumed_training_knows_of_a_collapse(
    tmp_path: Path, before: list[tuple[float, float]], good: int | None
) -> None:
    kept = tmp_path / "kept.safetensors"
    first, resumed = (CollapseGuard(DETECTOR, kept=kept) for _ in range(2))
    asked(first, before)
    assert asked(resumed, [(0.8, 0.1)], first=2) == [1.0]
    assert (resumed.collapsed, resumed.verdict) == (first.collapsed, first.verdict)
    assert resumed.good == first.good == good
    # Of a later epoch than it is asked about, the file is of another training.
    other = CollapseGuard(DETECTOR, kept=kept)
    assert asked(other, [(0.5, 0.5)]) == [0.0]
    assert other.collapsed is None


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    asked(CollapseGuard(DETECTOR, kept=kept), [(0.3, 0.3)])
    guard = CollapseGuard(DETECTOR, restore=True, kept=kept)
    with pytest.raises(ValueError, match=r"kept.safetensors holds weights of another model"):
        guard(nn.Linear(2, 1), record(1, 0.9, 0.0))
    kept.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        CollapseGuard(DETECTOR, kept=kept)(nn.Linear(1, 1), record(1, 0.3, 0.3))


def test_others_are_asked_too() -> None:
    def then(model: nn.Module, record: Epoch) -> dict[str, float]:
        return {"own": 2.0}

    net = nn.Linear(1, 1)
    guard = CollapseGuard(DETECTOR, then=then)
    assert guard(net, record(0, 0.3, 0.3)) == {"own": 2.0, "collapsed": 0.0}

    def stopping(model: nn.Module, record: Epoch) -> None:
        raise StopTraining("enough", {"own": 3.0})

    with pytest.raises(StopTraining, match="enough") as stop:
        CollapseGuard(DETECTOR, then=stopping)(net, record(0, 0.3, 0.3))
    assert stop.value.figures == {"own": 3.0, "collapsed": 0.0}

    twice = CollapseGuard(DETECTOR, then=lambda *_: {"collapsed": 1.0})
    with pytest.raises(ValueError, match="figure 'collapsed' already"):
        twice(net, record(0, 0.3, 0.3))


def test_it_needs_the_probes() -> None:
    with pytest.raises(ValueError, match=r"needs Evaluation\(detector=\.\.\.\)"):
        CollapseGuard(DETECTOR)(nn.Linear(1, 1), record(0, None, None))


class AllFirst(nn.Module):
    """Answers the first class."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * 1e-3 + torch.tensor([1.0, 0.0, 0.0])


def test_probes_are_of_all_classes() -> None:
    """Of images that come class by class, too."""
    images = Samples(torch.rand(90, 1, 2, 2), torch.arange(3).repeat_interleave(30))
    assert images.some(9).labels.bincount().tolist() == [3, 3, 3]
    assert len(images.some(100).labels) == 90
    right = OverfittingDetector(1e-3, n=9).probe(AllFirst(), images, torch.device("cpu"))
    assert right.fgsm == right.pgd == pytest.approx(1 / 3)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_in_a_training(
    small_net: Build, few: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    """A collapse planted in epoch 2: the training ends with the weights of epoch 1."""
    detector = OverfittingDetector(0.1, n=32)
    found = iter([None, None, "planted"])
    seen: list[dict[str, Tensor]] = []

    def verdict(probes: object) -> str | None:
        return next(found)

    def then(model: nn.Module, _: Epoch) -> None:
        seen.append({name: w.clone() for name, w in model.state_dict().items()})

    guard = CollapseGuard(detector, restore=True, then=then)
    monkeypatch.setattr(guard, "detector", type("Planted", (), {"verdict": staticmethod(verdict)}))
    net = small_net()
    history = train(
        net, few, method="fgsm", method_options={"eps": 0.1}, epochs=5, batch_size=64,
        optimisation=Optimisation(ema=ema), evaluation=Evaluation(few, detector=detector),
        saving=Saving(tmp_path), on_epoch=guard, progress=False,
    )  # fmt: skip
    assert len(history) == 3
    assert history.stopped == "planted; back to the weights of epoch 1"
    assert [epoch.figures["collapsed"] for epoch in history.epochs] == [0.0, 0.0, 1.0]
    if ema is not None:  # of which the last one was put in
        guard.restore_into(net)
    assert all(torch.equal(seen[1][name], w) for name, w in net.state_dict().items())
