"""Networks by name: weights of any origin are found, and what does not fit is said."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from repsim_fast import Capture, models
from repsim_fast.models.named import open_model

X = torch.rand(5, 3, 32, 32)


def trained(name: str = "resnet-8", num_classes: int = 10) -> nn.Module:
    """A network whose weights and running statistics are not those it begins with."""
    model = models.build(name, num_classes=num_classes, seed=1)
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


MODEL = trained()
STATE = MODEL.state_dict()


def prefixed(prefix: str, state: Any = STATE) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


CONTENTS = {
    "bare": STATE,
    "state_dict": {"epoch": 3, "state_dict": STATE, "optimizer": {"state": {0: {"m": X}}}},
    "model_state_dict": {"model_state_dict": prefixed("module.")},
    "model": {"model": OrderedDict(prefixed("module._orig_mod.")), "args": argparse.Namespace(a=1)},
    "net": {"net": prefixed("module."), "acc": np.float64(0.9), "best": np.int64(3)},
    "lightning": {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(10)},
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "callbacks": {},
        "loops": {},
    },
    "averaged": {"n_averaged": torch.tensor(7), **prefixed("module.")},
    "compiled inside": {
        key.replace("stage1.", "stage1._orig_mod."): value for key, value in STATE.items()
    },
    "nested": {"ema": {"shadow": {"state_dict": STATE}}},
    "no counters": {k: v for k, v in STATE.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_state_dicts_are_found_under_any_key_and_prefix(tmp_path: Path, content: str, suffix: str):
    path = tmp_path / f"weights{suffix}"
    torch.save(CONTENTS[content], path)
    model = models.load(f"resnet-8={path}")
    assert not model.training
    assert torch.equal(model(X), MODEL(X))


@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
def test_plain_safetensors(tmp_path: Path, prefix: str):
    path = tmp_path / "weights.safetensors"
    save_file({key: value.clone() for key, value in prefixed(prefix).items()}, path)
    assert torch.equal(models.load(f"resnet-8={path}")(X), MODEL(X))


def test_a_checkpoint_of_our_own_needs_no_architecture(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    models.save_checkpoint(path, MODEL, name="resnet-8", num_classes=10)
    assert torch.equal(models.load(str(path))(X), MODEL(X))
    assert torch.equal(models.load(f"resnet-8={path}")(X), MODEL(X))


def test_the_form_of_a_file_is_that_of_its_content(tmp_path: Path):
    models.save_checkpoint(tmp_path / "own.ckpt", MODEL, name="resnet-8", num_classes=10)
    torch.save(MODEL.state_dict(), tmp_path / "pickled.safetensors")
    torch.save(MODEL.state_dict(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(models.load(f"{tmp_path}/own.ckpt")(X), MODEL(X))
    for name in ("own.ckpt", "pickled.safetensors", "old.bin"):
        assert torch.equal(models.load(f"resnet-8={tmp_path}/{name}")(X), MODEL(X))
    with pytest.raises(ValueError, match="does not say of which network"):
        models.load(str(tmp_path / "pickled.safetensors"))


@pytest.mark.parametrize(("num_classes", "in_channels"), [(10, 3), (7, 1), (1000, 3)])
def test_classes_and_channels_are_those_of_the_weights(
    tmp_path: Path, num_classes: int, in_channels: int
):
    model = models.build("resnet-8", num_classes=num_classes, in_channels=in_channels, seed=1)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    opened = open_model(f"ResNet-8={tmp_path / 'w.pt'}")
    assert opened.about["num_classes"] == num_classes
    assert opened.about["in_channels"] == in_channels
    x = torch.rand(2, in_channels, 8, 8)
    assert torch.equal(opened.model(x), model.eval()(x))
    with pytest.raises(ValueError, match=r"fc.weight must be \(5, 64\), got"):
        models.load(f"resnet-8={tmp_path / 'w.pt'}", num_classes=5)


def test_torchvision_weights(tmp_path: Path):
    torchvision = pytest.importorskip("torchvision", exc_type=Exception)
    net = torchvision.models.shufflenet_v2_x0_5(num_classes=12).eval()
    for suffix, content in ((".pt", net.state_dict()), (".ckpt", {"state_dict": net.state_dict()})):
        torch.save(content, tmp_path / f"w{suffix}")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    x = torch.rand(2, 3, 64, 64)
    for suffix in (".pt", ".ckpt", ".safetensors"):
        found = models.load(f"torchvision:shufflenet_v2_x0_5={tmp_path / 'w'}{suffix}")
        assert torch.equal(found(x), net(x))


def test_encoders_without_a_classifier(tmp_path: Path):
    vision = pytest.importorskip("torchvision", reason="it is optional", exc_type=ImportError)
    for name in ("resnet18", "vit_b_32", "mobilenet_v3_small"):
        net = vision.models.get_model(name, num_classes=3).eval()
        heads = ("fc", "heads", "classifier")
        state = {key: x for key, x in net.state_dict().items() if not key.startswith(heads)}
        torch.save({"state_dict": prefixed("encoder.", state)}, tmp_path / "encoder.pt")
        opened = open_model(f"torchvision:{name}={tmp_path / 'encoder.pt'}")
        assert opened.about["num_classes"] == 0
        assert "without a classifier" in opened.about["weights"]
        assert opened.model(torch.rand(2, 3, 224, 224)).shape[1] > 500  # features, no classes
    del state["features.0.0.weight"]
    torch.save(state, tmp_path / "torn.pt")
    with pytest.raises(ValueError, match=r"missing: features\.0\.0\.weight"):
        models.load(f"torchvision:{name}={tmp_path / 'torn.pt'}")


def test_encoders_of_timm(tmp_path: Path):
    timm = pytest.importorskip("timm", reason="it is optional and not installed")
    net = timm.create_model("resnet18", num_classes=0, in_chans=1).eval()
    torch.save(net.state_dict(), tmp_path / "encoder.pt")
    x = torch.rand(2, 1, 64, 64)
    assert torch.equal(models.load(f"timm:resnet18={tmp_path / 'encoder.pt'}")(x), net(x))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_pointers_in_place_of_weights(tmp_path: Path, suffix: str):
    path = tmp_path / f"w{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        models.load(f"resnet-8={path}")


def test_several_that_fit_are_asked_for(tmp_path: Path):
    other = trained()
    with torch.no_grad():
        other.fc.bias.add_(1)
    path = tmp_path / "run.ckpt"
    torch.save({"state_dict": STATE, "ema": prefixed("module.", other.state_dict())}, path)
    with pytest.raises(ValueError, match=r"2 sets of weights fit, 'state_dict', 'ema/module'"):
        models.load(f"resnet-8={path}")
    assert torch.equal(models.load(f"resnet-8={path}#ema/module")(X), other(X))
    assert torch.equal(models.load(f"resnet-8={path}", key="state_dict")(X), MODEL(X))
    with pytest.raises(ValueError, match=r"no weights under 'nothing'; there are 'state_dict'"):
        models.load(f"resnet-8={path}", key="nothing")


def test_students_and_teachers_in_one_state_dict(tmp_path: Path):
    other = trained(num_classes=4)
    path = tmp_path / "w.pt"
    torch.save({**prefixed("student."), **prefixed("teacher.", other.state_dict())}, path)
    assert torch.equal(models.load(f"resnet-8={path}", num_classes=4)(X), other(X))
    torch.save({**STATE, **prefixed("ema.")}, path)
    with pytest.raises(ValueError, match=r"2 sets of weights fit, 'whole file', 'ema'"):
        models.load(f"resnet-8={path}")


def test_what_does_not_fit_is_named(tmp_path: Path):
    path = tmp_path / "w.pt"
    broken = dict(prefixed("module."))
    del broken["module.conv1.weight"]
    broken["module.extra.weight"] = torch.ones(2)
    broken["module.bn1.bias"] = torch.ones(5)
    torch.save({"state_dict": broken}, path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (all of it is looked at)
        models.load(f"resnet-8={path}")
    for words in (
        f"{path} for resnet-8",
        "1 missing: conv1.weight",
        "1 unexpected: module.extra.weight",
        "1 of another shape: bn1.bias must be (16,), got (5,)",
        "tried: 'state_dict/module' with ",
    ):
        assert words in str(caught.value)


def test_another_network_is_said(tmp_path: Path):
    path = tmp_path / "w.pt"
    torch.save({"model": {"layers.0.w": torch.ones(2, 3)}}, path)
    with pytest.raises(ValueError, match=r"none of the file's names.*model has 1 tensors, layers"):
        models.load(f"resnet-8={path}")


class Anything:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MODEL, r"CifarResNet\), and nothing else is unpickled.*\.state_dict\(\)"),
        ({"state_dict": STATE, "hparams": Anything()}, r"Anything\), and nothing else is unpick"),
        ([1, 2], "holds a list, not weights by name"),
        ({"epoch": 3}, "no weights by name; it has 'epoch'"),
    ],
)
def test_files_that_hold_other_things(tmp_path: Path, content: Any, message: str):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        models.load(f"resnet-8={tmp_path / 'w.pt'}")


def test_damaged_files(tmp_path: Path):
    path = tmp_path / "w.pt"
    torch.save(STATE, path)
    whole = path.read_bytes()
    noise = [random.Random(seed).randbytes(300) for seed in range(300)]
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint at all", *noise):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.pt"):
            models.load(f"resnet-8={path}")
    torch.jit.trace(MODEL, X).save(str(path))
    with pytest.raises(ValueError, match=r"TorchScript archive; save model\.state_dict"):
        models.load(f"resnet-8={path}")


def test_other_files_are_no_advice_to_unpickle(tmp_path: Path):
    """As torch's own message gives it for anything that it cannot read."""
    (tmp_path / "w.json").write_text('{"epochs": 3}')
    with pytest.raises(ValueError, match=r"w\.json: it is no file of weights, neither of torch"):
        models.load(f"resnet-8={tmp_path / 'w.json'}")


def in_parts(folder: Path, kind: str) -> Path:
    """The weights in two files and their index."""
    names, half = list(STATE), len(STATE) // 2
    write, stem, suffix = (
        (save_file, "model", ".safetensors")
        if kind == "safetensors"
        else (torch.save, "pytorch_model", ".bin")
    )
    files = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = folder / f"{stem}-0000{number}-of-00002{suffix}"
        write({name: STATE[name] for name in part}, file)
        files |= dict.fromkeys(part, file.name)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_weights_in_several_files(tmp_path: Path, kind: str):
    index = in_parts(tmp_path, kind)
    assert torch.equal(models.load(f"resnet-8={index}")(X), MODEL(X))
    second = next(iter(tmp_path.glob("*-00002-of-00002*")))
    second.unlink()
    with pytest.raises(FileNotFoundError, match="00002-of-00002"):
        models.load(f"resnet-8={index}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "expected JSON"),
        ('{"weight_map": {"conv1.weight": "../w.pt"}}', r"files beside it, got '\.\./w\.pt'"),
        ('{"weight_map": {"conv1.weight": "x.index.json"}}', r"files beside it, got 'x\.index"),
        ('{"weight_map": {"nothing": "model-00001-of-00002.safetensors"}}', "lacks 'nothing'"),
        ("{}", "lacks weight_map"),
    ],
)
def test_indices_that_are_none(tmp_path: Path, content: str, message: str):
    index = in_parts(tmp_path, "safetensors")
    index.write_text(content)
    with pytest.raises(ValueError, match=message):
        models.load(f"resnet-8={index}")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_alone_says_what_it_lacks(tmp_path: Path, suffix: str):
    path = tmp_path / f"w{suffix}"
    (torch.save if suffix == ".pt" else save_file)(dict(STATE), path)
    with pytest.raises(ValueError, match=r"does not say of which network: ARCHITECTURE=.*w"):
        models.load(str(path))
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        models.load("nothing.pt")
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        models.load("resnet-8=nothing.pt")


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A wide residual network's weights as the network of TRADES names them."""
    names = {}
    for key, value in state.items():
        name = key.replace("shortcut", "convShortcut")
        if key.startswith("stage"):
            name = f"block{key[5]}.layer{name[6:]}"
        elif key.startswith("bn."):
            name = f"bn1{name[2:]}"
        names[name] = value
    return names


def test_robustbench_files(tmp_path: Path):
    net = trained("wrn-10-2")
    state = published(net.state_dict())
    unused = {f"sub_block1.layer.0.{k}": torch.ones(2) for k in ("bn1.weight", "conv1.weight")}
    torch.save({"state_dict": prefixed("module.", state | unused)}, tmp_path / "w.pt")
    assert torch.equal(models.load(f"wrn-10-2={tmp_path / 'w.pt'}")(X), net(X))


MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
NORMALISED = MODEL((X - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1))


@pytest.mark.parametrize(
    "content",
    [
        {"mu": MEAN.view(1, 3, 1, 1), "sigma": STD.view(1, 3, 1, 1), **STATE},
        {"normalize.mean": MEAN, "normalize.std": STD, **prefixed("model.")},
        {"0.mean": MEAN, "0.std": STD, **prefixed("1.")},
        {
            "model": {
                "module.normalizer.new_mean": MEAN.view(3, 1, 1),
                "module.normalizer.new_std": STD.view(3, 1, 1),
                **prefixed("module.model."),
            }
        },
    ],
)
def test_a_normalisation_in_the_file_is_used(tmp_path: Path, content: Any):
    torch.save(content, tmp_path / "w.pt")
    opened = open_model(f"resnet-8={tmp_path / 'w.pt'}")
    assert torch.allclose(opened.model(X), NORMALISED, atol=1e-5)
    assert opened.about["mean"] == pytest.approx([0.4, 0.5, 0.6])
    other = models.load(f"resnet-8={tmp_path / 'w.pt'}", mean=0.0, std=1.0)
    assert torch.allclose(other(X), MODEL(X), atol=1e-5)


def test_half_precision_is_said(tmp_path: Path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in STATE.items()}
    torch.save(half, tmp_path / "w.pt")
    opened = open_model(f"resnet-8={tmp_path / 'w.pt'}")
    assert opened.about["weights"].endswith(", float16 as float32")
    assert torch.equal(opened.model.fc.weight, half["fc.weight"].float())


def test_untrained_names():
    first, again = (models.load("WRN-10-1", num_classes=3, seed=4) for _ in range(2))
    assert torch.equal(first(X), again(X))
    assert open_model("wrn-10-1").about["weights"] is None
    assert models.load("resnet-8", in_channels=1)(torch.rand(2, 1, 8, 8)).shape == (2, 1000)
    with pytest.raises(ValueError, match=r"file nor a model; did you mean 'wrn-28-10'"):
        models.load("wrm-28-10")


FACTORY = """
import torch
from beside import WIDTH

NET = torch.nn.Linear(4, 2)

class Net(torch.nn.Sequential):
    def __init__(self, num_classes=5):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(WIDTH, num_classes))

def make(num_classes, in_channels):
    return torch.nn.Conv2d(in_channels, num_classes, 1)

def wants(depth):
    return None

def no_network():
    return 3
"""


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "beside.py").write_text("WIDTH = 12\n")
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    return str(path)


def test_factories(factory: str, tmp_path: Path):
    before = list(sys.path)
    assert models.load(f"{factory}:NET")(torch.rand(1, 4)).shape == (1, 2)
    net = models.load(f"{factory}:Net", seed=3)
    assert net(torch.rand(2, 3, 2, 2)).shape == (2, 5)
    assert torch.equal(net[1].weight, models.load(f"{factory}:Net", seed=3)[1].weight)
    made = models.load(f"{factory}:make", num_classes=3, in_channels=2)
    assert made(torch.rand(1, 2, 4, 4)).shape == (1, 3, 4, 4)
    torch.save({"net": prefixed("module.", net.state_dict())}, tmp_path / "w.pt")
    again = models.load(f"{factory}:Net={tmp_path / 'w.pt'}")
    assert torch.equal(again[1].weight, net[1].weight)
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nett", ValueError, r"has no 'nett'; did you mean 'Net'"),
        ("wants", ValueError, "it wants depth"),
        ("make", ValueError, "wants num_classes; the number of classes is not known here"),
        ("no_network", TypeError, "must give a torch.nn.Module, got int"),
    ],
)
def test_factories_that_are_none(factory: str, name: str, error: Any, message: str):
    with pytest.raises(error, match=message):
        models.load(f"{factory}:{name}")


LIGHTNING = """
import torch

class Lit(torch.nn.Sequential):
    def __init__(self, width=4, depth=1, lr=0.1):
        super().__init__(*(torch.nn.Linear(width, width) for _ in range(depth)))

def needs(width):
    return Lit(width)
"""


@pytest.mark.parametrize("name", ["Lit", "needs"])
def test_factories_take_what_a_lightning_checkpoint_says(tmp_path: Path, name: str):
    (tmp_path / "lit.py").write_text(LIGHTNING)
    net = torch.nn.Sequential(torch.nn.Linear(7, 7))
    settings = {"width": 7, "unknown": "word"}
    content = {"state_dict": net.state_dict(), "hyper_parameters": settings}
    torch.save(content, tmp_path / "run.ckpt")
    found = models.load(f"{tmp_path}/lit.py:{name}={tmp_path}/run.ckpt")
    x = torch.rand(2, 7)
    assert torch.equal(found(x), net(x))


def test_classes_that_are_asked_for_go_before_those_of_a_checkpoint(tmp_path: Path):
    """What was asked for is refused where it does not fit, never passed over."""
    (tmp_path / "own.py").write_text(
        "from torch import nn\ndef net(num_classes=3): return nn.Linear(7, num_classes)\n"
    )
    state = torch.nn.Linear(7, 4).state_dict()
    content = {"state_dict": state, "hyper_parameters": {"num_classes": 4}}
    torch.save(content, tmp_path / "run.ckpt")
    name = f"{tmp_path}/own.py:net={tmp_path}/run.ckpt"
    assert models.load(name)(torch.rand(2, 7)).shape == (2, 4)
    with pytest.raises(ValueError, match="the weights do not fit"):
        models.load(name, num_classes=5)


def test_no_such_file_of_code():
    with pytest.raises(FileNotFoundError, match="no Python file"):
        models.load("nothing.py:net")


@pytest.fixture
def cached_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network whose weights stand in torch's cache where torchvision would fetch its own."""
    torchvision = pytest.importorskip("torchvision", exc_type=Exception)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    net = torchvision.models.shufflenet_v2_x0_5().eval()
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(net.state_dict(), cache / url.rpartition("/")[2])
    return net


def test_published_weights_of_torchvision(cached_weights: nn.Module):
    for name in (
        "torchvision:shufflenet_v2_x0_5@DEFAULT",
        "torchvision:ShuffleNet_v2_x0_5@default",
    ):
        opened = open_model(name)
        assert opened.about["size"] == 224
        assert opened.about["weights"] == "IMAGENET1K_V1 of torchvision"
        x = torch.rand(2, 3, 64, 64)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        assert torch.allclose(opened.model(x), cached_weights((x - mean) / std), atol=1e-5)
    with Capture(opened.model, "conv1*") as capture:
        opened.model(x)
    assert capture.activations.keys() == {"conv1", "conv1.0", "conv1.1", "conv1.2"}


def test_nothing_is_fetched_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("torchvision", exc_type=Exception)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("no way out")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    models.load("torchvision:shufflenet_v2_x0_5")
    with pytest.raises(OSError, match=r"cannot fetch https://.*no way out; put the file into"):
        models.load("torchvision:shufflenet_v2_x0_5@DEFAULT")
    with pytest.raises(ValueError, match=r"has no weights 'IMAGENET'; did you mean 'IMAGENET1K_V1"):
        models.load("torchvision:shufflenet_v2_x0_5@IMAGENET")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18@pretrained", r'needs timm: pip install "repsim_fast\[timm\]"'),
        ("hf:someone/something", r'needs transformers: pip install "repsim_fast\[transformers\]"'),
        ("torchvision:resnet18@DEFAULT", r'needs torchvision: pip install "repsim_fast\[vision\]"'),
    ],
)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, name: str, message: str):
    for package in ("timm", "transformers", "torchvision"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        models.load(name)


def test_timm_configuration(monkeypatch: pytest.MonkeyPatch):
    timm = pytest.importorskip("timm", reason="timm is optional and not installed")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    opened = open_model("timm:ResNet10t@pretrained")
    config = timm.data.resolve_data_config({}, model=opened.model)
    assert opened.about["mean"] == pytest.approx(list(config["mean"]))
    assert opened.about["size"] == config["input_size"][-1]


def test_hugging_face_folders(tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="it is optional and not installed")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "image_size": 16, "patch_size": 8}
    config = transformers.ViTConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(
        tmp_path
    )
    found = models.load(f"hf:{tmp_path}")
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(found(x).logits, net((x - 0.4) / 0.2).logits, atol=1e-5)


def test_no_such_hugging_face_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    transformers = pytest.importorskip("transformers", reason="it is optional and not installed")

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("cannot be reached\nand more")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(OSError, match=r"nothing: there is no such folder, .*cannot be reached$"):
        models.load(f"hf:{tmp_path}/nothing")


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="mean and std must be given together"):
        models.load("resnet-8", mean=0.5)
    with pytest.raises(ValueError, match="key: only for ARCHITECTURE=FILE"):
        models.load("resnet-8", key="ema")
