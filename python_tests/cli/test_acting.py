"""Options that nothing would follow are refused by name, whatever options there are."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from python_tests.cli.test_record import FEW
from python_tests.support.commands import Run
from repsim_fast.cli.app import loaded
from repsim_fast.cli.compare import compare
from repsim_fast.cli.options import On
from repsim_fast.report import load_folder

# Of options whose kind of value does not tell one that they take.
VALUES = {"autocast": "bfloat16", "attack": "pgd", "mean": "0.5", "std": "0.5"}
# Options of an attack, which is refused.
BESIDE = {"norm": ("l2",), "eps": ("0.1",), "attack_steps": ("3",)}


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]
) -> dict[str, Path]:
    from python_tests.support.commands import run_command

    folder = tmp_path_factory.mktemp("recorded")
    few = (*FEW, "--layers", "fc")
    for name, options in (("clean", ()), ("attacked", ("--attack", "fgsm", "--eps", "0.1"))):
        made = run_command(
            "record", checkpoints["pgd"], *few, *options, "--out", folder / name
        )  # fmt: skip
        assert made.exit_code == 0, made.output
    return {name: folder / name / "pgd" for name in ("clean", "attacked")}


def _options() -> list[tuple[str, str, str]]:
    """Name, option and a value other than the default, of all options of networks and data."""
    declared = get_type_hints(compare, include_extras=True)
    found = []
    for parameter in loaded("compare").params:
        name = str(parameter.name)
        on = [mark for mark in getattr(declared.get(name), "__metadata__", ()) if mark in list(On)]
        if On.RESULTS in on or name not in declared:
            continue
        kind = str(get_args(declared[name])[0])
        value = VALUES.get(name, "25" if "int" in kind else "other")
        option = (*parameter.secondary_opts, *parameter.opts)[0]
        found.append((name, option, "" if getattr(parameter, "is_flag", False) else value))
    return found


@pytest.mark.parametrize(("name", "option", "value"), _options())
def test_beside_recordings_alone(
    run: Run, tmp_path: Path, recorded: dict[str, Path], name: str, option: str, value: str
) -> None:
    given = [option, *BESIDE.get(name, (value,) if value else ())]
    attack = ["--attack", "pgd"] if name in BESIDE else []
    done = run("compare", recorded["clean"], *attack, *given, "--out", tmp_path)
    assert done.exit_code == 1
    assert f"error: {'--attack' if attack else option}: " in done.output
    assert not (tmp_path / "result.safetensors").exists()


def test_all_options_are_there() -> None:
    names = {name for name, _, _ in _options()}
    assert {"attack", "limit", "split", "size", "mean", "layers", "batch_size", "every"} <= names


def test_what_recordings_were_made_with(
    run: Run, tmp_path: Path, recorded: dict[str, Path]
) -> None:
    same = ("--maps", "flatten", "--batch-size", 15, "--shuffle", "--layers", "fc", "--seed", 0)
    done = run("compare", recorded["clean"], *same, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    few = run("compare", recorded["clean"], "--data", "digits", "--limit", 30, "--out", tmp_path)
    assert few.exit_code == 1
    assert "30 samples" in few.output
    attacked = run("compare", recorded["clean"], *FEW, "--attack", "fgsm", "--out", tmp_path)
    assert attacked.exit_code == 1
    assert "--attack: acts on networks as they are run, and these are recordings" in attacked.output


def test_an_attack_is_for_all(
    run: Run, tmp_path: Path, recorded: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    few = (checkpoints["standard"], *FEW, "--layers", "fc", "--out")
    attack = ("--attack", "fgsm", "--eps", "0.1")
    for which, options in (("clean", attack), ("attacked", ()), ("attacked", attack[:2])):
        done = run("compare", recorded[which], *options, *few, tmp_path / "no")
        assert done.exit_code == 1
        assert "error: --attack: expected " in done.output
        assert "with which recording 'pgd' was made" in done.output
    done = run("compare", recorded["attacked"], *attack, *few, tmp_path / "got")
    assert done.exit_code == 0, done.output
    want = run("compare", checkpoints["pgd"], *attack, *few, tmp_path / "want")
    assert want.exit_code == 0, want.output
    values = [load_folder(tmp_path / name).value for name in ("got", "want")]
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("command", ["compare", "record"])
@pytest.mark.parametrize(
    "options", [("--eps", "0.3"), ("--norm", "l2"), ("--attack-steps", "3")], ids=range(3)
)
def test_options_of_no_attack(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path], command: str, options: tuple[str, str]
) -> None:
    done = run(command, checkpoints["pgd"], *FEW, *options, "--out", tmp_path)
    assert done.exit_code == 1
    assert f"{options[0]}: acts on an attack, and there is none" in done.output


@pytest.mark.parametrize("attack", ["jpeg", "corruption:fog"])
def test_attacks_without_a_norm(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path], attack: str
) -> None:
    norm = ("--norm", "l2")
    done = run("compare", checkpoints["pgd"], *FEW, "--attack", attack, *norm, "--out", tmp_path)
    assert done.exit_code == 1
    assert "--norm" in done.output
