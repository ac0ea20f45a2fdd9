from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from python_tests.support.commands import TRAIN, Run, run_command
from repsim_fast import data, models
from repsim_fast.verification import (
    Certificates,
    certified_accuracy,
    certify,
    margin_bounds,
    verified_accuracy,
)

FEW = ("--data", "digits", "--limit", "20", "--n", "50", "--n0", "10", "--threads", "1")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy") / "noisy.safetensors"
    learnt = ("--limit", 600, "--epochs", 5, "--out", out)
    noise = ("--method", "noise", "--method-option", "sigma=0.2")
    assert run_command(*TRAIN, *noise, *learnt).exit_code == 0
    return out


def test_certificates_are_those_of_python(run: Run, noisy: Path, tmp_path: Path) -> None:
    out = tmp_path / "radii.json"
    options = ("--alpha", 0.01, "--radii", "0,1/10,0.2", "--batch-size", 2000, "--out", out)
    result = run("certify", noisy, *FEW, *options)
    assert result.exit_code == 0, result.output
    held = json.loads(out.read_text())
    assert (held["sigma"], held["n"], held["alpha"]) == (0.2, 50, 0.01)
    network, _ = models.load_checkpoint(noisy)
    x, y = data.load("digits", "test", limit=20, seed=0).tensors()
    settings = {"sigma": 0.2, "n": 50, "n0": 10, "alpha": 0.01, "batch_size": 2000}
    expected = certify(network, x, **settings, seed=torch.Generator().manual_seed(0))
    assert held["images"]["label"] == y.tolist()
    assert held["images"]["prediction"] == expected.prediction.tolist()
    assert held["images"]["radius"] == expected.radius.tolist()
    accuracy = certified_accuracy(expected, y, [0, 0.1, 0.2])
    assert held["certified"]["accuracy"] == accuracy.accuracy.tolist()
    assert accuracy.accuracy[0] > 0
    rows = [line.split() for line in result.output.splitlines() if " to " in line]
    assert [row[0] for row in rows] == ["0", "0.1", "0.2"]
    assert [row[1] for row in rows] == [f"{share:.3f}" for share in accuracy.accuracy]


def test_a_few_at_a_time_are_all_of_them(run: Run, noisy: Path, tmp_path: Path) -> None:
    out = tmp_path / "radii.json"
    result = run("certify", noisy, *FEW, "--sigma", 0.3, "--batch-size", 70, "--out", out)
    assert result.exit_code == 0, result.output
    held = json.loads(out.read_text())
    assert held["sigma"] == 0.3
    images = held["images"]
    found = Certificates(torch.tensor(images["prediction"]), torch.tensor(images["radius"]), 0.001)
    accuracy = certified_accuracy(found, torch.tensor(images["label"]))
    assert accuracy.n == held["certified"]["n"] == 20
    assert held["certified"]["accuracy"] == accuracy.accuracy.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--radii", "0,far"), "--radii: expected a number or a fraction such as 8/255, got 'far'"),
        (("--radii", "-1"), "--radii must not be negative, got '-1'"),
        (("--out", "radii.txt"), "--out must be a name that ends in .json"),
        (("--sigma", "0"), "sigma must be positive and finite, got 0"),
        (("--alpha", "1"), "alpha must lie in (0, 1), got 1"),
    ],
)
def test_bad_options(run: Run, noisy: Path, options: tuple[str, ...], message: str) -> None:
    result = run("certify", noisy, *FEW, *options)
    assert result.exit_code == 1
    assert message in result.output
    assert result.stderr.count("\n") == 1


def test_a_training_without_noise_names_none(run: Run, checkpoints: dict[str, Path]) -> None:
    result = run("certify", checkpoints["standard"], *FEW)
    assert result.exit_code == 1
    assert "--sigma: say how much noise" in result.output
    assert "'standard'" in result.output


def test_no_checkpoint_and_no_place(run: Run, noisy: Path, tmp_path: Path) -> None:
    result = run("certify", tmp_path / "none.safetensors", *FEW)
    assert result.exit_code == 1
    assert "no checkpoint file" in result.output
    (tmp_path / "file").touch()
    result = run("certify", noisy, *FEW, "--out", tmp_path / "file" / "a.json")
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert "certifying" not in result.output


def test_ctrl_c_says_what_takes_less(
    run: Run, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Certificates:
        raise KeyboardInterrupt

    monkeypatch.setattr("repsim_fast.verification.certify", interrupted)
    result = run("certify", noisy, *FEW, "--out", tmp_path / "radii.json")
    assert result.exit_code == 130
    assert "a smaller --limit or fewer copies (--n) take less" in result.output
    assert not (tmp_path / "radii.json").exists()


def test_smoothing_goes_on_to_the_same_certificates(
    run: Run, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, whole, resumed = (tmp_path / f"{name}.json" for name in ("kept", "whole", "resumed"))
    options = (*FEW, "--batch-size", 150)
    assert run("certify", noisy, *options, "--out", whole).exit_code == 0
    calls = []

    def interrupting(*args: Any, **kwargs: Any) -> Certificates:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return certify(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("repsim_fast.verification.certify", interrupting)
        result = run("certify", noisy, *options, "--resume", kept)
    assert result.exit_code == 130
    assert "to go on: the same again" in result.output
    assert len(json.loads(kept.read_text())["radius"]) == 6
    for _ in range(2):  # also of a run that was done
        result = run("certify", noisy, *options, "--resume", kept, "--out", resumed)
        assert result.exit_code == 0, result.output
        assert json.loads(resumed.read_text()) == json.loads(whole.read_text())
    for others in (("--sigma", 0.3), ("--limit", 19), ("--seed", 1)):
        result = run("certify", noisy, *options, *others, "--resume", kept)
        assert result.exit_code == 1
        assert "name another file" in result.output
    damaged = json.loads(kept.read_text()) | {"noise": "0g"}
    kept.write_text(json.dumps(damaged))
    result = run("certify", noisy, *options, "--resume", kept)
    assert (result.exit_code, "no state of random numbers" in result.output) == (1, True)


class TestBounds:
    GIVEN = ("--data", "digits", "--limit", "20", "--threads", "1", "--method", "ibp")

    @pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
    def test_accuracy_is_that_of_python(
        self, run: Run, noisy: Path, tmp_path: Path, method: str
    ) -> None:
        out = tmp_path / "verified.json"
        options = ("--method", method, "--eps", "1/1000", "--batch-size", 7, "--out", out)
        result = run("certify", noisy, *self.GIVEN, *options)
        assert result.exit_code == 0, result.output
        held = json.loads(out.read_text())
        network, _ = models.load_checkpoint(noisy)
        images = data.load("digits", "test", limit=20, seed=0)
        expected = verified_accuracy(network, images, 1e-3, method=method)
        assert held["accuracy"] == asdict(expected)
        assert (held["method"], held["eps"], held["batch_size"]) == (method, 1e-3, 7)
        assert f"verified accuracy  {expected.verified:.3f}" in result.output

    def test_an_interrupted_run_goes_on(
        self, run: Run, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = tmp_path / "known.json"
        options = (*self.GIVEN, "--eps", "0.001", "--batch-size", 8)
        calls = []

        def interrupting(*args: Any, **kwargs: Any) -> torch.Tensor:
            calls.append(len(args[1]))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return margin_bounds(*args, **kwargs)

        monkeypatch.setattr("repsim_fast.verification.accuracy.margin_bounds", interrupting)
        result = run("certify", noisy, *options, "--resume", known)
        assert result.exit_code == 130
        assert "to go on: the same again" in result.output
        assert len(json.loads(known.read_text())["right"]) == 8
        result = run("certify", noisy, *options, "--resume", known)
        assert result.exit_code == 0, result.output
        assert len(json.loads(known.read_text())["right"]) == 20
        result = run("certify", noisy, *self.GIVEN, "--eps", "0.002", "--resume", known)
        assert result.exit_code == 1
        assert "name another file" in result.output

    def test_the_radius_is_that_of_the_training(
        self, run: Run, noisy: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "bounded.safetensors"
        how = ("--method", "ibp", "--eps", "0..0.004@0.5", "--epochs", 1, "--limit", 60)
        assert run(*TRAIN, *how, "--out", out).exit_code == 0
        result = run("certify", out, *self.GIVEN)
        assert result.exit_code == 0, result.output
        assert "by ibp within linf 0.004" in result.output
        result = run("certify", noisy, *self.GIVEN)
        assert result.exit_code == 1
        assert "--eps: say how far" in result.output

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--n", "5"), "--n: method 'ibp' has none"),
            (("--sigma", "0.1"), "--sigma: method 'ibp' has none"),
            (("--method", "smoothing", "--eps", "0.1"), "--eps: method 'smoothing' has none"),
        ],
    )
    def test_options_of_the_other_kind(
        self, run: Run, noisy: Path, options: tuple[str, ...], message: str
    ) -> None:
        result = run("certify", noisy, *self.GIVEN, *options)
        assert result.exit_code == 1
        assert message in result.output

    def test_files_that_cannot_be_gone_on_with(self, run: Run, noisy: Path, tmp_path: Path) -> None:
        how = ("--eps", "0.001", "--resume")
        result = run("certify", noisy, *self.GIVEN, *how, noisy)
        assert result.exit_code == 1
        assert "--resume must be a name that ends in .json" in result.output
        (tmp_path / "file").touch()
        result = run("certify", noisy, *self.GIVEN, *how, tmp_path / "file" / "known.json")
        assert "cannot write" in result.output
        known = tmp_path / "known.json"
        known.write_text("no")
        result = run("certify", noisy, *self.GIVEN, *how, known)
        assert f"{known}: expected JSON" in result.output
        result = run("certify", noisy, *self.GIVEN, *how, known, "--out", known)
        assert result.exit_code == 1
        assert "--resume and --out must be two files" in result.output
