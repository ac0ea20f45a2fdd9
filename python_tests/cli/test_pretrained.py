"""Networks that come with the package, by name on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from python_tests.support.commands import Run
from repsim_fast import SimilarityResult, models
from repsim_fast.models import pretrained


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of a network as the package would hold it."""
    network = models.build("resnet-digits", num_classes=10, in_channels=1, seed=0)
    about = {"name": "resnet-digits", "num_classes": 10, "in_channels": 1}
    folder = tmp_path / "weights"
    folder.mkdir()
    about |= {"clean_accuracy": 0.7, "robust_accuracy": 0.4, "method": "n-fgsm", "epochs": 20}
    models.save_pretrained(folder / "digits-robust.safetensors", network, **about)
    monkeypatch.setattr(pretrained, "_FOLDER", folder)
    return "pretrained:digits-robust"


def test_compare_opens_networks_by_name(run: Run, tmp_path: Path, named: str) -> None:
    out = tmp_path / "out"
    result = run("compare", named, "--data", "digits", "--limit", 40, "--out", out)
    assert result.exit_code == 0, result.output
    (found,) = out.glob("*.safetensors")
    assert SimilarityResult.load(found).models == (named,)
    assert "n-fgsm, 20 epochs" in (out / "report.html").read_text()


def test_attack_opens_networks_by_name(run: Run, named: str) -> None:
    options = ("--data", "digits", "--limit", 20, "--attack", "fgsm", "--eps", 0.1)
    result = run("attack", named, *options)
    assert result.exit_code == 0, result.output
    assert f"attacking {named}" in result.output


def test_unknown_names_are_said(run: Run, tmp_path: Path, named: str) -> None:
    for command in ("compare", "attack"):
        out = ("--out", tmp_path / "out") if command == "compare" else ()
        result = run(command, "pretrained:none", "--data", "digits", *out)
        assert result.exit_code == 1
        assert "no pretrained network 'none'; there are digits-robust" in result.output
