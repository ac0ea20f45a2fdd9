"""The experiment end to end, tiny; its refusals; its README."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from experiments.class_selectivity import corruptions, presets, selectivity_lab
from experiments.class_selectivity.experiment import EXPERIMENT
from experiments.class_selectivity.questions import QUESTIONS, common, dimensions
from experiments.class_selectivity.selectivity_lab import SelectivityLab
from experiments.lab import command
from python_tests.support import experiment_runs
from python_tests.support.op_tester import devices
from repsim_fast.analysis.selectivity import class_selectivity

TINY = dataclasses.replace(
    presets.PRESETS["smoke"],
    train_images=60,
    test_images=60,
    epochs=1,
    batch_size=30,
    compare_batch=30,
    radii=(1.0,),
    neighbours=20,
    gradient_images=5,
    gradient_units=2,
    watched=30,
)

# More alphas and seeds cost time only, as do more steps and jackknife groups.
SWEPT = dataclasses.replace(TINY, alphas=(-2.0, 0.0, 1.0, 2.0), swept_seeds=1)


@pytest.fixture
def few_steps_and_groups(monkeypatch):
    monkeypatch.setattr(dimensions, "GROUPS", 2)
    pgd = selectivity_lab.pgd
    monkeypatch.setattr(
        selectivity_lab, "pgd", lambda *of, **how: pgd(*of, **{**how, "steps": (1, 2)})
    )


def run(monkeypatch, tmp_path, *arguments, preset=TINY):
    return experiment_runs.run(EXPERIMENT, preset, monkeypatch, tmp_path, *arguments)


@pytest.mark.usefixtures("few_steps_and_groups")
@pytest.mark.parametrize("device", devices())
def test_every_question_gives_results_claims_and_provenance(monkeypatch, tmp_path, device):
    """In mixed precision, as the larger presets train; the smoke preset goes without."""
    preset = dataclasses.replace(SWEPT, device=device, autocast="bfloat16")
    assert run(monkeypatch, tmp_path, preset=preset) == 0
    results = tmp_path / "results" / "smoke"
    record = experiment_runs.answered(EXPERIMENT, results)
    assert len(record["networks"]) == 11
    log = next((tmp_path / "work" / "smoke" / "networks").glob("*standard--2*/log.jsonl"))
    assert 0 < json.loads(log.read_text().splitlines()[0])["selectivity"] < 1
    table = EXPERIMENT.blocks["alphas"]([results])
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["-2", "0", "1", "2"]
    # A second run trains and measures nothing.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    assert run(monkeypatch, tmp_path, "--only", "Q4", "--again", preset=preset) == 0
    assert experiment_runs.trained_again(results, "Q4") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.usefixtures("few_steps_and_groups")
def test_the_networks_named_before_are_those_that_a_question_trains(monkeypatch, tmp_path):
    lab = SelectivityLab(SWEPT, tmp_path / "work", progress=False)
    asking = experiment_runs.asked_of_each_question(EXPERIMENT, lab, monkeypatch, tmp_path)
    for number, asked, recipes in asking:
        assert asked <= {recipe.name for recipe in recipes}, number
        first = {recipe.name for alpha in SWEPT.alphas for recipe in lab.of_alpha(alpha)}
        assert number in ("Q6", "Q7") or asked == first, number


def test_recipes_ask_for_what_they_say(tmp_path):
    lab = SelectivityLab(TINY, tmp_path / "work", progress=False)
    recipes = QUESTIONS["Q6"].recipes(lab)
    assert len({recipe.name for recipe in recipes}) == len(recipes) == 10
    for recipe in recipes:
        asked = lab.training(recipe)
        penalties = [repr(p) for p in asked.options["optimisation"].regularisers]
        alpha = f"SelectivityRegulariser({recipe.alpha!r}, layers=None)"
        assert penalties == ([alpha] if recipe.alpha else [])
        wanted = "pgd" if recipe.method == "pgd" else "standard"
        assert asked.options["method"].name == wanted
        assert callable(asked.options["augment"]) == (recipe.method == "mixed")
    other = dataclasses.replace(lab.recipe(seed=0), method="n-fgsm")
    assert lab.training(other).options["method"].name == "n-fgsm"


def test_figures_are_those_of_the_network(tmp_path):
    lab = SelectivityLab(TINY, tmp_path / "work", progress=False)
    recipe = lab.recipe(-2.0, seed=0)
    model, (x, y) = lab.model_of(recipe), lab.images()
    with torch.no_grad():
        right = model(x).argmax(1) == y
        early = model.relu(model.bn1(model.conv1(x)))
    assert lab.clean(recipe).value == pytest.approx(float(right.float().mean()), abs=1e-6)
    found = common.layers_selectivity(lab, recipe)
    assert found["relu"] == pytest.approx(float(class_selectivity(early, y).mean()), rel=1e-4)
    assert common.mean_selectivity(lab, recipe) == sum(found.values()) / len(found)
    accuracies = lab.under_corruption(recipe)
    images, labels = lab.corrupted("noise", 5)
    assert torch.equal(labels, y)
    with torch.no_grad():
        right = model(images).argmax(1) == y
    assert accuracies["noise"][4] == pytest.approx(float(right.float().mean()), abs=1e-6)


def test_a_preset_that_cannot_run_says_so_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, tmp_path, "--preset", "gpu") == command.UNABLE
    assert "needs a CUDA device" in capsys.readouterr().err
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "REPSIM_DATA" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, "--test-images", "4") == command.UNABLE
    assert "gradients need 5 test images, got 4" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "work").exists()


def test_what_is_missing_is_said_before_anything_is_trained(monkeypatch):
    lab = SimpleNamespace(
        preset=dataclasses.replace(TINY, low=-3.0), test_data=range(60), corruption_kinds=tuple
    )
    with pytest.raises(ValueError, match=r"must have low, 0 and high, lacks \[-3.0\]"):
        selectivity_lab.check(lab)

    def missing():
        raise ImportError("pip install imagecorruptions-imaug")

    lab = SimpleNamespace(preset=TINY, test_data=range(60), corruption_kinds=missing)
    with pytest.raises(ImportError, match="imagecorruptions-imaug; --preset cpu-simple does witho"):
        selectivity_lab.check(lab)


def test_the_preset_without_the_package_asks_for_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    asked = {name: presets.PRESETS[name].corruptions for name in ("cpu", presets.WITHOUT_PACKAGE)}
    with pytest.raises(ImportError, match="pip install imagecorruptions-imaug"):
        corruptions.kinds(asked.pop("cpu"))
    (source,) = asked.values()
    x = torch.rand(2, 3, 32, 32)
    assert len(corruptions.kinds(source)) == 6
    for kind in corruptions.kinds(source):
        changed = [corruptions.corrupted(source, kind, s, x) for s in corruptions.SEVERITIES]
        assert all(one.shape == x.shape and not torch.equal(one, x) for one in changed)


def test_questions_are_those_of_the_claims():
    assert {claim.question for claim in EXPERIMENT.claims} == set(QUESTIONS)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_have_what_claims_compare(name):
    preset = presets.PRESETS[name]
    assert {preset.low, 0.0, preset.high} <= set(preset.alphas)
    assert list(preset.alphas) == sorted(preset.alphas)


def test_the_readme_has_the_figures_of_the_results():
    experiment_runs.assert_readme_is_up_to_date(EXPERIMENT, "alphas smoke", "\n| -2 |")
