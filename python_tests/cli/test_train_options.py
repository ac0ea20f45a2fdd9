"""Every option of a training that makes sense on the command line is there, and does its work."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from python_tests.support.commands import TRAIN, Run
from repsim_fast.attacks import PGD
from repsim_fast.cli.app import loaded
from repsim_fast.cli.attack_setup import parse_varying_radius
from repsim_fast.cli.ramps import parse_varying_count
from repsim_fast.cli.train_options import MethodOptions
from repsim_fast.cli.train_setup import OWN_OPTIONS, method_options
from repsim_fast.models import build, load_checkpoint
from repsim_fast.training import Diagnostics, Evaluation, Optimisation, Ramp, methods, train

OPTIONS = {option.name: option for option in loaded("train").params}

# Where the option has another name, or the reason why there is none.
ELSEWHERE: dict[str, str] = {
    # Optimisation
    "regularisers": "--selectivity",
    # Evaluation
    "data": "--eval-data",
    "attack": "--eval-attack",
    "every": "--eval-every",
    "detector": "--detect-overfitting",
    "attacked": "of several sets by name, of which the command has one",
    "best": "of several sets by name, of which the command has one",
    # train
    "model": "--model",
    "train_data": "--data",
    "method_options": "--method-option",
    "optimisation": "its fields have options",
    "evaluation": "its fields have options",
    "saving": "--out says where",
    "on_epoch": "--diagnostics",
    "progress": "shown on a terminal",
}
# Options of attacks without one.
UNNAMED = {
    "bounds": "images lie in [0, 1]",
    "targeted": "the labels are those of the images",
    "autocast": "--autocast is around the attack, too",
    "seed": "--seed",
}
# Of diagnostics, where the option has another name, or the reason why there is none.
OF_DIAGNOSTICS = {
    "images": "--diagnostic-images",
    "labels": "--diagnostic-images",
    "eps": "--eps",
    "curvature": "--diagnostics",
    "layers": "--selectivity-layers",
    "batch_size": "memory alone, which few images do not need",
    "every": "--eval-every",
    "then": "a function, which the command has to show epochs",
    "seed": "--seed",
    "attack_options": "images of the command are bytes, inside of all bounds",
}
VALUES: dict[str, Any] = {
    "sigma": 0.5, "relative_step": 1.0, "noise": 1.5, "replays": 3, "weight": 0.3,
    "random_start": False, "restarts": 2, "select": "best", "early_stop": True, "loss": "dlr",
    "momentum": 0.5, "l2_order": "project_clip", "l1_fraction": 0.1, "model_mode": "train",
    "draws": 2, "execution": "fast", "beta": 2.0, "steps": 3, "step_size": 0.01, "norm": "l2",
    "eps": 0.2, "update_statistics": True, "outside": "keep",
    "direction": "clean||noisy", "classified": "noisy", "kappa": 0.3, "begin": 0.1, "end": 0.7,
}  # fmt: skip


def options_of_methods() -> list[tuple[str, str]]:
    """Each option of each method, its attack's among them."""
    found = []
    for name in methods.available():
        parameters = inspect.signature(getattr(methods, name.replace("-", "_"))).parameters
        own = [key for key, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
        if len(own) < len(parameters):
            # The divergence, of a whole batch.
            fixed = {"loss", "early_stop"} if name == "trades" else set()
            if "steps" not in own:  # one step, of a length and from a start of the method's
                fixed = {"steps", "step_size", "random_start"}
            if name in ("fgsm", "gradalign"):  # without a start to draw
                fixed.add("restarts")
            if name == "gradalign":  # of linf alone
                fixed.add("norm")
            attack = [*inspect.signature(PGD).parameters, "update_statistics"]
            own += [key for key in attack if key not in {*own, *fixed}]
        found += [(name, option) for option in own if option not in UNNAMED]
    return found


@pytest.mark.parametrize(("method", "option"), options_of_methods())
def test_options_of_methods(method: str, option: str) -> None:
    value = 0.5 if (method, option) == ("crown-ibp", "beta") else VALUES[option]  # at most 1
    given: dict[str, Any] = {"method": method}
    name = OWN_OPTIONS.get(option, option)
    if name in {field.name for field in fields(MethodOptions)}:
        given[name] = value
        assert name in OPTIONS
    else:
        text = str(value).lower() if isinstance(value, bool) else value
        given["method_option"] = [f"{option}={text}"]
    if option == "update_statistics":
        given["method_option"].append("model_mode=train")
    options = method_options(MethodOptions(**given), given.get("eps", 0.1))
    assert options[option] == value
    assert type(options[option]) is type(value)
    methods.build(method, **options)


@pytest.mark.parametrize(
    "name",
    [field.name for kind in (Optimisation, Evaluation) for field in fields(kind)]
    + list(inspect.signature(train).parameters),
)
def test_fields_and_arguments(name: str) -> None:
    if name in ELSEWHERE:
        flag = ELSEWHERE[name]
        assert not flag.startswith("--") or flag.split()[0] in {
            flag for option in OPTIONS.values() for flag in option.opts
        }
    else:
        assert name in OPTIONS


@pytest.mark.parametrize("name", list(inspect.signature(Diagnostics).parameters))
def test_arguments_of_diagnostics(name: str) -> None:
    flag = OF_DIAGNOSTICS.get(name, f"--{name}")
    known = {flag for option in OPTIONS.values() for flag in option.opts}
    assert not flag.startswith("--") or flag in known


def test_optimisation_has_the_defaults_of_python() -> None:
    for field in fields(Optimisation):
        if field.name not in ("regularisers",):
            assert OPTIONS[field.name].default == field.default, field.name


def test_init_by_a_file_of_torch_save(run: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "last.pt", tmp_path / "network.safetensors"
    torch.save({"model": build("resnet-8", num_classes=10, in_channels=1).state_dict()}, file)
    data = ("--data", "digits", "--limit", 40, "--test-limit", 20, "--epochs", 1, "--out", out)
    refused = run("train", "--init", file, *data)
    assert refused.exit_code == 1
    assert f"--model: name the network that {file} has weights of" in refused.output
    assert run("train", "--model", "resnet-8", "--init", file, *data).exit_code == 0
    assert load_checkpoint(out)[1]["init"] == str(file)
    torch.save({"model": torch.load(file)["model"], "ema": torch.load(file)["model"]}, file)
    one = f"{file}#ema"
    assert f"name the network that {one} has" in run("train", "--init", one, *data).output
    data = (*data[:-1], out := tmp_path / "other.safetensors")
    assert run("train", "--model", "resnet-8", "--init", one, *data).exit_code == 0
    assert load_checkpoint(out)[1]["init"] == one


def test_all_at_once(run: Run, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    assert run(*TRAIN, "--out", first).exit_code == 0
    out = tmp_path / "second.safetensors"
    command = (
        *TRAIN, "--init", first, "--method", "trades", "--norm", "l2", "--eps", 1.5,
        "--attack-steps", 2, "--step-size", 0.4, "--beta", 3, "--method-option", "momentum=0.5",
        "--schedule", "constant", "--optimizer", "adamw", "--lr", 0.001, "--momentum", 0.8,
        "--beta2", 0.99, "--weight-decay", 0.1, "--no-decay-norms-and-biases",
        "--max-grad-norm", 1, "--label-smoothing", 0.1, "--freeze-bn", "both",
        "--selectivity", -0.5, "--selectivity-layers", "*.relu?, relu", "--awp", 0.005,
        "--awp-warmup", 1, "--eval-norm", "l1", "--eval-steps", 2,
        "--detect-overfitting", "--out", out,
    )  # fmt: skip
    result = run(*command)
    assert result.exit_code == 0, result.output
    _, about = load_checkpoint(out)
    assert about["method_options"] == {
        "eps": 1.5, "norm": "l2", "steps": 2, "step_size": 0.4, "beta": 3.0, "momentum": 0.5,
    }  # fmt: skip
    assert about["schedule"] == "constant"
    assert about["init"] == str(first)
    assert about["attack"] == "PGD, 20 steps, eps 12 in l1, 30 test images"
    how = about["optimisation"]
    assert how["regularisers"] == ["SelectivityRegulariser(-0.5, layers=('*.relu?', 'relu'))"]
    record = json.loads((tmp_path / "second.training" / "log.jsonl").read_text())
    assert 0 < record["selectivity"] < 1
    assert f"  selectivity {record['selectivity']:.3f}" in result.output
    for name, value in {
        "optimizer": "adamw", "momentum": 0.8, "beta2": 0.99, "weight_decay": 0.1,
        "decay_norms_and_biases": False, "max_grad_norm": 1, "label_smoothing": 0.1,
        "freeze_batch_norm": "both", "awp": 0.005, "awp_warmup": 1,
    }.items():  # fmt: skip
        assert how[name] == value
    old, new = load_file(first), load_file(out)
    norms = [name for name in old if "bn" in name]
    assert norms
    assert all(torch.equal(old[name], new[name]) for name in norms)
    assert not torch.equal(old["fc.weight"], new["fc.weight"])
    result = run(*command, "--resume", "--rho", 0.05, "--beta", 4)
    assert "beta=3.0" in result.output
    assert "beta=4.0" in result.output


def test_a_checkpoint_names_the_network(run: Run, tmp_path: Path) -> None:
    first, out = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert run(*TRAIN, "--out", first).exit_code == 0
    command = [word for word in TRAIN if word not in ("--model", "resnet-8")]
    result = run(*command, "--init", first, "--optimizer", "sam", "--rho", 0.1, "--out", out)
    assert result.exit_code == 0, result.output
    assert load_checkpoint(out)[1]["name"] == "resnet-8"
    result = run(*command, "--model", "resnet-14", "--init", first, "--out", out)
    assert result.exit_code == 1
    assert "holds resnet-8 with num_classes=10" in result.output
    assert "resnet-14 with num_classes=10" in result.output


def test_beside_a_preset(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "robust.safetensors"
    command = (*TRAIN, "--preset", "rs-fgsm-wong2020", "--out", out)
    result = run(*command, "--weight-decay", 0.01, "--schedule", "constant", "--selectivity", 1)
    assert result.exit_code == 0, result.output
    _, about = load_checkpoint(out)
    assert about["schedule"] == "constant"
    assert about["batch_size"] == 128
    assert about["optimisation"]["weight_decay"] == 0.01
    assert about["optimisation"]["regularisers"] == ["SelectivityRegulariser(1.0, layers=None)"]
    for option in (
        ("--norm", "l2"), ("--beta", 1), ("--step-size", 0.1), ("--method-option", "noise=1"),
    ):  # fmt: skip
        result = run(*command, *option)
        assert result.exit_code == 1
        assert f"{option[0]} is the preset's" in result.output


def test_stop_on_overfitting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = "repsim_fast.training.OverfittingDetector.verdict"
    monkeypatch.setattr(verdict, lambda *_: "found by the test")
    options = ("--method", "fgsm", "--epochs", 3, "--out", tmp_path / "network.safetensors")
    result = run(*TRAIN, *options, "--stop-on-overfitting")
    assert result.exit_code == 0, result.output
    assert "epoch 1/3" in result.output
    assert "epoch 2/3" not in result.output


def test_restore_on_overfitting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network written is that of the epoch before, also of an average of weights."""
    said = iter([None, None, "found by the test", "again"])
    verdict = "repsim_fast.training.OverfittingDetector.verdict"
    monkeypatch.setattr(verdict, lambda *_: next(said))
    options = ("--method", "fgsm", "--epochs", 3, "--ema", 0.5, "--restore-on-overfitting")
    result = run(*TRAIN, *options, "--out", tmp_path / "network.safetensors")
    assert result.exit_code == 0, result.output
    assert "epoch 2: found by the test" in result.output
    assert "back to the weights of epoch 1" in result.output
    assert "epoch 3/3" not in result.output
    network, _ = load_checkpoint(tmp_path / "network.safetensors")
    (kept,) = tmp_path.glob("*/before-collapse.safetensors")
    held = load_file(kept)
    assert all(torch.equal(w, held[name]) for name, w in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--optimizer", "lion"], ["optimizer: expected one of 'sgd'", "'lion'"]),
        (["--beta2", "0.9"], ["beta2: an option of optimizer 'adam'"]),
        (["--rho", "0.1"], ["rho: an option of optimizer 'sam'"]),
        (["--momentum", "1"], ["momentum must lie in [0, 1), got 1.0"]),
        (["--weight-decay", "-1"], ["weight_decay must be non-negative"]),
        (["--max-grad-norm", "0"], ["max_grad_norm must be positive"]),
        (["--label-smoothing", "1"], ["label_smoothing must lie in [0, 1)"]),
        (["--label-smoothing", "0.1", "--method", "mart"], ["label_smoothing", "'mart'"]),
        (["--freeze-bn", "all"], ["freeze_batch_norm: expected one of 'statistics'"]),
        (["--awp", "-1"], ["awp must be non-negative"]),
        (["--schedule", "linear"], ["schedule must be a callable or one of", "'linear'"]),
        (["--norm", "l3"], ["--norm must be one of linf, l2, l1", "'l3'"]),
        (["--eval-norm", "l3"], ["--norm must be one of linf, l2, l1", "'l3'"]),
        (["--method", "free", "--norm", "l2"], ["--norm: method 'free' has linf only"]),
        (["--method", "gradalign", "--norm", "l2"], ["--norm: method 'gradalign' has linf only"]),
        (["--beta", "1"], ["--beta: method 'standard' has none"]),
        (["--method", "fgsm", "--step-size", "1"], ["--step-size: method 'fgsm' has none"]),
        (["--method-option", "noise"], ["--method-option: expected NAME=VALUE, got 'noise'"]),
        (["--method-option", "steps=3"], ["steps has an option of its own, --attack-steps"]),
        (["--method-option", "colour=3"], ["method 'standard'", "colour"]),
        (["--eps", "0..0.1"], ["--eps: method 'standard' has no radius to change, 0..0.1@1"]),
        (["--method", "free", "--eps", "0..0.1"], ["'free' carries its perturbation on"]),
        (
            ["--method", "n-fgsm", "--method-option", "noise=1..2@3"],
            ["--method-option: expected START..STOP@END", "'1..2@3'", "begin and end"],
        ),
        (["--eval-attack", "pgd,magic"], ["--eval-attack must be one of pgd", "'magic'"]),
        (["--eval-attack", "pgd,pgd"], ["--eval-attack: an attack is given twice"]),
        (["--eval-data", "digits"], ["--eval-data: expected NAME=SPEC, got 'digits'"]),
        (["--eval-data", "test=digits"], ["--eval-data: 'test' is the name of images of --data"]),
        (["--eval-data", "a/b=digits"], ["--eval-data: names must not be empty, have no slash"]),
        (["--eval-data", "a=nowhere"], ["no file or folder 'nowhere'"]),
        (["--eval-data", "a=digits", "--best", "b"], ["best must be one of", "'a'", "'b'"]),
        (["--attacked", "b", "--eval-attack", "pgd"], ["attacked must name sets", "'b'"]),
        (["--mix-share", "0.3"], ["--mix-share: there is no --mix"]),
        (["--mix", "digits", "--mix-share", "1"], ["--mix-share must lie in (0, 1), got 1"]),
        (["--selectivity", "nan"], ["alpha must be finite, got nan"]),
        (["--selectivity-layers", "relu"], ["--selectivity-layers: needs --selectivity"]),
        (["--diagnostics", "selectivity,speed"], ["--diagnostics must be some of", "'speed'"]),
        (["--diagnostics", "alignment", "--norm", "l2"], ["--diagnostics: alignment is of linf"]),
        (["--init", "nowhere.safetensors"], ["no checkpoint file nowhere.safetensors"]),
    ],
)
def test_bad_input(run: Run, tmp_path: Path, options: list[str], words: list[str]) -> None:
    out = tmp_path / "network.safetensors"
    result = run(*TRAIN, "--out", out, *options)
    assert result.exit_code == 1, result.output
    for word in words:
        assert word in result.output
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_twice_the_same_option_of_a_method(run: Run, tmp_path: Path) -> None:
    twice = ("--method-option", "noise=1", "--method-option", "noise=2")
    result = run(*TRAIN, "--method", "n-fgsm", *twice, "--out", tmp_path / "network.safetensors")
    assert "--method-option: noise is given twice" in result.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--eps", "0..2@0.5"),
        ("--eps", "-1..0.1"),
        ("--eps", "0.1..0"),
        ("--eps", "0..0.1@0.5-0.2"),
        ("--eps", "0..0.1@"),
        ("--eps", "0..far"),
        ("--attack-steps", "1..2.5"),
        ("--attack-steps", "0"),
        ("--step-size", "1...2"),
        ("--beta", "much"),
    ],
)
def test_numbers_that_are_no_ramps(run: Run, tmp_path: Path, option: str, value: str) -> None:
    given = ("--method", "trades", option, value)
    result = run(*TRAIN, *given, "--out", tmp_path / "network.safetensors")
    assert result.exit_code == 2, result.output
    assert f"'{option}'" in result.output
    assert "expected" in result.output


def test_ramps_are_those_of_python() -> None:
    radius, count = parse_varying_radius("0..8/255@0.3"), parse_varying_count("1..10@0.2-0.6")
    assert radius == Ramp(0, 8 / 255, end=0.3)
    assert count == Ramp(1, 10, begin=0.2, end=0.6, whole=True)
    given = MethodOptions(
        method="trades", attack_steps=count, beta=Ramp(0, 6),
        method_option=["draws=1..2", "l1_fraction=0.1..0.2@1/2"],
    )  # fmt: skip
    assert method_options(given, radius) == {
        "eps": radius, "steps": count, "beta": Ramp(0, 6), "draws": Ramp(1, 2, whole=True),
        "l1_fraction": Ramp(0.1, 0.2, end=0.5),
    }  # fmt: skip


def test_a_ramp_trains_as_in_python(run: Run, tmp_path: Path) -> None:
    weights = []
    for name, eps in (("ramp", "0..0.2@1/2"), ("late", "0.2..0.2"), ("fixed", "0.2")):
        out = tmp_path / f"{name}.safetensors"
        result = run(*TRAIN, "--method", "pgd", "--eps", eps, "--out", out)
        assert result.exit_code == 0, result.output
        weights.append(load_file(out)["fc.weight"])
        about = load_checkpoint(out)[1]
        assert "eps 0.2, 30 test images" in about["attack"]
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(weights[1], weights[2])
    assert (
        load_checkpoint(tmp_path / "ramp.safetensors")[1]["method_options"]["eps"] == "0..0.2@0.5"
    )


def test_diagnostics_are_of_the_evaluated_epochs(run: Run, tmp_path: Path) -> None:
    result = run(
        *TRAIN, "--epochs", 3, "--eval-every", 2, "--diagnostics", "selectivity",
        "--diagnostic-images", 20, "--out", tmp_path / "network.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "network.training" / "log.jsonl").read_text().splitlines()
    measured = ["selectivity" in json.loads(line) for line in lines]
    evaluated = [json.loads(line)["clean_accuracy"] is not None for line in lines]
    assert measured == evaluated == [False, True, True]


def test_several_sets_attacks_and_diagnostics(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    command = (
        *TRAIN, "--eval-data", "again=digits", "--eval-attack", "fgsm,pgd", "--eps", 0.1,
        "--attacked", "again", "--best", "again/pgd", "--diagnostic-images", 20,
        "--diagnostics", "selectivity,alignment,curvature", "--out", out,
    )  # fmt: skip
    result = run(*command)
    assert result.exit_code == 0, result.output
    names = {
        "validation", "again", "again/fgsm", "again/pgd", "selectivity", "gradient_cosine",
        "perturbation_cosine", "input_curvature",
    }  # fmt: skip
    record = json.loads((tmp_path / "network.training" / "log.jsonl").read_text())
    assert names <= record.keys()
    for name in names:
        assert f"  {name} {record[name]:.3f}" in result.output
    accuracies = load_checkpoint(out)[1]["accuracies"]
    assert list(accuracies) == ["test", "again"]
    assert list(accuracies["test"]) == ["clean", "fgsm", "pgd"]
    assert accuracies["test"] == accuracies["again"]
    assert record["again"] == accuracies["again"]["clean"]


@pytest.fixture
def class_by_class(tmp_path: Path) -> Path:
    """Images in two class folders without splits."""
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for number in range(20):
            file = tmp_path / "images" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    return tmp_path / "images"


def test_diagnostics_are_of_all_classes(run: Run, tmp_path: Path, class_by_class: Path) -> None:
    result = run(
        *TRAIN, "--data", f"folder:{class_by_class}", "--diagnostics", "selectivity",
        "--diagnostic-images", 10, "--out", tmp_path / "network.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_test_images_that_are_trained_on_are_said(
    run: Run, tmp_path: Path, class_by_class: Path
) -> None:
    said = "test images are among those trained on"
    out = tmp_path / "network.safetensors"
    without = run(*TRAIN, "--data", f"folder:{class_by_class}", "--out", out)
    assert f"of 30 {said}" in without.output
    assert said not in run(*TRAIN, "--out", out).output


def test_a_second_stream(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    result = run(*TRAIN, "--mix", "digits", "--mix-share", 0.25, "--out", out)
    assert result.exit_code == 0, result.output
    described = "60 images 1x8x8, 10 classes; a share of 0.25 from digits train: 1198 images"
    assert described in result.output
    assert described in load_checkpoint(out)[1]["data"]


def test_a_second_stream_of_other_classes(run: Run, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / split / label / "image.png")
    out = tmp_path / "network.safetensors"
    for option in (("--mix", f"folder:{tmp_path}"), ("--eval-data", f"a=folder:{tmp_path}")):
        result = run(*TRAIN, *option, "--out", out)
        assert result.exit_code == 1
        assert "has other classes than --data: class 0 is 'a' rather than '0'" in result.output


def test_a_preset_without_an_attack_has_no_radius_to_change(run: Run, tmp_path: Path) -> None:
    preset = ("--preset", "standard-leavitt2020", "--eps", "0..0.1@0.5")
    result = run(*TRAIN, *preset, "--out", tmp_path / "network.safetensors")
    assert result.exit_code == 1
    assert "--eps: the training has no radius to change, 0..0.1@0.5" in result.output
