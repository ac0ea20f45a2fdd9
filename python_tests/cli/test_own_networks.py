"""Networks of any origin on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from python_tests.support.commands import Run
from repsim_fast import SimilarityResult, models
from repsim_fast.cli.models import short_names, size_for
from repsim_fast.cli.zoo import expand

FACTORY = """
import torch

def tiny(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A network's weights as different people save them, and code of one's own."""
    net = models.build("resnet-8", num_classes=10, in_channels=1, seed=1)
    (tmp_path / "a").mkdir()
    torch.save(net.state_dict(), tmp_path / "a" / "best.pt")
    wrapped = {f"model.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "best.ckpt")
    save_file(net.state_dict(), tmp_path / "plain.safetensors")
    (tmp_path / "mine.py").write_text(FACTORY)
    return tmp_path


def test_compare(run: Run, files: Path) -> None:
    out = files / "out"
    names = [f"resnet-8={files / name}" for name in ("a/best.pt", "best.ckpt", "plain.safetensors")]
    options = ("--data", "digits", "--limit", 60, "--layers", "*1", "--threads", 1, "--out", out)
    result = run("compare", *names, f"{files / 'mine.py'}:tiny", *options)
    assert result.exit_code == 0, result.output
    found = SimilarityResult.load(out / "result.safetensors")
    assert found.models == ("a/best", f"{files.name}/best", "plain", "mine.py:tiny")
    same = found.between("a/best", "plain").value
    assert abs(same.diagonal() - 1).max() < 1e-5
    assert "images in [0, 1]" in (out / "report.html").read_text()


def test_patterns_and_folders_of_weights(files: Path) -> None:
    pickled, ours = f"resnet-8={files / 'best.ckpt'}", f"resnet-8={files / 'plain.safetensors'}"
    assert expand([f"resnet-8={files}"]) == [pickled, ours]
    assert expand([f"resnet-8={files}/*.ckpt#ema"]) == [f"{pickled}#ema"]
    assert expand([f"{files}/mine.py:tiny={files}/**/*.pt"]) == [
        f"{files}/mine.py:tiny={files / 'a/best.pt'}"
    ]
    # What only looks like it: a folder whose name has the sign, a file with a bracket.
    (folder := files / "lr=0.1").mkdir()
    (folder / "best[1].pt").write_bytes((files / "best.ckpt").read_bytes())
    assert expand([str(folder)]) == [str(folder / "best[1].pt")]
    assert expand([f"{folder}/*"]) == [str(folder / "best[1].pt")]
    named = f"resnet-8={folder / 'best[1].pt'}"
    assert expand([named]) == [named]
    # Checkpoints say their architecture, and come before what does not.
    assert expand([str(files)]) == [str(files / "plain.safetensors")]
    for nothing in (f"resnet-8={files}/*.bin", f"resnet-8={(files / 'empty')}"):
        (files / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=r"expected weights \(\.safetensors, .*\.tar\) at"):
            expand([nothing])


def test_normalisation(run: Run, files: Path) -> None:
    name = f"resnet-8={files / 'best.ckpt'}"
    options = ("--data", "digits", "--limit", 60, "--layers", "conv1", "--threads", 1)
    plain, other = files / "plain", files / "normalised"
    result = run("compare", name, *options, "--out", plain)
    assert result.exit_code == 0, result.output
    unsaid = f"{name} sees images in [0, 1]; where it was trained on normalised ones, --mean"
    assert unsaid in result.output
    assert unsaid in run("attack", name, *options[:4], "--attack", "fgsm").output
    result = run("compare", name, *options, "--mean", "0.3", "--std", 0.5, "--out", other)
    assert result.exit_code == 0, result.output
    assert "sees images in [0, 1]" not in result.output
    assert "normalised: mean 0.3; std 0.5" in (other / "report.html").read_text()
    result = run("compare", name, *options, "--mean", "0.3", "--out", other)
    assert "mean and std must be given together" in result.output
    result = run("compare", name, *options, "--mean", "grey", "--std", "1", "--out", other)
    assert result.exit_code == 2
    assert "0.485,0.456,0.406" in result.output


def test_images_of_another_size_say_which_option_helps(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORY.replace("64,", "81,"))
    out = ("--data", "digits", "--limit", 20, "--layers", "*", "--out", tmp_path / "out")
    result = run("compare", f"{tmp_path / 'mine.py'}:tiny", *out)
    assert result.exit_code == 1
    assert "failed in batch 0 on inputs" in result.output
    assert "(--size N brings images to the size" in result.output


def test_attack_and_certify(run: Run, files: Path) -> None:
    name = f"resnet-8={files / 'best.ckpt'}"
    options = ("--data", "digits", "--limit", 10, "--threads", 1, "--mean", 0.3, "--std", 0.5)
    result = run("attack", name, *options, "--attack", "fgsm", "--eps", 0.1)
    assert result.exit_code == 0, result.output
    result = run("certify", name, *options, "--n", 20, "--n0", 5, "--sigma", 0.25)
    assert result.exit_code == 0, result.output
    for command in ("attack", "certify"):
        result = run(command, "resnet-8", "--data", "digits")
        assert result.exit_code == 1
        assert "resnet-8 is untrained; trained networks are" in result.output
    out = files / "pruned.safetensors"
    result = run("prune", name, "--sparsity", 0.5, "--out", out)
    assert result.exit_code == 1
    assert "CHECKPOINT must be one of `repsim-fast train`" in result.output


def test_weights_alone_say_how_to_name_them(run: Run, files: Path) -> None:
    for name in ("a/best.pt", "best.ckpt", "plain.safetensors"):
        result = run("compare", files / name, "--data", "digits", "--out", files / "out")
        assert result.exit_code == 1
        assert f"ARCHITECTURE={files / name}" in result.output


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A network with published weights, made up, and images of several sizes: MODEL and SPEC."""
    torchvision = pytest.importorskip("torchvision", exc_type=Exception)
    from PIL import Image

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    net = torchvision.models.shufflenet_v2_x0_5()
    torch.save(net.state_dict(), cache / url.rpartition("/")[2])
    for number in range(8):
        folder = tmp_path / "images" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30 + number, 40), (number * 30, 100, 250 - number)).save(
            folder / f"{number}.png"
        )
    return "torchvision:shufflenet_v2_x0_5@DEFAULT", f"folder:{tmp_path / 'images'}"


def test_published_weights_decide_the_size(
    run: Run, tmp_path: Path, published: tuple[str, str]
) -> None:
    name, spec = published
    data = ("--data", spec)
    options = ("--layers", "conv1", "--threads", 1, "--out", tmp_path / "out")
    result = run("compare", name, *data, *options)
    assert result.exit_code == 0, result.output
    assert f"images at 224 x 224, the size of {name} (--size changes it)" in result.output
    assert "8 images 3x224x224" in result.output
    report = (tmp_path / "out" / "report.html").read_text()
    assert "normalised: mean 0.485, 0.456, 0.406" in report
    result = run("compare", name, *data, *options, "--size", 64)
    assert "8 images 3x64x64" in result.output


@pytest.mark.parametrize(
    "command",
    [
        ("record", "--layers", "conv1", "--out", "recordings"),
        ("attack", "--attack", "fgsm", "--eps", "0.01"),
        ("certify", "--n", "2", "--n0", "1", "--sigma", "0.1"),
    ],
    ids=lambda command: command[0],
)
def test_they_decide_it_for_every_command(
    run: Run, tmp_path: Path, published: tuple[str, str], command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name, spec = published
    arguments = (command[0], name, "--data", spec, *command[1:], "--threads", 1)
    result = run(*arguments, "--limit", 4)
    assert result.exit_code == 0, result.output
    assert result.output.count(f"images at 224 x 224, the size of {name}") == 1
    assert "4 images 3x224x224" in result.output
    if command[0] != "record":  # whose recording is of other images
        result = run(*arguments, "--limit", 4, "--size", 64)
        assert result.exit_code == 0, result.output
        assert "the size of" not in result.output
        assert "4 images 3x64x64" in result.output


def test_one_that_cannot_be_had_does_not_hold_up_the_recording_of_others(
    run: Run, tmp_path: Path, published: tuple[str, str]
) -> None:
    name, spec = published
    out = tmp_path / "recordings"
    options = ("--data", spec, "--limit", 4, "--layers", "conv1", "--threads", 1, "--out", out)
    result = run("record", "torchvision:no_such_net@DEFAULT", name, *options)
    assert result.exit_code == 1
    assert "MODEL: 1 of 2 failed: torchvision:no_such_net@DEFAULT" in result.output
    assert "4 images 3x224x224" in result.output


def test_short_names_of_files() -> None:
    names = ["resnet-8=runs/a/best.pt", "wrn-10-1=runs/b/best.ckpt#ema", "hf:org/net", "resnet-8"]
    assert short_names(names) == ["best", "best.ckpt#ema", "net", "resnet-8"]


@pytest.mark.parametrize(
    ("sizes", "wanted", "said"),
    [
        ((224, 224), 224, "images at 224 x 224, the size of timm:a@pretrained, timm:b@pretrained"),
        ((224, 299), None, "images as they are: timm:a@pretrained wants 224 x 224, timm:b@pretr"),
        ((None, 299), 299, "images at 299 x 299, the size of timm:b@pretrained (--size"),
        ((None, None), None, ""),
    ],
)
def test_the_size_of_several(
    sizes: tuple[int | None, ...], wanted: int | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("timm:a@pretrained", "timm:b@pretrained")
    networks = {name: {"size": size} for name, size in zip(names, sizes, strict=True)}
    networks["resnet-8"] = {"size": 32}  # its weights are none that are published
    assert size_for(networks) == wanted
    assert capsys.readouterr().out.startswith(said)
    assert size_for(networks, say=False) == wanted
    assert capsys.readouterr().out == ""
