"""The experiment end to end, tiny; its refusals; its README."""

import csv
import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.lab import command
from experiments.lab.report import Report
from experiments.robust_representations import presets, strongest, tables, take_away, threats
from experiments.robust_representations.experiment import EXPERIMENT
from experiments.robust_representations.questions import QUESTIONS, measures, pooled
from experiments.robust_representations.questions.seeds import recipes
from experiments.robust_representations.recipes import in_steps
from experiments.robust_representations.robust_lab import RobustLab
from experiments.robust_representations.threats import threats_of
from python_tests.support import experiment_runs
from python_tests.support.image_files import encode, write_parquet
from python_tests.support.op_tester import devices
from repsim_fast import models
from repsim_fast.analysis.estimates import share

TINY = dataclasses.replace(
    presets.PRESETS["smoke"],
    architecture="wrn-10-1",
    seeds=(0, 1),
    train_images=60,
    test_images=200,
    epochs=1,
    batch_size=30,
    attack_steps=1,
    compare_batch=100,
    kept=(0.0,),
    widths=("wrn-10-1",),
    depths=("wrn-10-1",),
    radii=(1.0,),
    strengths=(1.0,),
    threats=("linf", "tr"),
    overfitting=presets.Overfitting(images=60, epochs=2, every=1, watched=20),
    measure_images=200,  # twice the 64 channels of the last stage must fit into two thirds
)


SCORES = {"clean": share(0.5, 10), "robust": share(0.3, 10)}


def run(monkeypatch, tmp_path, *arguments, preset=TINY):
    return experiment_runs.run(EXPERIMENT, preset, monkeypatch, tmp_path, *arguments)


@pytest.mark.parametrize("device", devices())
def test_every_question_gives_results_claims_and_provenance(monkeypatch, tmp_path, device):
    """In mixed precision, as the presets for a GPU train; `make experiment-smoke` goes without."""
    monkeypatch.setattr(pooled, "GROUPS", 3)  # more cost time only, as do more steps
    evaluated_by_few_steps(monkeypatch, threats.DIGITS)
    moved = dataclasses.replace(threats.DIGITS["tr"], evaluate={"grid": 2})
    monkeypatch.setitem(threats.DIGITS, "tr", moved)
    preset = dataclasses.replace(TINY, device=device, autocast="bfloat16")
    assert run(monkeypatch, tmp_path, preset=preset) == 0
    results = tmp_path / "results" / "smoke"
    whole = experiment_runs.answered(EXPERIMENT, results)
    assert len(whole["networks"]) == 8
    record = whole["questions"]
    assert sum(one["networks_trained"] for one in record.values()) == 8
    assert all("cores" in one["machine"] for one in record.values())
    assert_errors_are_known(results)
    page = tables.summary([results])
    assert page.count(" ± ") >= 12
    assert page.startswith("![CKA of what blocks hand on](results/smoke/Q1_stream.png)")
    attacked = json.loads((results / "Q1.json").read_text())["findings"][
        "accuracy under AutoAttack"
    ]
    assert attacked.keys() == {"standard 0", "robust 0"}
    # The artefact does not depend on training.
    artefact = json.loads((results / "Q9.json").read_text())["findings"]["in place"]["robust"]
    gap = artefact["largest row difference, norm and ReLU"]
    assert gap["published"]["value"] < 1e-6 < gap["correct"]["value"]
    # A second run trains nothing, and leaves the other answers in the record.
    assert run(monkeypatch, tmp_path, "--only", "Q7", "--again", preset=preset) == 0
    assert experiment_runs.trained_again(results, "Q7") == 0
    experiment_runs.answered(EXPERIMENT, results)


def test_what_autoattack_needs_is_said_before_hours_are_spent(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    monkeypatch.setitem(sys.modules, "autoattack", None)
    preset = dataclasses.replace(TINY, strongest=presets.Strongest(images=50))
    assert run(monkeypatch, tmp_path, preset=preset) == command.UNABLE
    assert "pip install pyautoattack" in capsys.readouterr().err


def test_autoattack_goes_on_at_the_batch_it_was_at(monkeypatch, tmp_path):
    asked = presets.Strongest(images=50, stages=("apgd-ce",), steps=2)
    preset = dataclasses.replace(TINY, compare_batch=20, strongest=asked)
    attack, seen = strongest.AutoAttack.__call__, []

    def interrupted(self, model, x, y):
        if len(seen) == 2:
            raise KeyboardInterrupt
        return noted(self, model, x, y)

    def noted(self, model, x, y):
        seen.append(len(x))
        return attack(self, model, x, y)

    def measure(folder):
        lab = RobustLab(preset, tmp_path / folder, progress=False)
        return strongest.accuracy(lab, recipes(lab, 0)["robust"])

    monkeypatch.setattr(strongest.AutoAttack, "__call__", noted)
    whole = measure("whole")
    assert seen == [20, 20, 10]
    seen.clear()
    monkeypatch.setattr(strongest.AutoAttack, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure("in parts")
    monkeypatch.setattr(strongest.AutoAttack, "__call__", noted)
    assert measure("in parts") == whole
    assert seen == [20, 20, 10]


def evaluated_by_few_steps(monkeypatch, models_of_threat):
    usual = models_of_threat["linf"]
    few = dataclasses.replace(usual, evaluate={**usual.evaluate, "steps": 2})
    monkeypatch.setitem(models_of_threat, "linf", few)


def test_a_pair_to_take_away(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(presets.PRESETS, "smoke", TINY)
    places = ["--work", str(tmp_path / "work"), "--cards", str(tmp_path / "cards")]
    places += ["--out", str(tmp_path / "weights")]
    assert take_away.main(["--preset", "smoke", *places]) == 0
    assert len(list((tmp_path / "cards").glob("*.json"))) == 2
    for kind, method in (("standard", "standard"), ("robust", "adversarial")):
        name = f"digits-wrn-10-1-{kind}"
        assert f"{name}.safetensors: 0.1" in capsys.readouterr().out or kind == "robust"
        network, about = models.load_pretrained(name, folder=tmp_path / "weights")
        assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
        assert about["method"] == about["recipe"]["method"] == method
        assert 0 <= about["robust_accuracy"] <= about["clean_accuracy"] <= 1
        # The first seed's networks, few images and steps.
        assert 0 <= about["autoattack_accuracy"] <= 1
        assert about["autoattack_images"] == 50
        assert about["commit"]
        assert about["attack"].startswith("PGD {'norm': 'linf', 'eps': 0.2")


def assert_errors_are_known(results):
    """Every number of every table has its standard error, apart from names and exact ones."""
    exact = {
        "epoch", "layer", "layers apart", "radius", "seed", "p over images", "p over seeds",
        "p of a border",
    }  # fmt: skip
    for path in results.glob("*.csv"):
        rows = list(csv.DictReader(path.open()))
        for column in rows[0].keys() - exact:
            numbers = [row[column] for row in rows if is_number(row[column])]
            if numbers and not column.endswith(" se"):
                assert f"{column} se" in rows[0], (path.name, column)


def is_number(text):
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def test_tiny_imagenette_is_found_and_runs(monkeypatch, tmp_path):
    """The smallest preset of the third data set, on noise in its format."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    files = [encode(Image.fromarray(p)) for p in pixels]
    folder = tmp_path / "data" / "tiny-imagenette"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        labels = [i % 4 for i in range(40)]
        write_parquet(folder / f"{split}-0.parquet", files, labels, names=list("abcd"))
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path / "data"))
    small = {"epochs": 1, "batch_size": 10, "compare_batch": 10, "kept": (), "attack_steps": 1}
    evaluated_by_few_steps(monkeypatch, threats.PUBLISHED)
    tiny = dataclasses.replace(
        presets.PRESETS["cpu"],
        dataset="tiny-imagenette",
        train_images=20,
        test_images=20,
        seeds=(0,),
        **small,
    )
    lab = RobustLab(tiny, tmp_path / "work", progress=False)
    assert lab.train_data.images.shape == (20, 3, 64, 64)
    found = QUESTIONS["Q1"].run(lab, Report(tmp_path / "results", "Q1"))
    assert found["robust"]["mean off-diagonal"].value > 0
    assert set(found["accuracy"]) == {"standard 0", "robust 0"}


def test_a_preset_that_cannot_run_says_so_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, tmp_path, "--preset", "gpu") == command.UNABLE
    assert "needs a CUDA device" in capsys.readouterr().err
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "REPSIM_DATA" in capsys.readouterr().err
    (tmp_path / "cifar10").mkdir()  # without files
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "parquet" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, "--test-images", "50") == command.UNABLE
    assert "question 8 needs" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("sweep", [None, presets.Sweep(images=40, epochs=1)])
def test_the_networks_named_before_are_those_that_a_question_trains(monkeypatch, tmp_path, sweep):
    """Were some missing, one process would train them while the others have nothing to do."""
    preset = dataclasses.replace(TINY, robust="n-fgsm", attack_steps=2, sweep=sweep, strongest=None)
    lab = RobustLab(preset, tmp_path / "work", progress=False)
    asked = {}

    def model(recipe, epoch=None):
        asked[recipe.name] = recipe
        return models.build(recipe.architecture, num_classes=10, in_channels=1, seed=0)

    def history(recipe):
        asked[recipe.name] = recipe
        epochs = range(recipe.epochs)
        scores = {"train_accuracy": 0.5, "clean_accuracy": 0.4, "robust_accuracy": 0.3}
        return [{"epoch": e, **scores} for e in epochs]

    for name, fake in {"load": model, "history": history, "train": model}.items():
        monkeypatch.setattr(lab.networks, name, fake)
    monkeypatch.setattr(lab, "accuracy", lambda recipe, *_: (model(recipe), SCORES)[1])
    # More, and pictures, cost time only.
    monkeypatch.setattr(pooled, "GROUPS", 2)
    monkeypatch.setattr(measures, "OTHERS", ("cca",))
    monkeypatch.setattr(pooled, "MEASURES", {"cka": {}, "cca": {}})
    monkeypatch.setattr(Report, "picture", lambda *_: None)
    for number, question in QUESTIONS.items():
        if sweep and number not in ("Q4", "Q5", "Q6"):  # those that ask for networks of a sweep
            continue
        asked.clear()
        lab.work = tmp_path / number  # nothing is kept from the question before
        question.run(lab, Report(tmp_path / "results", number))
        assert set(asked) == {recipe.name for recipe in question.recipes(lab)}, number
    swept = QUESTIONS["Q5"].recipes(lab)
    assert {r.epochs for r in swept} == {1}
    assert {r.images for r in swept} == {None if sweep is None else 40}
    assert {r.method: r.steps for r in swept} == {
        "standard": None, "n-fgsm": None, "adversarial": 2, "trades": 2,
    }  # fmt: skip


def test_fewer_attack_steps_go_as_far_together():
    lab = SimpleNamespace(name="cifar10")
    threats = threats_of(lab)
    short = in_steps(threats["linf"], 5)
    assert short.train == {"steps": 5, "step_size": pytest.approx(2 * 0.0078)}
    assert short.evaluate == threats["linf"].evaluate
    assert in_steps(threats["snow"], 5) == threats["snow"]
    assert in_steps(threats["l2"], None) == threats["l2"]


def test_every_preset_has_images_enough_for_question_8():
    held = {"digits": 450, "cifar10": 10_000, "tiny-imagenette": 500}
    for preset in presets.PRESETS.values():
        images = range(min(preset.test_images, held[preset.dataset]))
        measures.check(SimpleNamespace(preset=preset, test_data=images))


def test_questions_are_those_of_the_claims():
    assert {claim.question for claim in EXPERIMENT.claims} <= set(QUESTIONS)


def test_the_readme_has_the_figures_of_the_results():
    experiment_runs.assert_readme_is_up_to_date(
        EXPERIMENT, "structure digits", "| mean off-diagonal |"
    )
