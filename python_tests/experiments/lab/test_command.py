"""The command of an experiment: what it leaves, what it refuses, how it goes on."""

import dataclasses
import json

import pytest
import torch

from experiments.lab import command, readme, record
from experiments.lab.report import Report
from experiments.lab.threats import Threat
from python_tests.support import toy_experiment as toy


@pytest.fixture
def drawing_run(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "commit", lambda code: "0123456789ab")

    def go(*arguments, preset=toy.PRESET, work="work", results="results"):
        places = ["--work", str(tmp_path / work), "--results", str(tmp_path / results)]
        return command.main(toy.experiment(tmp_path, preset), [*places, "--quiet", *arguments])

    return go


@pytest.fixture
def run(drawing_run, monkeypatch):
    """Without the pictures, which take most of the time of a run this small."""
    monkeypatch.setattr(Report, "picture", lambda *_: None)
    return drawing_run


def test_what_a_run_leaves(drawing_run, tmp_path, capsys):
    assert drawing_run() == 0
    results = tmp_path / "results" / "smoke"
    found = json.loads((results / "Q1.json").read_text())
    assert found["files"] == ["Q1_accuracy.csv", "Q1_distance.png", "Q1_maps.png", "Q1_same.csv",
                              "Q1_same.png"]  # fmt: skip
    assert all((results / file).stat().st_size for file in found["files"])
    head, *rows = (results / "Q1_accuracy.csv").read_text().splitlines()
    assert head == "network,clean,clean se,robust,robust se"
    assert len(rows) == 2
    row = json.loads((results / "claims.json").read_text())[0]
    assert row["verdict"] in ("holds", "does not")
    assert row["found"] in (results / "claims.md").read_text()
    kept = json.loads((results / "run.json").read_text())
    assert {q: a["networks_trained"] for q, a in kept["questions"].items()} == {"Q1": 2, "Q2": 1}
    assert len(kept["networks"]) == 3
    assert "Q1 done in" in capsys.readouterr().out
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_answered_questions_are_not_asked_again_unless_told(run, capsys):
    run("--only", "q1")
    capsys.readouterr()
    assert run() == 0
    said = capsys.readouterr().out
    assert "Q1 structure: answered already" in said
    assert "Q2 done in" in said
    run("--only", "Q2", "--again")
    assert "Q2 done in" in capsys.readouterr().out


def test_the_same_work_folder_gives_the_same_findings(run, tmp_path):
    run("--only", "Q1")
    run("--only", "Q1", results="second")
    first, second = ((tmp_path / r / "smoke" / "Q1.json") for r in ("results", "second"))
    assert first.read_text() == second.read_text()


def test_a_killed_run_goes_on_to_the_same_numbers(run, tmp_path, monkeypatch, capsys):
    """Stopped while the images of an attack are made."""
    assert run("--only", "Q1", work="whole", results="whole results") == 0
    build = Threat.build

    def interrupted(self, **options):
        if "strength" in options:
            raise KeyboardInterrupt
        return build(self, **options)

    monkeypatch.setattr(Threat, "build", interrupted)
    assert run("--only", "Q1") == command.GO_ON
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    assert not list((tmp_path / "results").rglob("Q1.json"))
    monkeypatch.setattr(Threat, "build", build)
    assert run("--only", "Q1") == 0
    whole, parts = (
        (tmp_path / r / "smoke" / "Q1.json").read_text() for r in ("whole results", "results")
    )
    assert whole == parts


def test_networks_trained_side_by_side_give_the_same_findings(run, tmp_path):
    torch.set_num_threads(1)  # one of two processes has half of them, and the last digits change
    one = run("--only", "Q1", work="one", results="one results")
    two = run("--only", "Q1", "--processes", "2", work="two", results="two results")
    assert (one, two) == (0, 0)
    first, second = (tmp_path / f"{n} results" / "smoke" for n in ("one", "two"))
    assert (first / "Q1.json").read_text() == (second / "Q1.json").read_text()
    trained = json.loads((second / "run.json").read_text())["questions"]["Q1"]["networks_trained"]
    assert trained == 0  # by the question: they were there
    assert run("--processes", "2", "--minutes", "0", work="three") == command.GO_ON


def test_processes_measure_what_they_trained(run, tmp_path, monkeypatch):
    def unasked(*_):
        raise AssertionError("measured by the process that answers")

    monkeypatch.setattr(toy.ToyLab, "_accuracy", unasked)
    cards = tmp_path / "cards"
    assert run("--only", "Q1", "--processes", "2", "--cards", str(cards)) == 0
    held = [json.loads(path.read_text()) for path in cards.iterdir()]
    assert len(held) == 2
    assert all(key.startswith("accuracy-") for card in held for key in card["measured"])
    assert all(card["measured"] for card in held)


def test_cards_take_a_run_to_another_machine(run, tmp_path):
    cards = ["--cards", str(tmp_path / "cards")]
    run("--only", "Q2", *cards)
    for path in (tmp_path / "cards").iterdir():
        path.write_text(path.read_text().replace(record.machine(None), "a far machine"))
    assert run("--only", "Q2", *cards, work="elsewhere", results="second") == 0
    first, second = (tmp_path / name / "smoke" for name in ("results", "second"))
    assert (first / "Q2.json").read_text() == (second / "Q2.json").read_text()
    answer = json.loads((second / "run.json").read_text())["questions"]["Q2"]
    assert answer["networks_trained"] == 0
    assert answer["trained_on"] == ["a far machine"]
    assert "networks trained on a far machine, too" in readme.BLOCKS["run"]([second])
    assert "networks trained on" not in readme.BLOCKS["run"]([first])


def test_a_failed_training_in_another_process_is_no_success(run):
    broken = dataclasses.replace(toy.PRESET, architecture="no-such-network")
    with pytest.raises(RuntimeError, match="a process that trained networks ended with status 1"):
        run("--only", "Q1", "--processes", "2", preset=broken)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--processes", "0"), ("--seeds", "0"), ("--seeds", "-1"), ("--epochs", "0"),
        ("--train-images", "0"), ("--test-images", "-5"), ("--size", "0"),
        ("--minutes", "-1"), ("--minutes", "nan"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(run, option: str, value: str) -> None:
    with pytest.raises(SystemExit, match=rf"{option}: expected .*at least [01], got {value}"):
        run(option, value)


def test_a_run_out_of_time_goes_on(run, capsys):
    assert run("--minutes", "0") == command.GO_ON
    assert "the same command goes on from here" in capsys.readouterr().err
    assert run("--minutes", "60") == 0


@pytest.mark.parametrize("moment", ["parse", "chosen", "_check_device", "Record", "_judge"])
def test_an_interruption_says_how_to_go_on(run, monkeypatch, capsys, moment):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, moment, interrupt)
    assert run("--only", "Q1") == command.GO_ON
    assert "interrupted: the same command goes on from here" in capsys.readouterr().err


def test_what_the_command_changes_has_a_folder_of_its_own(run, tmp_path):
    preset = dataclasses.replace(toy.PRESET, absolute=True)
    arguments = ["--only", "Q1", "--architecture", "resnet-digits", "--seeds", "2"]
    assert run(*arguments, preset=preset) == 0
    results = tmp_path / "results" / "smoke-resnet-digits"
    kept = json.loads((results / "run.json").read_text())["preset"]
    assert (kept["seeds"], kept["absolute"]) == ([0, 1], False)
    assert run("--only", "Q1", "--name", "mine", preset=preset) == 0
    claims = json.loads((tmp_path / "results" / "mine" / "claims.json").read_text())
    assert claims[0]["found"] == "nothing is published"


def test_what_cannot_run_says_so_first(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    for arguments, message in (
        (["--preset", "gpu"], "needs a CUDA device"),
        (["--dataset", "cifar10"], "set REPSIM_DATA to the folder that holds cifar10/"),
    ):
        assert run(*arguments) == command.UNABLE
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unknown_question(run):
    with pytest.raises(SystemExit, match="--only: no question 'Q10'; there are Q1, Q2"):
        run("--only", "Q1,Q10")


def test_readme(run, tmp_path):
    run()
    readme = tmp_path / "README.md"
    readme.write_text(
        "<!-- verdicts smoke -->\nold\n<!-- end -->\n<!-- run smoke -->\nold\n<!-- end -->\n"
        "<!-- claims smoke -->\n<!-- end -->\n<!-- loss smoke, smoke -->\n<!-- end -->\n"
        "<!-- claims other -->\nstays\n<!-- end -->\n<!-- unknown smoke -->\nstays\n<!-- end -->\n"
    )
    assert run("--readme") == 0
    text = readme.read_text()
    assert "old" not in text
    assert text.count("stays") == 2
    assert "| it rises | made up |" in text
    assert "(results/smoke/Q1_accuracy.csv)" in text
    assert "| claim | [smoke](results/smoke/claims.md) |" in text
    assert "commit 0123456789ab" in text
    assert "of 2\n" in text
    # A claim that an older run did not know yet.
    older = tmp_path / "results" / "older"
    older.mkdir()
    for name in ("run.json", "claims.json"):
        (older / name).write_text((tmp_path / "results" / "smoke" / name).read_text())
    (older / "claims.json").write_text("[]")
    readme.write_text("<!-- verdicts older, smoke -->\n<!-- end -->\n")
    assert run("--readme") == 0
    assert "| it rises | not yet asked | " in readme.read_text()
