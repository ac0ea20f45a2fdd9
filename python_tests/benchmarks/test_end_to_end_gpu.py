"""The end-to-end benchmark for a GPU, on the CPU and small: that the script itself is right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")

from benchmarks import end_to_end_gpu

COMPARED = {f"comparison, batches of 8, {way}" for way in ("forwards", "bfloat16", "float32")}
STEPS = 3  # of the attacks, in the place of ten
ATTACKED = {f"PGD-{STEPS}, {way}" for way in ("textbook", "exact", "folded")}


def run(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    for module in (end_to_end_gpu, end_to_end_gpu.textbook):
        monkeypatch.setattr(module, "STEPS", STEPS)
    monkeypatch.setattr(sys, "argv", ["end", "--device", "cpu", "--small", "--out", str(out)])
    end_to_end_gpu.main()


def test_it_checks_measures_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, tmp_path)
    result = json.loads((tmp_path / "end_to_end.json").read_text())
    rows = {row["case"]: row for row in result["rows"]}
    assert rows.keys() == COMPARED | ATTACKED
    assert all(row["median_s"] > 0 and row["ratio"] > 0 for row in rows.values())
    assert rows["comparison, batches of 8, float32"]["max_error"] < 1e-4
    assert result["machine"]["commit"]
    assert result["settings"]["images"] == [[8, 16]]
    kernels = json.loads((tmp_path / "kernel_table.json").read_text())["rows"]
    assert sum(row["share"] for row in kernels) == pytest.approx(1)
    assert any(row["ours"] for row in kernels)
    assert "ratio" in capsys.readouterr().out


def test_a_wrong_comparison_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = end_to_end_gpu.ours
    monkeypatch.setattr(end_to_end_gpu, "ours", lambda *arguments: right(*arguments) + 0.1)
    with pytest.raises(SystemExit, match="comparison, bfloat16: error"):
        run(monkeypatch, tmp_path)
    assert not list(tmp_path.iterdir())


def test_batches_are_the_same_in_every_pass() -> None:
    images = end_to_end_gpu.Images(end_to_end_gpu.small("cpu"), 10, 4)
    first, second = list(images), list(images)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert len(images) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
