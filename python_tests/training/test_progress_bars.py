"""Progress bars are of plain text: those of notebooks warn where ipywidgets is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from torch import Tensor, nn

from repsim_fast.training import evaluate, train
from repsim_fast.verification import verified_accuracy

Pair = tuple[Tensor, Tensor]


@pytest.mark.parametrize("progress", [False, True])
def test_bars_need_no_widgets(
    small_net: Callable[..., nn.Module],
    few: Pair,
    progress: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.setitem(sys.modules, name, None)
    net = small_net()
    train(net, few, epochs=1, progress=progress)
    evaluate(net, few, progress=progress)
    verified_accuracy(net, (few[0][:4], few[1][:4]), 0.01, progress=progress)
    shown = capsys.readouterr().err
    for title in ("train (standard)", "evaluate", "verify"):
        assert (title in shown) == progress
