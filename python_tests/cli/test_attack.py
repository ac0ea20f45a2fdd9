from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from python_tests.support.commands import Run
from python_tests.support.image_files import encode, picture
from repsim_fast import data, models
from repsim_fast.training import evaluate

FEW = ("--data", "digits", "--limit", "40", "--threads", "1")


@pytest.mark.parametrize(
    "options",
    [
        ("--attack", "pgd", "--steps", "3", "--restarts", "2", "--eps", "0.1"),
        ("--steps", "4", "--eps", "1/10", "--fast"),
        ("--attack", "apgd-t", "--norm", "l1", "--steps", "3", "--eps", "2"),
        ("--attack", "fgsm", "--norm", "l2"),
    ],
    ids=["pgd", "apgd", "apgd-t", "fgsm"],
)
def test_accuracies_and_saved_images(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "attacked.safetensors"
    result = run("attack", checkpoints["standard"], *FEW, *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert "95 % interval" in result.output
    with safe_open(out, framework="pt") as file:
        about = json.loads(file.metadata()["repsim_fast_attack"])
        images, labels, robust = (
            file.get_tensor(k).clone() for k in ("images", "labels", "robust")
        )
    assert images.shape == (40, 1, 8, 8)
    assert about["robust_accuracy"] == robust.double().mean().item() <= about["clean_accuracy"]
    clean = data.load("digits", "test", limit=40, seed=0).tensors()[0]
    order = {"l1": 1.0, "l2": 2.0}.get(about["norm"], torch.inf)
    lengths = torch.linalg.vector_norm((images - clean).flatten(1), order, dim=1)
    assert 0 < lengths.max() <= about["eps"] * (1 + 1e-5)
    network, _ = models.load_checkpoint(checkpoints["standard"])
    again = evaluate(network, (images, labels)).clean
    assert again >= about["robust_accuracy"]  # which counts those also right as they are


def test_several_attacks(run: Run, checkpoints: dict[str, Path]) -> None:
    def lines(attack: str) -> dict[str, str]:
        result = run("attack", checkpoints["pgd"], *FEW, "--eps", "0.1", "--attack", attack)
        assert result.exit_code == 0, result.output
        found = [line.split() for line in result.output.splitlines() if " to " in line]
        return {words[0]: words[-5] for words in found}

    several, one = lines("fgsm,pgd"), lines("pgd")
    assert list(several) == ["as", "fgsm", "pgd"]
    assert several["pgd"] == one["attacked"]
    assert several["as"] == one["as"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attack", "pgd,magic"), "--attack must be one of pgd"),
        (("--attack", "pgd,pgd"), "--attack: an attack is given twice"),
        (("--attack", "pgd,fgsm", "--out", "a.safetensors"), "--out: holds the images of one"),
        (("--attack", "magic"), "--attack must be one of pgd"),
        (("--norm", "l3"), "--norm must be one of linf"),
        (("--attack", "fgsm", "--steps", "3"), "fixed number of steps"),
        (("--attack", "autoattack", "--restarts", "3"), "--restarts: only for"),
        (("--out", "attacked.pt"), "ends in .safetensors"),
    ],
)
def test_bad_options(
    run: Run, checkpoints: dict[str, Path], options: tuple[str, ...], message: str
) -> None:
    result = run("attack", checkpoints["standard"], *FEW, *options)
    assert result.exit_code == 1
    assert message in result.output


def test_bad_radius_and_missing_checkpoint(run: Run, tmp_path: Path) -> None:
    assert "above 0" in run("attack", "a.safetensors", *FEW, "--eps", "0").output
    result = run("attack", tmp_path / "none.safetensors", *FEW)
    assert result.exit_code == 1
    assert "no checkpoint file" in result.output


def test_help_shows_examples(run: Run) -> None:
    assert "repsim-fast attack" in run("attack", "--help").output.partition("Example")[2]
    assert "attack" in run("--help").output


def test_a_place_that_cannot_be_written_is_found_before_the_attack(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    for out in (tmp_path / "file" / "a.safetensors", tmp_path / "folder.safetensors"):
        result = run("attack", checkpoints["standard"], *FEW, "--out", out)
        assert result.exit_code == 1
        assert "cannot write" in result.output
        assert "attacking" not in result.output


@pytest.mark.parametrize("command", [("attack", "--attack", "fgsm"), ("certify", "--sigma", "0.1")])
def test_labels_are_numbered_as_in_the_checkpoint(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A folder of some of its classes numbers them from 0; the network does not."""
    for name, count in (("bee", 4), ("cat", 2)):
        (tmp_path / "part/test" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "part/test" / name / f"{number}.png").write_bytes(encode(picture(90, 8, 8)))
    network = models.build("resnet-8", num_classes=3, in_channels=3, seed=0)
    network.fc.bias.data += torch.tensor([0.0, 1e3, 0.0])  # all are bees
    out = tmp_path / "network.safetensors"
    about: dict[str, Any] = {"name": "resnet-8", "num_classes": 3, "in_channels": 3}
    models.save_checkpoint(out, network, **about, classes=["ant", "bee", "cat"])
    few = ("--n", 50, "--n0", 10, "--radii", "0") if command[0] == "certify" else ()
    whole = (*command, out, "--data", f"folder:{tmp_path / 'part'}", "--threads", 1, *few)

    found = run(*whole)
    assert found.exit_code == 0, found.output
    assert "labels of part are numbered as in" in found.output
    assert "0.667" in found.output

    (tmp_path / "part/test/bee").rename(tmp_path / "part/test/wasp")
    other = run(*whole)
    assert other.exit_code == 0, other.output
    assert "part has other classes than" in other.output
    assert "class 0 is 'cat' rather than 'ant'" in other.output
