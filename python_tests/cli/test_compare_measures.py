"""Several measures, any attack, and what helps where there is no value, on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import numpy as np
import pytest

from python_tests.support.commands import Run
from repsim_fast import SimilarityResult

FEW = ("--data", "digits", "--limit", 40, "--threads", 1, "--layers", "bn1", "--layers", "fc")


def test_measures_in_one_pass(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "both"
    names = ("resnet-8", "resnet-8")
    result = run("compare", *names, *FEW, "--measure", "CKA, rsa", "--maps", "pool", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"Open {out / 'report.html'}, which has a switch of measures" in result.output
    page = (out / "report.html").read_text()
    for measure in ("cka", "rsa"):
        assert f"<h2>{measure}</h2>" in page
        assert f"; {measure}:" in result.output
        assert not (out / measure / "report.html").exists()
        assert (out / measure / "heatmaps.png").exists()
        alone = tmp_path / measure
        one = run("compare", *names, *FEW, "--measure", measure, "--maps", "pool", "--out", alone)
        assert one.exit_code == 0, one.output
        found, expected = (
            SimilarityResult.load(folder / "result.safetensors")
            for folder in (out / measure, alone)
        )
        np.testing.assert_allclose(found.value, expected.value, atol=1e-6)


def test_a_wrong_measure_is_said_before_any_work(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("compare", "resnet-8", "--data", "nothing", "--measure", "cka,svca", "--out", out)
    assert result.exit_code == 1
    assert "got 'svca'; did you mean 'svcca'" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attack", "PGD", "--eps", "0.1", "--attack-steps", 1), "PGD(eps=0.1, norm='linf'"),
        (("--attack", "fgsm", "--norm", "l2", "--eps", 2), "FGSM(eps=2.0, norm='l2'"),
        (("--attack", "apgd", "--attack-steps", 2), "APGD(eps=0.03137"),
        (("--attack", "jpeg", "--attack-steps", 1), "JPEGAttack(eps=25,"),
        (("--attack", "rotation"), "RotationTranslation(max_rotation=30.0"),
    ],
)
def test_any_attack(run: Run, tmp_path: Path, options: tuple[object, ...], said: str) -> None:
    out = tmp_path / "out"
    result = run("compare", "resnet-8", *FEW, *options, "--out", out)
    assert result.exit_code == 0, result.output
    report = (out / "report.html").read_text().replace("&#x27;", "'").replace("&#39;", "'")
    assert f"Each model saw its own adversarial images: {said}" in report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attack", "apgt"), "got 'apgt'; did you mean 'apgd"),
        (("--attack", "fgsm", "--attack-steps", 3), "fgsm has a fixed number of steps"),
        (("--attack", "rotation", "--eps", 0.1), "rotation has no radius and no steps"),
        (("--attack", "pgd", "--norm", "l3"), "--norm must be one of linf"),
    ],
)
def test_attacks_that_are_none(
    run: Run, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    result = run("compare", "resnet-8", *FEW, *options, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output


@pytest.fixture
def inverting(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the package of corruptions one that has a single one."""
    package = SimpleNamespace(
        get_corruption_names=lambda subset: ["fog"],
        corrupt=lambda image, corruption_name, severity: 255 - image,
    )
    monkeypatch.setitem(sys.modules, "imagecorruptions", cast(ModuleType, package))


@pytest.mark.usefixtures("inverting")
def test_corruptions(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corrupted = ("--size", 32, "--attack", "corruption:fog@5")
    result = run("compare", "resnet-8", *FEW, *corrupted, "--out", out)
    assert result.exit_code == 0, result.output
    report = (out / "report.html").read_text().replace("&#39;", "'")
    assert "Each model saw corrupted images: Corruption('fog', severity=5)" in report


@pytest.mark.usefixtures("inverting")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attack", "corruption:fgo"), "got 'fgo'; did you mean 'fog'"),
        (("--attack", "corruption:fog@6"), "severity must be @1 to @5, got '@6'"),
        (("--attack", "corruption:fog", "--eps", 0.1), "a severity (@1 to @5), not --eps"),
    ],
)
def test_corruptions_that_are_none(
    run: Run, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    result = run("compare", "resnet-8", *FEW, *options, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.filterwarnings("default")  # cautions of few images
def test_no_values_for_few_images_say_what_helps(run: Run, tmp_path: Path) -> None:
    options = ("--data", "digits", "--limit", 30, "--threads", 1, "--measure", "cca")
    out = tmp_path / "out"
    result = run("compare", "resnet-8", *options, "--out", out)
    assert "cca needs more samples than independent features" in result.output
    assert "--maps pool" in result.output
    assert "a larger --limit" in result.output
    layers = ("--layers", "bn1")
    result = run("compare", "resnet-8", *options, *layers, "--out", out)
    assert result.exit_code == 1
    assert "--maps pool" in result.output
    result = run("compare", "resnet-8", *options, *layers, "--maps", "pool", "--out", out)
    assert result.exit_code == 0
    assert "what helps" not in result.output
