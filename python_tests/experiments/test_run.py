"""The experiment end to end, tiny; its refusals; resumption."""

import dataclasses
import json
from importlib import import_module

import pytest
import torch

NAME = "experiments.01_robust_representations"
command = import_module(f"{NAME}.command")
presets = import_module(f"{NAME}.presets")
lab_module = import_module(f"{NAME}.lab")
networks = import_module(f"{NAME}.networks")
measures = import_module(f"{NAME}.questions.measures")
QUESTIONS = import_module(f"{NAME}.questions").QUESTIONS

TINY = dataclasses.replace(
    presets.PRESETS["smoke"],
    architecture="wrn-10-1",
    seeds=(0, 1),
    train_images=60,
    test_images=200,
    epochs=1,
    batch_size=30,
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


def run(monkeypatch, tmp_path, *arguments):
    monkeypatch.setitem(presets.PRESETS, "smoke", TINY)
    places = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    return command.main([*places, "--quiet", *arguments])


def test_every_question_gives_results_claims_and_provenance(monkeypatch, tmp_path):
    monkeypatch.setattr(measures, "GROUPS", 3)  # more cost time only
    assert run(monkeypatch, tmp_path) == 0
    results = tmp_path / "results" / "smoke"
    for question in QUESTIONS:
        found = json.loads((results / f"{question}.json").read_text())
        assert found["findings"]
        assert {file.rpartition(".")[2] for file in found["files"]} == {"csv", "png"}
        assert all((results / file).stat().st_size for file in found["files"])
    verdicts = {row["verdict"] for row in json.loads((results / "claims.json").read_text())}
    assert verdicts <= {"holds", "does not", "not testable at this scale"}
    record = json.loads((results / "run.json").read_text())
    assert record["networks trained in this run"] == 8
    assert record["machine"]["cores"]
    # The artefact does not depend on training.
    artefact = json.loads((results / "Q9.json").read_text())["findings"]["in place"]["robust"]
    gap = artefact["largest difference of the rows of norm and ReLU"]
    assert gap["published"] < 1e-6 < gap["correct"]
    # A second run trains nothing.
    assert run(monkeypatch, tmp_path, "--only", "Q7") == 0
    assert json.loads((results / "run.json").read_text())["networks trained in this run"] == 0


def test_a_stopped_training_goes_on_to_the_same_network(tmp_path):
    def lab(name, deadline=None):
        return lab_module.Lab(TINY, tmp_path / name, deadline=deadline, progress=False)

    whole = lab("whole")
    recipe = dataclasses.replace(whole.robust(), epochs=3, keep=(1,))
    expected = whole.networks.load(recipe).state_dict()
    stopped = lab("parts")
    calls = iter([float("inf"), -1.0])
    monkey = networks._Keeper.__call__

    def limited(self):
        self.deadline = next(calls, None)
        monkey(self)

    networks._Keeper.__call__ = limited
    try:
        with pytest.raises(networks.OutOfTime):
            stopped.networks.train(recipe)
    finally:
        networks._Keeper.__call__ = monkey
    resumed = lab("parts").networks
    found = resumed.load(recipe).state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    kept = resumed.load(recipe, 1).state_dict()
    for name, value in whole.networks.load(recipe, 1).state_dict().items():
        assert torch.equal(kept[name], value), name


def test_a_preset_that_cannot_run_says_so_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, tmp_path, "--preset", "gpu") == command.UNABLE
    assert "needs a CUDA device" in capsys.readouterr().err
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "REPSIM_DATA" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_unknown_question():
    with pytest.raises(SystemExit, match="Q10"):
        command.main(["--only", "Q1,Q10"])


def test_questions_are_those_of_the_claims():
    claims = import_module(f"{NAME}.claims")
    assert {claim.question for claim in claims.CLAIMS} <= set(QUESTIONS)
