"""The experiment end to end, tiny; its refusals; resumption."""

import csv
import dataclasses
import json
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from python_tests.support.image_files import encode, write_parquet
from python_tests.support.op_tester import devices

NAME = "experiments.robust_representations"
command = import_module(f"{NAME}.command")
presets = import_module(f"{NAME}.presets")
datasets = import_module(f"{NAME}.datasets")
lab_module = import_module(f"{NAME}.lab")
networks = import_module(f"{NAME}.networks")
record = import_module(f"{NAME}.record")
report = import_module(f"{NAME}.report")
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


def run(monkeypatch, tmp_path, *arguments, preset=TINY):
    monkeypatch.setitem(presets.PRESETS, "smoke", preset)
    places = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    return command.main([*places, "--quiet", *arguments])


@pytest.mark.parametrize("device", devices())
def test_every_question_gives_results_claims_and_provenance(monkeypatch, tmp_path, device):
    """In mixed precision, as the presets for a GPU train; `make experiment-smoke` goes without."""
    monkeypatch.setattr(measures, "GROUPS", 3)  # more cost time only
    preset = dataclasses.replace(TINY, device=device, autocast="bfloat16")
    assert run(monkeypatch, tmp_path, preset=preset) == 0
    results = tmp_path / "results" / "smoke"
    for question in QUESTIONS:
        found = json.loads((results / f"{question}.json").read_text())
        assert found["findings"]
        assert {file.rpartition(".")[2] for file in found["files"]} == {"csv", "png"}
        assert all((results / file).stat().st_size for file in found["files"])
    verdicts = {row["verdict"] for row in json.loads((results / "claims.json").read_text())}
    assert verdicts <= {"holds", "does not", "not testable at this scale"}
    whole = json.loads((results / "run.json").read_text())
    assert len(whole["networks"]) == 8
    record = whole["questions"]
    assert set(record) == set(QUESTIONS)
    assert sum(one["networks_trained"] for one in record.values()) == 8
    assert all("cores" in one["machine"] for one in record.values())
    assert_errors_are_known(results)
    # The artefact does not depend on training.
    artefact = json.loads((results / "Q9.json").read_text())["findings"]["in place"]["robust"]
    gap = artefact["largest row difference, norm and ReLU"]
    assert gap["published"]["value"] < 1e-6 < gap["correct"]["value"]
    # A second run trains nothing, and leaves the other answers in the record.
    assert run(monkeypatch, tmp_path, "--only", "Q7", "--again", preset=preset) == 0
    record = json.loads((results / "run.json").read_text())["questions"]
    assert record["Q7"]["networks_trained"] == 0
    assert set(record) == set(QUESTIONS)


def assert_errors_are_known(results):
    """Every number of every table has its standard error, apart from names and exact ones."""
    exact = {
        "epoch", "layer", "layers apart", "radius", "seed", "p over images", "p over seeds",
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


def test_a_killed_run_goes_on_to_the_same_numbers(monkeypatch, tmp_path):
    """Stopped in the middle of an epoch of the last training of three."""
    monkeypatch.setitem(presets.PRESETS, "smoke", TINY)
    arguments = ["--only", "Q1", "--seeds", "1", "--epochs", "2", "--quiet"]
    places = [["--work", str(tmp_path / w), "--results", str(tmp_path / f"{w} results")]
              for w in ("whole", "parts")]  # fmt: skip
    assert command.main([*places[0], *arguments]) == 0
    build = datasets.Threat.build
    calls = iter(range(3))

    def interrupted(self, **options):
        if options.get("training") and next(calls, None) is None:
            raise KeyboardInterrupt
        return build(self, **options)

    monkeypatch.setattr(datasets.Threat, "build", interrupted)
    assert command.main([*places[1], *arguments]) == command.GO_ON
    assert not list((tmp_path / "parts results").rglob("Q1.json"))
    monkeypatch.setattr(datasets.Threat, "build", build)
    assert command.main([*places[1], *arguments]) == 0
    whole, parts = (
        json.loads((tmp_path / f"{w} results" / "smoke" / "Q1.json").read_text())
        for w in ("whole", "parts")
    )
    assert whole == parts


def test_answers_at_other_settings_or_of_other_code_do_not_count(monkeypatch, tmp_path):
    path = tmp_path / "run.json"
    monkeypatch.setattr(record, "_commit", lambda: "0123456789ab")
    first = record.Record(path, TINY)
    assert not first.has("Q1")
    first.add("Q1", {"a network": 2.0}, seconds=1.0)
    assert record.Record(path, TINY).has("Q1")
    assert not record.Record(path, dataclasses.replace(TINY, epochs=9)).questions
    for other in ("0123456789ab" + record.CHANGED, "ba9876543210", ""):
        monkeypatch.setattr(record, "_commit", lambda other=other: other)
        assert not record.Record(path, TINY).questions


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
    small = {"epochs": 1, "batch_size": 10, "compare_batch": 10, "kept": ()}
    tiny = dataclasses.replace(
        presets.PRESETS["cpu-tiny"], train_images=20, test_images=20, seeds=(0,), **small
    )
    lab = lab_module.Lab(tiny, tmp_path / "work", progress=False)
    assert lab.train_data.images.shape == (20, 3, 64, 64)
    found = QUESTIONS["Q1"][1](lab, report.Report(tmp_path / "results", "Q1"))
    assert found["robust"]["mean off-diagonal"].value > 0
    assert set(found["accuracy"]) == {"standard 0", "robust 0"}


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
    (tmp_path / "cifar10").mkdir()  # without files
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "parquet" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, "--test-images", "50") == command.UNABLE
    assert "question 8 needs" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "work").exists()


def test_every_preset_has_images_enough_for_question_8():
    held = {"digits": 450, "cifar10": 10_000, "tiny-imagenette": 500}
    for preset in presets.PRESETS.values():
        images = range(min(preset.test_images, held[preset.dataset]))
        measures.check(SimpleNamespace(preset=preset, test_data=images))


def test_unknown_question():
    with pytest.raises(SystemExit, match="Q10"):
        command.main(["--only", "Q1,Q10"])


def test_questions_are_those_of_the_claims():
    claims = import_module(f"{NAME}.claims")
    assert {claim.question for claim in claims.CLAIMS} <= set(QUESTIONS)


def test_the_readme_has_the_figures_of_the_results():
    text = (command.HERE / "README.md").read_text()
    assert "<!-- structure smoke -->" in text
    readme = import_module(f"{NAME}.readme")
    assert readme.updated(text, command.HERE / "results") == text, "run.py --readme"
    emptied = text.replace("| mean off-diagonal |", "| of old |")
    assert readme.updated(emptied, command.HERE / "results") == text
