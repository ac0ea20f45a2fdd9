"""The record of what was answered by which code."""

import dataclasses
import subprocess

import pytest

from experiments.lab import record
from experiments.lab.cards import Card
from experiments.lab.record import CHANGED, Record
from python_tests.support import toy_experiment as toy


def test_answers_at_other_settings_or_of_other_code_do_not_count(monkeypatch, tmp_path):
    path = tmp_path / "run.json"
    monkeypatch.setattr(record, "commit", lambda code: "0123456789ab")
    first = Record(path, toy.PRESET, tmp_path)
    assert not first.has("Q1")
    first.add("Q1", {"a network": Card({}, 2.0, "", "elsewhere", [])}, seconds=1.0)
    kept = Record(path, toy.PRESET, tmp_path)
    assert kept.has("Q1")
    assert not kept.has("Q2")
    assert kept.networks == {"a network": 2.0}
    assert "cores" in kept.questions["Q1"]["machine"]
    assert kept.questions["Q1"]["trained_on"] == ["elsewhere"]
    assert not Record(path, dataclasses.replace(toy.PRESET, epochs=9), tmp_path).questions
    for other in ("0123456789ab" + CHANGED, "ba9876543210", ""):
        monkeypatch.setattr(record, "commit", lambda code, other=other: other)
        assert not Record(path, toy.PRESET, tmp_path).questions


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two experiments and the lab, all committed; gives a git command in it."""

    def git(*arguments):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    for folder in ("repsim_fast", "csrc", "experiments/lab", "experiments/a", "experiments/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "code.py").write_text("1\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "all")
    monkeypatch.setattr(record, "LAB", tmp_path / "experiments" / "lab")
    return git


def test_the_commit_is_that_of_the_code_an_answer_hangs_on(repository, tmp_path):
    code = tmp_path / "experiments" / "a"
    first = record.commit(code)
    assert first == repository("rev-parse", "HEAD").stdout[:12]
    for file, counts in (
        ("experiments/b/code.py", False),
        ("experiments/a/README.md", False),
        ("experiments/a/questions.py", True),
        ("experiments/lab/code.py", True),
        ("repsim_fast/code.py", True),
    ):
        (tmp_path / file).write_text("2\n")
        assert record.commit(code) == first + (CHANGED if counts else ""), file
        repository("add", "-A")
        repository("commit", "-q", "-m", file)
        assert (record.commit(code) != first) == counts, file
        first = record.commit(code)
