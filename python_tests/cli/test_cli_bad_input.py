"""Each mistake ends with a line that names it and what was wanted, before any work is done."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from python_tests.support.commands import TRAIN, Run
from repsim_fast import models

COMPARE = ["compare", "resnet-8", "--data", "digits", "--limit", "40", "--threads", "1"]


def assert_refused(result, *words: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    if code == 1:
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], ["no file or folder 'nowhere'", "'digits'", "cifar10:PATH"]),
        (["--model", "resnet-50x"], ["unknown model 'resnet-50x'", "preactresnet-18"]),
        (["--model", "resnet-9"], ["D must be 8, 14, 20"]),
        (["--method", "magic"], ["--method", "standard, pgd", "'magic'"]),
        (["--method", "standard", "--attack-steps", "3"], ["--attack-steps", "'standard'"]),
        (["--device", "cuda:99"], ["--device cuda:99", "there is cpu"]),
        (["--device", "abacus"], ["--device abacus"]),
        (["--lr", "-1"], ["lr must be positive", "-1"]),
        (["--ema", "1"], ["ema must lie in (0, 1)", "1.0"]),
        (["--augment", "spin"], ["augment", "'crop+flip'", "'spin'"]),
        (["--autocast", "int8"], ["--autocast", "bfloat16 or float16", "'int8'"]),
        (["--out", "network.pt"], ["--out", ".safetensors", "'network.pt'"]),
    ],
)
def test_train(run: Run, tmp_path: Path, options: list[str], words: list[str]) -> None:
    out = tmp_path / "network.safetensors"
    assert_refused(run(*TRAIN, "--out", out, *options), *words)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--size", "--seed", "--threads"])
def test_numbers_beyond_any_use_are_named(run: Run, tmp_path: Path, option: str) -> None:
    result = run(*COMPARE, "--out", tmp_path, option, 2**63 - 1)
    assert_refused(result, f"'{option}'", code=2)


@pytest.mark.parametrize(
    "eps", ["8/0", "far", "0", "-0.1", "1.5", "nan", "8/255/2", "8/", "inf", ""]
)
def test_eps(run: Run, tmp_path: Path, eps: str) -> None:
    result = run(*TRAIN, "--out", tmp_path / "network.safetensors", "--eps", eps)
    assert_refused(result, "--eps", "fraction such as 8/255", repr(eps), code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], ["no file or folder 'nowhere'"]),
        (["--split", "middle"], ["split", "train, test", "'middle'"]),
        (["--measure", "tape"], ["measure", " cka,", "'tape'"]),
        (["--attack", "siege"], ["--attack", "pgd", "'siege'"]),
        (["--autocast", "half"], ["--autocast", "bfloat16 or float16", "'half'"]),
        (["--precision", "double"], ["precision", "'bfloat16'", "'double'"]),
        (["--measure", "cca", "--precision", "bfloat16"], ["precision", "for cca", "'bfloat16'"]),
        (["--device", "cuda:99"], ["--device cuda:99"]),
        (["elsewhere.safetensors"], ["no checkpoint file elsewhere.safetensors"]),
        (["elsewhere"], ["'elsewhere' is neither a checkpoint file nor a model", "wrn-D-K"]),
    ],
)
def test_compare(run: Run, tmp_path: Path, options: list[str], words: list[str]) -> None:
    assert_refused(run(*COMPARE, "--out", tmp_path, *options), *words)
    assert not list(tmp_path.iterdir())


def test_layer_that_is_not_there_shows_those_that_are(run: Run, tmp_path: Path) -> None:
    result = run(*COMPARE, "--out", tmp_path, "--layers", "stage1.0.conv9")
    assert result.exit_code == 1
    for word in ("'stage1.0.conv9' matched no layer", "Did you mean", "stage1.0.conv1", "fc"):
        assert word in result.output


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\x08" + b"\0" * 30])
def test_file_that_is_no_checkpoint(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    result = run("compare", tmp_path / "broken.safetensors", "--data", "digits", "--out", tmp_path)
    assert_refused(result, "broken.safetensors", "not a readable safetensors file")


def test_network_for_other_images(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path], folder_of_images: Path
) -> None:
    result = run(
        "compare", checkpoints["standard"], "--data", f"folder:{folder_of_images}",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert_refused(result, "takes images with 1 channels", "has 3")


def test_unreadable_image_is_named(run: Run, tmp_path: Path, folder_of_images: Path) -> None:
    (folder_of_images / "cat" / "0.png").write_bytes(b"not a picture")
    result = run("compare", "resnet-8", "--data", f"folder:{folder_of_images}", "--out", tmp_path)
    assert_refused(result, "cat/0.png", "cannot read the image")


@pytest.fixture
def folder_of_images(tmp_path: Path) -> Path:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number, 2, 3)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
    return tmp_path / "images"


@pytest.mark.parametrize("command", ["train", "compare", "demo"])
def test_output_that_cannot_be_written_is_found_out_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began before the output was checked")

    monkeypatch.setattr("repsim_fast.data.load", work)
    (tmp_path / "file").write_text("here first")
    out = tmp_path / "file" / "network.safetensors"
    arguments = {"train": TRAIN, "compare": COMPARE, "demo": ["demo"]}[command]
    assert_refused(run(*arguments, "--out", out), "cannot write", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "here first"


def test_checkpoint_in_place_of_a_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "network.safetensors"
    folder.mkdir()
    assert_refused(run(*TRAIN, "--out", folder), "cannot write", "it is a folder")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("stream lost\nadvice\nmore advice"), "error: stream lost\n"),
        (AssertionError("Wrong image height"), "error: Wrong image height\n"),
        (torch.cuda.OutOfMemoryError("out of memory\ntables"), "smaller --batch-size"),
        (KeyError("gone"), "unexpected KeyError: 'gone'; `repsim-fast --debug COMMAND"),
        (AssertionError(), "unexpected AssertionError: no message"),
    ],
)
def test_errors_from_below_are_one_line_and_debug_shows_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("repsim_fast.data.load", fail)
    result = run(*COMPARE, "--out", tmp_path)
    assert_refused(result, line)
    assert isinstance(run("--debug", *COMPARE, "--out", tmp_path).exception, type(error))


@pytest.mark.filterwarnings("default::UserWarning:repsim_fast")
def test_warning_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.warn("half of the images are gone", stacklevel=1)
        raise ValueError("all of them")

    monkeypatch.setattr("repsim_fast.data.load", warn)
    result = run(*COMPARE, "--out", tmp_path)
    assert result.stderr.splitlines()[0] == "warning: half of the images are gone"


@pytest.mark.filterwarnings("default::UserWarning:repsim_fast")
def test_a_note_of_a_comparison_stands_once(run: Run, tmp_path: Path) -> None:
    result = run(
        "compare", "resnet-8", "--data", "digits", "--limit", "34", "--batch-size", "16",
        "--threads", "1", "--out", tmp_path, "--layers", "fc",
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.output.count("dropped 1 of 3 batches, of 2 samples") == 1
    assert "\nnote: dropped 1 of 3 batches, of 2 samples" in result.stdout


@pytest.mark.filterwarnings("default::UserWarning:repsim_fast")
def test_why_similarities_are_undefined_is_warned_of(run: Run, tmp_path: Path) -> None:
    weights = models.build("resnet-8", num_classes=10, in_channels=1, seed=0)
    with torch.no_grad():
        weights.fc.weight.zero_()
    about = {"name": "resnet-8", "num_classes": 10, "in_channels": 1}
    models.save_checkpoint(tmp_path / "flat.safetensors", weights, **about)
    result = run(
        "compare", tmp_path / "flat.safetensors", "--data", "digits", "--limit", "32",
        "--threads", "1", "--out", tmp_path / "out", "--layers", "fc",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "warning: similarity is undefined (NaN) for layers 'fc'" in result.stderr
