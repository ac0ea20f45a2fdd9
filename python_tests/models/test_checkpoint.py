"""Checkpoints: round trip, what a header must hold, and what a failed write leaves."""

from __future__ import annotations

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim_fast import models
from repsim_fast.models import checkpoint

NAME = "wrn-10-1"


@pytest.fixture
def model():
    model = models.build(NAME, num_classes=4, in_channels=1, seed=1)
    model(torch.rand(8, 1, 8, 8))  # moves the batch norm statistics
    return model


@pytest.fixture
def file(tmp_path, model):
    file = tmp_path / "net.safetensors"
    models.save_checkpoint(
        file, model, name=NAME, num_classes=4, in_channels=1, epochs=3, history=[0.5, 0.75]
    )
    return file


def test_round_trip(file, model):
    loaded, described = models.load_checkpoint(file)
    assert described == {
        "name": NAME,
        "num_classes": 4,
        "in_channels": 1,
        "epochs": 3,
        "history": [0.5, 0.75],
    }
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(loaded(images), model.eval()(images))


def test_weights_are_aligned_as_built_ones(file):
    # The results of vector kernels depend on it in the last bit.
    loaded, _ = models.load_checkpoint(file)
    assert {p.data_ptr() % 64 for p in loaded.state_dict().values()} == {0}


def test_other_dtypes_and_layouts_are_kept(tmp_path, model):
    file = tmp_path / "half.safetensors"
    model = model.half().to(memory_format=torch.channels_last)
    models.save_checkpoint(file, model, name=NAME, num_classes=4, in_channels=1)
    loaded, _ = models.load_checkpoint(file)
    assert loaded.fc.weight.dtype == torch.float16
    assert torch.equal(loaded.stage2[0].conv1.weight, model.stage2[0].conv1.weight)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"clean_accuracy": 93.5}, r"clean_accuracy: expected a number in \[0, 1\], got 93.5"),
        ({"epochs": -1}, r"epochs: expected a whole number in \[0, .*\], got -1"),
        ({"classes": "cat, dog"}, "classes: expected a list"),
        ({"recipe": {"lr": 2**70}}, "expected a whole number"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(file, model, metadata, message):
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"^metadata.*{message}"):
        models.save_checkpoint(file, model, name=NAME, num_classes=4, in_channels=1, **metadata)
    assert file.read_bytes() == before


def test_untrained_networks_are_checkpoints_too(tmp_path, model):
    path = tmp_path / "untrained.safetensors"
    models.save_checkpoint(path, model, name=NAME, num_classes=4, in_channels=1, epochs=0)
    assert models.load_checkpoint(path)[1]["epochs"] == 0


def test_loading_leaves_the_global_random_state(file):
    before = torch.random.get_rng_state()
    models.load_checkpoint(file)
    assert torch.equal(before, torch.random.get_rng_state())


def test_saving_twice_writes_the_same_bytes(file, tmp_path, model):
    again = tmp_path / "again.safetensors"
    models.save_checkpoint(
        again, model, name=NAME, num_classes=4, in_channels=1, epochs=3, history=[0.5, 0.75]
    )
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"name": "wrn-10-2"},
            "do not fit wrn-10-2 with num_classes=4, in_channels=1: .*must have",
        ),
        ({"num_classes": 5}, r"in_channels=1: fc.bias must have shape \(5,\), got \(4,\)"),
        ({"in_channels": 3}, r"conv1.weight must have shape \(16, 3, 3, 3\), got \(16, 1, 3, 3\)$"),
        ({"name": "resnet-8"}, r"bn.bias is unknown; .*; \.\.\."),
    ],
)
def test_weights_of_another_architecture(file, model, other, message):
    described = {"name": NAME, "num_classes": 4, "in_channels": 1, **other}
    before = file.read_bytes(), torch.random.get_rng_state()
    with pytest.raises(ValueError, match=f"^model: the weights .*{message}"):
        models.save_checkpoint(file, model, **described)
    assert file.read_bytes() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    save_file(load_file(file), file, {"repsim_fast": json.dumps(described)})
    with pytest.raises(ValueError, match=f"net.safetensors: the weights .*{message}"):
        models.load_checkpoint(file)


def test_an_architecture_is_built_once_for_all_its_checkpoints(tmp_path, model, monkeypatch):
    built = []
    checkpoint._built.cache_clear()
    monkeypatch.setattr(checkpoint, "build", lambda name, **options: built.append(name) or model)
    for number in range(3):
        models.save_checkpoint(
            tmp_path / f"{number}", model, name=NAME, num_classes=4, in_channels=1
        )
    assert built == [NAME]
    checkpoint._built.cache_clear()


HEADER = {"name": NAME, "num_classes": 4, "in_channels": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "its header lacks name"),
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("9" * 5000, "expected JSON"),
        ("3", "expected values by name, got 3"),
        ({"name": NAME}, "its header lacks in_channels, num_classes"),
        ({**HEADER, "name": 7}, "name: expected a text"),
        ({**HEADER, "num_classes": "4"}, "num_classes: expected a whole number"),
        ({**HEADER, "num_classes": 4.0}, "num_classes: expected a whole number"),
        ({**HEADER, "num_classes": True}, "num_classes: expected a whole number"),
        ({**HEADER, "in_channels": 0}, "in_channels: expected a whole number"),
        ({**HEADER, "in_channels": 10**30}, "a larger number"),
        ({**HEADER, "method_options": [1]}, "method_options: expected values by name, got a list"),
        ({**HEADER, "clean_accuracy": "high"}, "clean_accuracy: expected a number"),
        ({**HEADER, "classes": "0123"}, "classes: expected a list"),
        ({**HEADER, "note": "\ud800"}, "whole characters"),
        ({**HEADER, "note": json.loads("[" * 50 + "]" * 50)}, "levels"),
    ],
)
def test_files_of_others_are_told_apart(file, text, message):
    header = None
    if text is not None:
        header = {"repsim_fast": text if isinstance(text, str) else json.dumps(text)}
    save_file(load_file(file), file, header)
    with pytest.raises(ValueError, match=f"is not a checkpoint of repsim_fast.*{message}"):
        models.load_checkpoint(file)


@pytest.mark.parametrize(
    "asked",
    [{"name": "resnet-30002"}, {"name": "wrn-16-10000"}, {"num_classes": 2**31 - 1}],
)
def test_a_small_file_cannot_ask_for_a_large_network(file, asked):
    save_file({}, file, {"repsim_fast": json.dumps({**HEADER, **asked})})
    before = time.process_time()
    with pytest.raises(ValueError, match=r"far more of them|cannot be built"):
        models.load_checkpoint(file)
    assert time.process_time() - before < 2


@pytest.mark.parametrize("content", [b"", b"no tensors here at all", None])
def test_damaged_file_is_named(file, content):
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=r"net.safetensors is not a readable safetensors file"):
        models.load_checkpoint(file)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file .*nothing"):
        models.load_checkpoint(tmp_path / "nothing")


def test_models_without_memory_for_weights(file):
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(3))
    empty = models.build(NAME, num_classes=4, in_channels=1).to("meta")
    for model in (lazy, empty):
        with pytest.raises(ValueError, match=r"model: '.*weight' has no memory for a weight"):
            models.load_weights(file, model)


def test_metadata_that_json_cannot_hold(tmp_path, model):
    file = tmp_path / "x.safetensors"
    with pytest.raises(TypeError, match=r"metadata must be what JSON can hold: .*Tensor"):
        models.save_checkpoint(file, model, name=NAME, num_classes=4, lr=torch.ones(2))
    assert not file.exists()


def test_missing_folder_is_made(tmp_path, model):
    file = tmp_path / "new" / "x"
    models.save_checkpoint(file, model, name=NAME, num_classes=4, in_channels=1)
    assert models.checkpoint_header(file)["name"] == NAME


def test_failed_write_leaves_the_earlier_file_and_nothing_else(file, model, monkeypatch):
    def full(descriptor):
        raise OSError("no space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        models.save_checkpoint(file, model, name=NAME, num_classes=4, in_channels=1)
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
