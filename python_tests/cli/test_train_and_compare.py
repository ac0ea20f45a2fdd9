from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from python_tests.support.commands import TRAIN, Run
from repsim_fast import SimilarityResult
from repsim_fast.cli.attack_setup import parse_radius
from repsim_fast.cli.models import short_names
from repsim_fast.models import load_checkpoint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        ("0.5/255", 0.5 / 255),
        ("0.1", 0.1),
        (" 2 / 255 ", 2 / 255),
        ("1", 1.0),
        ("3e-2", 0.03),
    ],
)
def test_eps_is_a_number_or_a_fraction(text: str, value: float) -> None:
    assert parse_radius(text) == value


def test_checkpoint_says_what_it_is(checkpoints: dict[str, Path]) -> None:
    model, about = load_checkpoint(checkpoints["pgd"])
    assert not model.training
    assert about["method"] == "pgd"
    assert about["method_options"] == {"eps": 0.2, "steps": 2}
    assert about["data"].startswith("digits train: 60 images 1x8x8")
    assert 0 <= about["robust_accuracy"] <= about["clean_accuracy"] <= 1
    assert about["classes"] == [str(digit) for digit in range(10)]


def test_training_logs_its_epochs(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "network.safetensors"
    result = run(*TRAIN, "--epochs", 2, "--seed", 3, "--out", out)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "new" / "network.training" / "log.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1]
    for number, epoch in enumerate(epochs, 1):
        assert f"epoch {number}/2  loss {epoch['loss']:.3f}" in result.output
    assert "clean accuracy" in result.output
    assert "robust accuracy" in result.output


def test_epochs_are_evaluated_on_held_out_images(run: Run, tmp_path: Path) -> None:
    for options, share, name in (((), 0.1, "held out"), (("--validation", 0), 0.0, "test")):
        out = tmp_path / f"{share}.safetensors"
        result = run(*TRAIN, *options, "--out", out)
        assert result.exit_code == 0, result.output
        (line,) = [line for line in result.output.splitlines() if line.startswith("epoch 1/")]
        assert f"  {name} 0." in line or f"  {name} 1." in line
        assert load_checkpoint(out)[1]["validation"] == share
    result = run(*TRAIN, "--validation", 1, "--out", tmp_path / "none.safetensors")
    assert result.exit_code == 1
    assert "validation must be a share in [0, 1), got 1.0" in result.output


def test_same_seed_same_network(run: Run, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        # Convolutions on a GPU do not always add in the same order.
        command = [*TRAIN, "--device", "cpu", "--seed", seed]
        assert run(*command, "--out", tmp_path / f"{name}.safetensors").exit_code == 0
        model, _ = load_checkpoint(tmp_path / f"{name}.safetensors")
        weights.append(model.state_dict()["fc.weight"].numpy())
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_average_of_the_weights(run: Run, tmp_path: Path) -> None:
    heads = {}
    # A hundred images are one step, and the first step's decay is 2/11 at most.
    for name, options in (("plain", []), ("fast", ["--ema", "0.1"]), ("slow", ["--ema", "0.99"])):
        out = tmp_path / f"{name}.safetensors"
        result = run(*TRAIN, "--device", "cpu", *options, "--out", out)
        assert result.exit_code == 0, result.output
        model, about = load_checkpoint(out)
        assert about["ema"] == (float(options[1]) if options else None)
        heads[name] = model.state_dict()["fc.weight"].numpy()
    assert not np.array_equal(heads["plain"], heads["fast"])
    assert not np.array_equal(heads["fast"], heads["slow"])
    result = run(*TRAIN, "--ema", "0.9", "--resume", "--out", tmp_path / "slow.safetensors")
    assert result.exit_code == 1
    assert "ema: 0.99 there, 0.9 here" in result.output
    result = run(
        "compare", tmp_path / "slow.safetensors", "--data", "digits", "--limit", 40, "--layers",
        "fc", "--threads", 1, "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 epochs, ema 0.99" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_compare_writes_everything(run: Run, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    result = run(
        "compare", checkpoints["standard"], checkpoints["pgd"], "--data", "digits", "--limit", 96,
        "--batch-size", 32, "--layers", "stage*.relu2", "--layers", "fc", "--threads", 1,
        "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = SimilarityResult.load(tmp_path / "result.safetensors")
    assert found.models == ("standard", "pgd")
    assert found.layers[0] == ("stage1.0.relu2", "stage2.0.relu2", "stage3.0.relu2", "fc")
    assert (found.n_samples, found.n_batches) == (96, 3)
    table = pd.read_csv(tmp_path / "similarities.csv")
    assert len(table) == 8 * 8
    assert np.allclose(table["value"], found.value.ravel())
    (path,) = tmp_path.glob("*.png")
    with Image.open(path) as picture:
        assert min(picture.size) > 200
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    for word in (str(checkpoints["pgd"]), "pgd, eps 0.2, steps 2, 1 epochs", "PGD, 20 steps"):
        assert word in report
    for grid in found.grids():
        assert f"{grid.mean_off_diagonal():.3f}" in result.output


PGD = ["--attack", "pgd", "--eps", "51/255", "--attack-steps", 2]


def test_attack_changes_what_the_models_see(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    values = {}
    for name, attack in (("clean", []), ("attacked", PGD)):
        result = run(
            "compare", checkpoints["standard"], "--data", "digits", "--limit", 64, "--batch-size",
            32, "--threads", 1, "--out", tmp_path / name, *attack,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        values[name] = SimilarityResult.load(tmp_path / name / "result.safetensors").value
    assert np.abs(values["clean"] - values["attacked"]).max() > 0.01
    report = (tmp_path / "attacked" / "report.html").read_text(encoding="utf-8")
    assert "its own adversarial images" in report


COMPARE = ["compare", "resnet-8", "--data", "digits", "--limit", 40, "--threads", 1]
TWO_LAYERS = ["--layers", "conv1", "--layers", "fc"]


def test_compare_without_figures(run: Run, tmp_path: Path) -> None:
    result = run(*COMPARE, *TWO_LAYERS, "--no-figures", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert not list(tmp_path.glob("*.png"))
    assert "PNG" not in result.output
    assert (tmp_path / "report.html").is_file()


def test_errors_and_chance_levels_of_other_measures(run: Run, tmp_path: Path) -> None:
    arguments = [*COMPARE, *TWO_LAYERS, "--measure", "procrustes_distance", "--out", tmp_path]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    found = SimilarityResult.load(tmp_path / "result.safetensors")
    assert len(found.group_samples) == 10
    assert found.standard_error[0, 1] > 0
    assert f"{found.between(0, 0).figures()[0].chance:.3f}" in result.output
    assert "chance level: mean over 10 random orders of the samples" in result.output
    result = run(*arguments, "--jackknife", 4, "--permutations", 3, "--minus-chance")
    assert result.exit_code == 0, result.output
    found = SimilarityResult.load(tmp_path / "result.safetensors")
    assert len(found.group_samples) == 4
    assert "mean over 3 random orders" in found.chance_note
    assert (tmp_path / "heatmaps-minus-chance.png").is_file()
    result = run(*arguments, "--jackknife", 0, "--permutations", 0)
    assert "no standard errors: none were asked for; --jackknife 10 gives them" in result.output
    assert "no chance level: none was asked for; --permutations 10 gives it" in result.output
    result = run(*arguments, "--permutations", 0, "--minus-chance")
    assert result.exit_code == 1
    assert "--minus-chance needs chance levels" in result.output
    result = run(*arguments, "--measure", "magnitude_difference", "--minus-chance")
    assert result.exit_code == 1
    assert "--minus-chance: no chance level (measure: magnitude_difference does" in result.output
    assert SimilarityResult.load(tmp_path / "result.safetensors").measure == "magnitude_difference"


@pytest.mark.filterwarnings("default::UserWarning:repsim_fast")
def test_notes_are_below_the_figures(run: Run, tmp_path: Path) -> None:
    result = run(*COMPARE, "--layers", "fc", "--measure", "cca", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    below = result.stdout.partition("mean of all pairs")[2]
    assert "note: cca: p = 10 and q = 10 independent features of n = 40 samples" in below


def test_forms_of_features(run: Run, tmp_path: Path) -> None:
    def compare(name: str, *options: object) -> SimilarityResult:
        result = run(*COMPARE, "--layers", "conv1", *options, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        return SimilarityResult.load(tmp_path / name / "result.safetensors")

    cells = {
        name: compare(name, "--layers", "fc", *options).value[0, 1]
        for name, options in {
            "flatten": [],
            "pool": ["--maps", "pool"],
            "channels": ["--maps", "pool", "--channels", "last"],
            "biased": ["--estimator", "biased"],
            "in order": ["--no-shuffle"],
        }.items()
    }
    assert len(set(cells.values())) == 5
    positions = compare("positions", "--maps", "positions", "--calls", "first")
    assert positions.n_samples == 40 * 64
    assert positions.settings["calls"] == "first"
    for option, value in (("--maps", "tape"), ("--channels", "middle"), ("--calls", "none")):
        result = run(*COMPARE, option, value, "--out", tmp_path / "none")
        assert result.exit_code == 1
        assert f"{option[2:]} must be 'f" in result.output or "calls must be" in result.output
        assert repr(value) in result.output


def test_low_precision_where_asked_for(run: Run, tmp_path: Path) -> None:
    network = tmp_path / "network.safetensors"
    assert run(*TRAIN, "--autocast", "bfloat16", "--out", network).exit_code == 0
    _, about = load_checkpoint(network)
    assert about["autocast"] == "bfloat16"
    values = {}
    for name, options in {
        "plain": [],
        "mixed": ["--autocast", "bfloat16"],
        "products": ["--precision", "bfloat16"],
    }.items():
        result = run(
            "compare", network, "--data", "digits", "--limit", 40, "--threads", 1, *options,
            "--out", tmp_path / name,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        found = SimilarityResult.load(tmp_path / name / "result.safetensors")
        assert found.settings["autocast"] == ("bfloat16" if name == "mixed" else None)
        assert found.settings["precision"] == ("bfloat16" if name == "products" else "float32")
        values[name] = found.value
    assert 1e-5 < np.abs(values["mixed"] - values["plain"]).max() < 0.1
    assert np.abs(values["products"] - values["plain"]).max() < 1e-2


def test_names_of_models_are_untrained_networks_that_differ(run: Run, tmp_path: Path) -> None:
    result = run(
        "compare", "resnet-8", "resnet-8", "--data", "digits", "--limit", 40, "--threads", 1,
        "--layers", "fc", "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "resnet-8 is untrained: its weights are random (seed 1)" in result.output
    found = SimilarityResult.load(tmp_path / "result.safetensors")
    assert found.models == ("resnet-8", "resnet-8 (2)")
    assert found.value[0, 1] < 0.999


def test_one_batch_is_told_that_smaller_ones_give_errors(run: Run, tmp_path: Path) -> None:
    result = run(
        "compare", "resnet-8", "--data", "digits", "--limit", 40, "--threads", 1,
        "--layers", "fc", "--batch-size", 40, "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "one batch; several, by a smaller --batch-size, give standard errors" in result.output


def test_torchvision_by_name(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is optional", exc_type=ImportError)
    result = run(
        "compare", "torchvision:squeezenet1_1", "--data", "digits", "--limit", 8, "--out", tmp_path
    )
    assert result.exit_code == 1
    assert "takes 3 channels, got in_channels=1" in result.output


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["a.safetensors", "b.safetensors"], ["a", "b"]),
        (["x/last.safetensors", "y/last.safetensors"], ["x/last", "y/last"]),
        (["o/x/last.safetensors", "p/x/last.safetensors", "b"], ["o/x/last", "p/x/last", "b"]),
        (["wrn-10-2", "wrn-10-2", "wrn-10-2"], ["wrn-10-2", "wrn-10-2 (2)", "wrn-10-2 (3)"]),
        (["torchvision:resnet18"], ["torchvision:resnet18"]),
        (["last.safetensors", "x/last.safetensors"], ["last", "x/last"]),
    ],
)
def test_short_names_tell_models_apart(arguments: list[str], names: list[str]) -> None:
    assert short_names(arguments) == names
