"""Networks recorded, compared and added to one another on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from python_tests.support.commands import Run
from repsim_fast import Recording, SimilarityResult
from repsim_fast.cli.zoo import expand
from repsim_fast.report import load_folder

FEW = ("--data", "digits", "--limit", 60, "--threads", 1, "--batch-size", 15, "--device", "cpu")


@pytest.fixture
def networks(tmp_path: Path, checkpoints: dict[str, Path]) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, path in checkpoints.items():
        shutil.copy(path, folder / f"{name}.safetensors")
    return folder


def test_recordings_stand_for_networks(run: Run, tmp_path: Path, networks: Path) -> None:
    made = run("record", networks, "--out", tmp_path / "rec", *FEW)
    assert made.exit_code == 0, made.output
    assert "samples/s" in made.output
    assert run("compare", networks, *FEW, "--out", tmp_path / "want").exit_code == 0
    want = load_folder(tmp_path / "want")
    assert want.models == ("pgd", "standard")
    calls = {
        "alone": ["compare", tmp_path / "rec"],
        "checked": ["compare", tmp_path / "rec" / "pgd", tmp_path / "rec" / "standard", *FEW],
        "mixed": ["compare", networks / "pgd.safetensors", tmp_path / "rec" / "standard", *FEW],
        "pattern": ["compare", str(tmp_path / "rec" / "*")],
    }
    for name, arguments in calls.items():
        done = run(*arguments, "--threads", 1, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        got = load_folder(tmp_path / name)
        assert got.models == want.models
        np.testing.assert_array_equal(got.value, want.value)
        np.testing.assert_array_equal(got.standard_error, want.standard_error)


def test_extend(run: Run, tmp_path: Path, networks: Path) -> None:
    assert run("record", networks, "--out", tmp_path / "rec", *FEW).exit_code == 0
    pgd, standard = tmp_path / "rec" / "pgd", tmp_path / "rec" / "standard"
    assert run("compare", pgd, "--out", tmp_path / "one").exit_code == 0
    done = run("extend", tmp_path / "one", standard, "--out", tmp_path / "two")
    assert done.exit_code == 0, done.output
    two = load_folder(tmp_path / "two")
    want = SimilarityResult.from_recordings([pgd, standard])
    np.testing.assert_array_equal(two.value, want.value)
    again = run("extend", tmp_path / "two" / "result.safetensors", pgd, "--out", tmp_path / "3")
    assert again.exit_code == 1
    assert "name: expected one that is not among" in again.output


def test_extend_several_measures(run: Run, tmp_path: Path, networks: Path) -> None:
    options = ("--keep", "features", "--layers", "fc")
    assert run("record", networks, *options, "--out", tmp_path / "rec", *FEW).exit_code == 0
    pgd, standard = tmp_path / "rec" / "pgd", tmp_path / "rec" / "standard"
    measures = ("--measure", "cka,rsa", "--jackknife", 0, "--permutations", 0)
    assert run("compare", pgd, *measures, "--out", tmp_path / "one").exit_code == 0
    done = run("extend", tmp_path / "one", standard, "--out", tmp_path / "two")
    assert done.exit_code == 0, done.output
    assert "which has a switch of measures" in done.output
    assert run("compare", pgd, standard, *measures, "--out", tmp_path / "want").exit_code == 0
    for measure in ("cka", "rsa"):
        got, want = (load_folder(tmp_path / name / measure) for name in ("two", "want"))
        assert got.models == want.models == ("pgd", "standard")
        np.testing.assert_allclose(got.value, want.value, atol=1e-6)


@pytest.mark.filterwarnings("ignore:recordings of 'pgd' are stored in float16")
def test_options_reach_the_recording(run: Run, tmp_path: Path, networks: Path) -> None:
    options = ["--keep", "features", "--stored", "float16", "--maps", "pool", "--layers", "stage*"]
    options += ["--attack", "pgd", "--attack-steps", "1", "--every", "2", "--no-shuffle"]
    done = run("record", networks / "pgd.safetensors", *options, "--out", tmp_path / "rec", *FEW)
    assert done.exit_code == 0, done.output
    assert "relative error of layers up to" in done.output
    made = Recording.open(tmp_path / "rec" / "pgd")
    assert (made.keep, made.stored, made.settings["maps"]) == ("features", "float16", "pool")
    assert all(layer.startswith("stage") for layer in made.layers)
    assert "steps=1" in made.settings["inputs"]["pgd"]
    assert made.settings["order"] == "as given"
    compared = run(
        "compare", tmp_path / "rec", "--measure", "procrustes_distance", "--jackknife", 2,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert compared.exit_code == 0, compared.output
    assert load_folder(tmp_path / "out").measure == "procrustes_distance"


def test_those_that_fail_are_named_and_the_others_kept(
    run: Run, tmp_path: Path, networks: Path
) -> None:
    (networks / "bad.safetensors").write_bytes(b"no checkpoint")
    done = run("record", networks, "--out", tmp_path / "rec", *FEW)
    assert done.exit_code == 1
    assert "MODEL: 1 of 3 failed: bad; the others are recorded" in done.output
    assert Recording.open(tmp_path / "rec" / "standard").n_samples == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "{runs}/pgd.safetensors"], "--data is missing, on which to run"),
        (["compare", "{runs}/none*"], "MODEL: expected checkpoints"),
        (["compare", "{empty}"], "MODEL: expected checkpoints"),
        (["compare", "{rec}", "--seed", "1", *FEW], "differ in"),
        (
            ["compare", "{rec}", "--maps", "pool"],
            "--maps: expected 'flatten', with which recording",
        ),
        (["record", "{runs}/pgd.safetensors", *FEW, "--out", ""], "expected the path of a folder"),
        (["compare", "{rec}", "--out", ""], "expected the path of a folder"),
        (["record", "{rec}", *FEW], "MODEL: expected networks, got the recording"),
        (["record", "{runs}/pgd.safetensors", "--keep", "all", *FEW], "keep: expected one of"),
        (["extend", "{rec}/pgd", "{rec}/pgd"], "there is no manifest.json in"),
    ],
    ids=range(10),
)
def test_bad_input(
    run: Run,
    tmp_path: Path,
    networks: Path,
    arguments: list[object],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    made = run("record", networks / "pgd.safetensors", "--out", tmp_path / "rec", *FEW)
    assert made.exit_code == 0
    places = {"runs": networks, "rec": tmp_path / "rec", "empty": tmp_path / "empty"}
    filled = [str(a).format(**places) for a in arguments]
    done = run(*filled, *(() if "--out" in filled else ("--out", tmp_path / "out")))
    assert done.exit_code == (2 if "--out" in filled else 1)
    assert message in " ".join(done.output.split())


def test_names_with_brackets_are_no_patterns(tmp_path: Path) -> None:
    file = tmp_path / "net[1].safetensors"
    file.write_bytes(b"")
    assert expand([str(file), "wrn-10-2"]) == [str(file), "wrn-10-2"]
