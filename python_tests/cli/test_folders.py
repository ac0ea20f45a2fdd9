"""What folders on the command line stand for, and what is said of all that is no model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from python_tests.cli.test_processes import _together
from python_tests.cli.test_record import FEW
from python_tests.support.commands import Run, run_command
from repsim_fast import Recording, record
from repsim_fast.report import load_folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Of two networks, in a folder of nothing else."""
    for name, width in (("one", 3), ("two", 4)):
        model, x = torch.nn.Linear(9, width), torch.randn(60, 9, generator=torch.manual_seed(0))
        record(model, x, tmp_path / "rec" / name, batch_size=15)
    return tmp_path / "rec"


def _compare(*arguments: object, out: Path) -> None:
    done = run_command("compare", *arguments, "--no-figures", "--threads", 1, "--out", out)
    assert done.exit_code == 0, done.output


def test_the_current_folder_has_a_name(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recordings / "one")
    _compare(".", out=tmp_path / "out")
    assert load_folder(tmp_path / "out").models == ("one",)
    _compare("../two", ".", out=tmp_path / "out")
    assert load_folder(tmp_path / "out").models == ("two", "one")


def test_results_are_no_models(run: Run, recordings: Path) -> None:
    _compare(recordings, out=recordings)
    assert (recordings / "result.safetensors").is_file()
    _compare(recordings, out=recordings)
    assert load_folder(recordings).models == ("one", "two")
    done = run("compare", recordings / "result.safetensors", "--out", recordings)
    assert done.exit_code == 1
    assert "MODEL: expected networks or recordings, got the result" in done.output
    done = run("compare", f"resnet-8={recordings}", *FEW, "--out", recordings)
    assert done.exit_code == 1
    assert "MODEL: expected weights" in done.output


def test_what_is_left_out_is_named(run: Run, recordings: Path, tmp_path: Path) -> None:
    for number in range(6):
        torch.save({}, recordings / f"{number}.pt")
    done = run("compare", recordings, "--no-figures", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    left_out = ", ".join(str(recordings / f"{number}.pt") for number in range(5))
    assert f"left out {left_out}, ... beside" in done.output


def test_extend_after_a_move(run: Run, recordings: Path, tmp_path: Path) -> None:
    _compare(recordings / "one", out=tmp_path / "out")
    shutil.move(recordings, tmp_path / "moved")
    extend = ("extend", tmp_path / "out", tmp_path / "moved" / "two", "--out", tmp_path / "both")
    done = run(*extend)
    assert done.exit_code == 1
    assert "--recordings DIR says where those of this result are now" in done.output
    done = run(*extend, "--recordings", tmp_path)
    assert done.exit_code == 1
    assert "--recordings: expected recordings of one in" in done.output
    done = run(*extend, "--recordings", tmp_path / "moved")
    assert done.exit_code == 0, done.output
    assert load_folder(tmp_path / "both").models == ("one", "two")


def test_extend_names_its_argument(run: Run, recordings: Path, tmp_path: Path) -> None:
    _compare(recordings / "one", out=tmp_path / "out")
    done = run("extend", tmp_path / "out", f"{recordings}/none*", "--out", tmp_path / "both")
    assert done.exit_code == 1
    assert "error: RECORDING: expected" in done.output


def test_record_of_networks_that_all_fail(run: Run, tmp_path: Path) -> None:
    names = ("none.safetensors", "neither.safetensors")
    done = run("record", *names, *FEW, "--out", tmp_path)
    assert done.exit_code == 1
    assert "MODEL: 2 of 2 failed: none, neither" in done.output
    assert "the others" not in done.output


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
def test_of_several_processes_one_works_where_nothing_is_shared(
    recordings: Path, tmp_path: Path
) -> None:
    _compare(recordings / "one", out=tmp_path / "out")
    extend = ("extend", tmp_path / "out", recordings / "two", "--out", tmp_path / "both")
    report = ("report", tmp_path / "out", "--out", tmp_path / "page.html")
    for command, made in ((extend, "both"), (report, "page.html")):
        first, second = _together(*command)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert first.stdout.count("Open ") == 1
        assert not second.stdout
        assert (tmp_path / made).exists()
    assert Recording.open(recordings / "two").n_samples == 60
