from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from python_tests.support.commands import Run
from repsim_fast.models import load_checkpoint
from repsim_fast.training import recipes

SMALL = (
    *("train", "--data", "digits", "--limit", "60", "--test-limit", "40", "--threads", "1"),
    *("--model", "resnet-8", "--epochs", "1"),
)


def test_a_preset_trains_by_its_recipe(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "robust.safetensors"
    result = run(*SMALL, "--preset", "n-fgsm-dejorge2022", "--lr", "0.05", "--out", out)
    assert result.exit_code == 0, result.output
    _, about = load_checkpoint(out)
    assert about["preset"] == "n-fgsm-dejorge2022"
    assert about["method"] == "n-fgsm"
    assert about["method_options"] == {
        "eps": 8 / 255,
        "noise": 2.0,
        "model_mode": "train",
        "update_statistics": True,
    }
    assert about["validation"] == 0
    assert (about["name"], about["epochs"], about["batch_size"]) == ("resnet-8", 1, 128)
    assert (about["lr"], about["augment"]) == (0.05, "crop+flip")
    compared = run(
        *("compare", out, out, "--data", "digits", "--limit", "40", "--layers", "fc"),
        *("--threads", "1", "--out", tmp_path / "compared"),
    )
    assert compared.exit_code == 0, compared.output


@pytest.mark.parametrize("of_recipe", [None, 0.9])
@pytest.mark.parametrize("given", [None, 0.5])
def test_an_average_with_a_preset(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_recipe: float | None,
    given: float | None,
) -> None:
    recipe = recipes.get("rs-fgsm-wong2020")
    if of_recipe is not None:
        how = replace(recipe.settings["optimisation"], ema=of_recipe)
        averaged = replace(recipe, settings={**recipe.settings, "optimisation": how})
        monkeypatch.setattr(recipes, "get", lambda name: averaged)
    out = tmp_path / "robust.safetensors"
    options = [] if given is None else ["--ema", given]
    result = run(*SMALL, "--preset", "rs-fgsm-wong2020", *options, "--out", out)
    assert result.exit_code == 0, result.output
    _, about = load_checkpoint(out)
    assert about["ema"] == (of_recipe if given is None else given)


def test_what_a_preset_decides(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "robust.safetensors"
    result = run(*SMALL, "--preset", "pgd-rice2020", "--eps", "0.1", "--out", out)
    assert result.exit_code == 1
    assert "--eps is the preset's" in result.output
    result = run(*SMALL, "--preset", "magic", "--out", out)
    assert "preset must be one of" in result.output
    result = run("train", "--data", "digits", "--out", out)
    assert "--model: name a network" in result.output
