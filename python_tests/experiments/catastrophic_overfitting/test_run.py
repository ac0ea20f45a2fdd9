"""The experiment end to end, tiny; its refusals; its README."""

import dataclasses

import pytest
import torch

from experiments.catastrophic_overfitting import presets
from experiments.catastrophic_overfitting.experiment import EXPERIMENT
from experiments.catastrophic_overfitting.overfitting_lab import OverfittingLab
from experiments.catastrophic_overfitting.questions import QUESTIONS
from experiments.lab import command
from python_tests.support import experiment_runs
from python_tests.support.op_tester import devices

TINY = dataclasses.replace(
    presets.PRESETS["smoke"],
    seeds=(0,),
    train_images=60,
    test_images=60,
    epochs=2,
    batch_size=30,
    compare_batch=30,
    grid=((40.0, (0.0, 60.0)),),
    focus=(40.0, 60.0),
    plain=40.0,
    cures=("n-fgsm", "pgd"),
    attack_steps=2,
    probed=20,
    curved=4,
    every=1,
)


def run(monkeypatch, tmp_path, *arguments, preset=TINY):
    return experiment_runs.run(EXPERIMENT, preset, monkeypatch, tmp_path, *arguments)


@pytest.mark.parametrize("device", devices())
def test_every_question_gives_results_claims_and_provenance(monkeypatch, tmp_path, device):
    preset = dataclasses.replace(TINY, device=device, autocast="bfloat16")
    named = {
        recipe.name
        for question in QUESTIONS.values()
        for recipe in question.recipes(OverfittingLab(preset, tmp_path / "work", progress=False))
    }
    assert run(monkeypatch, tmp_path, preset=preset) == 0
    results = tmp_path / "results" / "smoke"
    record = experiment_runs.answered(EXPERIMENT, results)
    # Were one not named before, a single process would train it while the others wait.
    assert set(record["networks"]) == named
    assert run(monkeypatch, tmp_path, "--only", "Q3", "--again", preset=preset) == 0
    assert experiment_runs.trained_again(results, "Q3") == 0
    assert EXPERIMENT.blocks["phase"]([results]).count("|") > 6


def test_networks_of_the_focus_are_trained_once(tmp_path):
    lab = OverfittingLab(TINY, tmp_path, progress=False)
    assert lab.recipe() == lab.recipe(eps=40.0, beta=60.0)
    assert lab.recipe().keep == (1,)
    assert lab.recipe(beta=0.0).keep == (1,)
    assert lab.recipe(removed=True).keep == ()
    assert lab.recipe("n-fgsm").keep == ()


@pytest.mark.parametrize("question", ["Q2", "Q5"])
def test_untreated_networks_are_of_every_seed(tmp_path, question):
    for cured, treated in ((1, {0}), (None, {0, 1})):
        preset = dataclasses.replace(TINY, seeds=(0, 1), cured_seeds=cured)
        lab = OverfittingLab(preset, tmp_path, progress=False)
        phase, named = QUESTIONS["Q1"].recipes(lab), QUESTIONS[question].recipes(lab)
        assert {recipe.seed for recipe in named if recipe in phase} == {0, 1}
        assert {recipe.seed for recipe in named if recipe not in phase} == treated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": ((0.0, (0.0,)),)}, r"radii must rise within \(0, 255\), got \[0.0\]"),
        ({"grid": ((8.0, (0.0,)), (4.0, (0.0,)))}, "radii must rise"),
        ({"grid": ((40.0, (-1.0, 60.0)),)}, r"amplitudes at 40 must rise within \[0, 255\)"),
        ({"grid": ((40.0, (0.0, 255.0)),)}, "amplitudes at 40 must rise"),
        ({"focus": (40.0, 61.0)}, r"focus must be a cell of the grid, got \(40.0, 61.0\)"),
        ({"image_size": 3}, "10 classes need images of 4 x 4 at least, got 3 x 3"),
    ],
)
def test_what_cannot_run_says_so_first(monkeypatch, tmp_path, capsys, changes, message):
    preset = dataclasses.replace(TINY, **changes)
    with pytest.raises(ValueError, match=message):
        OverfittingLab(preset, tmp_path / "work", progress=False)
    assert run(monkeypatch, tmp_path, preset=preset) == command.UNABLE
    assert "cannot run here" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_presets_that_need_more_say_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, tmp_path, "--preset", "gpu") == command.UNABLE
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "REPSIM_DATA" in capsys.readouterr().err


def test_grids_of_all_presets_are_sound(monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.lab.lab.Lab.__init__", lambda *_, **__: 1 / 0)
    for preset in presets.PRESETS.values():
        with pytest.raises(ZeroDivisionError):  # past its own check
            OverfittingLab(preset, tmp_path)


def test_the_readme_has_the_figures_of_the_results():
    experiment_runs.assert_readme_is_up_to_date(EXPERIMENT, "phase smoke", "| eps | beta 0")
