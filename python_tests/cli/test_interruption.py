from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from python_tests.support.commands import TRAIN, Run
from python_tests.support.forked import Forked
from repsim_fast import SimilarityResult
from repsim_fast._core.locks import only_writer
from repsim_fast.data import ImageData
from repsim_fast.models import load_checkpoint


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C works even where the tests run as a background job, which starts with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Signals that whoever runs the tests ignores (nohup) would be ignored in the command, too.
_COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from repsim_fast.cli import main
main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_training_resumes(run: Run, tmp_path: Path, number: int, code: int) -> None:
    out, whole = tmp_path / "network.safetensors", tmp_path / "whole.safetensors"
    command = [*TRAIN, "--epochs", "20", "--limit", "32", "--test-limit", "10"]
    command += ["--device", "cpu"]  # to the bit, which convolutions on a GPU are not
    running = Forked(_COMMAND, *command, "--out", out)
    log, state = (out.with_suffix(".training") / n for n in ("log.jsonl", "resume.safetensors"))
    while running.process.is_alive() and not state.exists():
        time.sleep(0.01)
    assert running.process.pid is not None
    os.kill(running.process.pid, number)
    ended = running.wait(60)
    errors = ended.stderr
    assert ended.returncode == code, errors
    assert "the same command with --resume goes on" in errors
    assert "Traceback" not in errors
    assert not out.exists()

    refused = run(*command, "--out", out)
    assert refused.exit_code == 1
    assert "--resume goes on with it, --no-resume starts over" in refused.output
    if number != signal.SIGINT:
        return  # what is kept is the same with every signal
    done = len(log.read_text().splitlines())
    resumed = run(*command, "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert f"epoch {done + 1:>2}/20" in resumed.output
    assert len(log.read_text().splitlines()) == 20

    assert run(*command, "--out", whole).exit_code == 0
    states = [load_checkpoint(path)[0].state_dict() for path in (out, whole)]
    for name, value in states[0].items():
        assert np.array_equal(value.numpy(), states[1][name].numpy()), name


def test_an_unfinished_training_is_not_overwritten(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "network.safetensors"
    command = [*TRAIN, "--out", out]
    assert run(*command).exit_code == 0
    assert run(*command).exit_code == 0, "a finished one may be done again"

    # One killed at any time since: in its epochs, or before its last lines wrote the checkpoint.
    monkeypatch.setattr("repsim_fast.cli.train_run.save", lambda *_, **__: os.kill(os.getpid(), 2))
    assert run(*command, "--epochs", 2).exit_code == 130
    state = (tmp_path / "network.training" / "resume.safetensors").read_bytes()
    monkeypatch.undo()
    for further in ([], ["--epochs", 2]):
        refused = run(*command, *further)
        assert refused.exit_code == 1
        assert "--resume goes on with it, --no-resume starts over" in refused.output
    assert (tmp_path / "network.training" / "resume.safetensors").read_bytes() == state
    assert run(*command, "--epochs", 2, "--resume").exit_code == 0
    assert run(*command, "--epochs", 2).exit_code == 0


def test_two_trainings_do_not_share_an_output(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    with only_writer(out):
        refused = run(*TRAIN, "--out", out)
    assert refused.exit_code == 1
    assert f"is being written by another run (process {os.getpid()}" in refused.output
    assert not out.exists()
    assert run(*TRAIN, "--out", out).exit_code == 0
    assert not list(tmp_path.rglob("*.lock"))


def test_resume_refuses_other_settings(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    assert run(*TRAIN, "--method", "fgsm", "--eps", "0.1", "--out", out).exit_code == 0
    result = run(*TRAIN, "--method", "fgsm", "--eps", "0.2", "--out", out, "--resume")
    assert result.exit_code == 1
    assert "other settings" in result.output
    assert "eps=0.1" in result.output


def test_resume_with_nothing_to_resume_starts(run: Run, tmp_path: Path) -> None:
    result = run(*TRAIN, "--out", tmp_path / "network.safetensors", "--resume")
    assert result.exit_code == 0
    assert "nothing to resume" in result.output


def test_starting_over_forgets_the_old_epochs(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    assert run(*TRAIN, "--epochs", 3, "--out", out).exit_code == 0
    again = run(*TRAIN, "--no-resume", "--out", out)
    assert again.exit_code == 0
    assert "/3" not in again.output
    assert len((tmp_path / "network.training" / "log.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("wrong", [("--data", "folder:nowhere"), ("--lr", "-1")])
def test_a_command_that_cannot_begin_leaves_what_was_there(
    run: Run, tmp_path: Path, wrong: tuple[str, str]
) -> None:
    out = tmp_path / "network.safetensors"
    assert run(*TRAIN, "--out", out).exit_code == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "network.training").iterdir()}
    assert {"log.jsonl", "resume.safetensors"} < before.keys()
    assert run(*TRAIN, *wrong, "--out", out).exit_code == 1
    after = {file.name: file.read_bytes() for file in (tmp_path / "network.training").iterdir()}
    assert after == before


@pytest.mark.parametrize(
    ("batches", "error", "code"),
    [(2, KeyboardInterrupt(), 130), (2, ValueError("image 7 is broken"), 1)],
)
def test_stopped_comparison_keeps_its_batches(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches: int,
    error: BaseException,
    code: int,
) -> None:
    stop_after(monkeypatch, batches, error)
    result = run(*compare_into(tmp_path))
    assert result.exit_code == code, result.output
    assert f"partial.safetensors has the result of the {batches} batches before" in result.output
    assert SimilarityResult.load(tmp_path / "partial.safetensors").n_batches == batches
    assert not (tmp_path / "report.html").exists()


def test_a_second_interrupt_does_not_lose_what_the_first_one_keeps(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SimilarityResult.save

    def interrupted(self: SimilarityResult, path: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return save(self, path)

    monkeypatch.setattr(SimilarityResult, "save", interrupted)
    stop_after(monkeypatch, 2, KeyboardInterrupt())
    result = run(*compare_into(tmp_path))
    assert result.exit_code == 130
    assert "partial.safetensors has the result of the 2 batches before" in result.output
    assert SimilarityResult.load(tmp_path / "partial.safetensors").n_batches == 2
    # And a whole comparison leaves no older part of one beside it.
    monkeypatch.undo()
    assert run(*compare_into(tmp_path)).exit_code == 0
    assert not (tmp_path / "partial.safetensors").exists()


def test_comparison_stopped_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 0, KeyboardInterrupt())
    result = run(*compare_into(tmp_path))
    assert result.exit_code == 130
    assert "before the first batch" in result.output
    assert not list(tmp_path.iterdir())


def test_interrupted_demo(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("repsim_fast.cli.demo_run.train", interrupt)
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 130
    assert "run it again to start over" in result.output


def compare_into(folder: Path) -> list[str]:
    options = "--data digits --limit 64 --batch-size 16 --threads 1 --layers fc --out"
    return ["compare", "resnet-8", *options.split(), str(folder)]


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int, error: BaseException) -> None:
    take, numbers = ImageData.take, itertools.count()

    def stopping(self: ImageData, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        if next(numbers) == batches:
            raise error
        return take(self, rows)

    monkeypatch.setattr(ImageData, "take", stopping)


def test_a_result_without_room_for_its_report_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "cannot write: No space left on device", str(path))

    words = ["compare", "resnet-8", "--data", "digits", "--limit", "40", "--no-figures"]
    expected = tmp_path / "expected"
    assert run(*words, "--out", expected).exit_code == 0
    monkeypatch.setattr("repsim_fast.report.folder.write_report", full)
    ended = run(*words, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert "report.html" in ended.output
    kept = tmp_path / "out" / "partial.safetensors"
    assert f"{kept} has the result" in " ".join(ended.output.split())
    found = SimilarityResult.load(kept)
    assert np.array_equal(found.value, SimilarityResult.load(expected / "result.safetensors").value)
