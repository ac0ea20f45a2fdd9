"""Checkpoints: round trip, what a header must hold, and what a failed write leaves."""

from __future__ import annotations

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


def test_weights_of_another_architecture(tmp_path, model):
    file = tmp_path / "wrong.safetensors"
    models.save_checkpoint(file, model, name="wrn-10-2", num_classes=4, in_channels=1)
    with pytest.raises(
        ValueError, match=r"do not fit wrn-10-2 with num_classes=4, in_channels=1: .*must have"
    ):
        models.load_checkpoint(file)
    models.save_checkpoint(file, model, name=NAME, num_classes=5, in_channels=1)
    with pytest.raises(ValueError, match=r"fc.bias must have shape \(5,\), got \(4,\)"):
        models.load_checkpoint(file)
    models.save_checkpoint(file, model, name="resnet-8", num_classes=4, in_channels=1)
    with pytest.raises(ValueError, match=r"bn.bias is unknown; .*; \.\.\."):
        models.load_checkpoint(file)


@pytest.mark.parametrize("header", [None, {"repsim_fast": "{"}, {"repsim_fast": "3"}, {"a": "b"}])
def test_files_of_others_are_told_apart(file, header):
    save_file(load_file(file), file, header)
    with pytest.raises(ValueError, match="is not a checkpoint of repsim_fast: its header lacks"):
        models.load_checkpoint(file)


@pytest.mark.parametrize("content", [b"", b"no tensors here at all", None])
def test_damaged_file_is_named(file, content):
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=r"net.safetensors is not a readable safetensors file"):
        models.load_checkpoint(file)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file .*nothing"):
        models.load_checkpoint(tmp_path / "nothing")


def test_metadata_that_json_cannot_hold(tmp_path, model):
    file = tmp_path / "x.safetensors"
    with pytest.raises(TypeError, match=r"metadata must be what JSON can hold: .*Tensor"):
        models.save_checkpoint(file, model, name=NAME, num_classes=4, lr=torch.ones(2))
    assert not file.exists()


def test_missing_folder(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        models.save_checkpoint(tmp_path / "nowhere" / "x", model, name=NAME, num_classes=4)


def test_failed_write_leaves_the_earlier_file_and_nothing_else(file, model, monkeypatch):
    def full(descriptor):
        raise OSError("no space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        models.save_checkpoint(file, model, name=NAME, num_classes=4, in_channels=1)
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
