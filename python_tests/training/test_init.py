"""Training that begins with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast.training import Optimisation, Saving, StopTraining, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
RESNET: dict[str, Any] = {"name": "resnet-8", "num_classes": 10, "in_channels": 1}


def equal(net: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_begins_with_the_weights(
    ema: float | None, small_net: Build, few: Pair, tmp_path: Path
) -> None:
    first = small_net()
    train(first, few, epochs=1, saving=Saving(tmp_path), progress=False)
    options: dict[str, Any] = {"optimisation": Optimisation(ema=ema), "progress": False}
    for wrap in (lambda net: net, lambda net: torch.compile(net, backend="eager")):
        want, net = small_net(), small_net()
        want.load_state_dict(first.state_dict())
        train(wrap(want), few, epochs=1, **options)
        nn.init.zeros_(next(net.parameters()))
        train(wrap(net), few, epochs=1, init=tmp_path / "last.safetensors", **options)
        assert equal(want, net)


def test_of_an_architecture(few: Pair, tmp_path: Path) -> None:
    first = models.build(**RESNET, seed=0)
    train(first, few, epochs=1, saving=Saving(tmp_path / "first", RESNET), progress=False)
    second = models.build(**RESNET, seed=1)
    saving = Saving(tmp_path / "second", RESNET)
    init = tmp_path / "first" / "last.safetensors"
    train(second, [few], epochs=1, lr=1e-30, init=init, saving=saving, progress=False)
    assert torch.equal(first.fc.weight, second.fc.weight)


def test_resumes_from_the_same_weights_only(small_net: Build, few: Pair, tmp_path: Path) -> None:
    def stop(_: nn.Module, record: Any) -> None:
        if record.epoch == 0:
            raise StopTraining("for now")

    init, same, other = (tmp_path / f"{name}.safetensors" for name in ("init", "same", "other"))
    weights = dict(small_net().state_dict())
    save_file(weights, init)
    save_file(weights, same, {"note": "of the same weights"})
    save_file(weights | {"0.bias": torch.zeros(16)}, other)
    options: dict[str, Any] = {"epochs": 2, "progress": False}
    whole, resumed = small_net(), small_net()
    train(whole, few, init=init, **options)
    saving = Saving(tmp_path, resume=True)
    train(small_net(), few, init=init, saving=saving, on_epoch=stop, **options)
    for wrong in (None, other):
        with pytest.raises(ValueError, match=r"other settings \(init: '[0-9a-f]{32}' there, "):
            train(small_net(), few, init=wrong, saving=saving, **options)
    train(resumed, few, init=same, saving=saving, **options)
    assert equal(whole, resumed)


class TestBadInput:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"name": "resnet-14"}, r"holds resnet-14 with .*stage1\.1\.\S+ is unknown"),
            ({"num_classes": 9}, r"num_classes=9, .*fc\.bias must have shape \(10,\), got \(9,\)"),
            ({"in_channels": 3}, r"in_channels=3, .*conv1\.weight must have shape"),
        ],
    )
    def test_another_architecture_names_both(
        self, other: dict[str, Any], message: str, few: Pair, tmp_path: Path
    ) -> None:
        path = tmp_path / "other.safetensors"
        described = RESNET | other
        models.save_checkpoint(path, models.build(**described, seed=0), **described)
        net = models.build(**RESNET, seed=0)
        before = net.fc.weight.clone()
        for saving, here in (
            (Saving(tmp_path / "run", RESNET), "resnet-8 with num_classes=10, in_channels=1"),
            (Saving(), "CifarResNet"),
        ):
            with pytest.raises(ValueError, match=f"{message}") as error:
                train(net, few, init=path, saving=saving, progress=False)
            assert f"do not fit the model, {here}" in str(error.value)
        assert torch.equal(net.fc.weight, before)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_files_of_torch_save(
        self, small_net: Build, few: Pair, tmp_path: Path, wrapped: bool
    ) -> None:
        path = tmp_path / "last.pt"
        net, other = small_net(), small_net()
        for weight in net.parameters():
            weight.data.uniform_()
        state = net.state_dict()
        prefixed = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 3, "state_dict": prefixed} if wrapped else state, path)
        train(other, few, epochs=1, lr=1e-30, init=path, progress=False)
        for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_one_of_several_in_a_file(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        path, net, other = tmp_path / "last.pt", small_net(), small_net()
        average = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
        torch.save({"model": net.state_dict(), "model_ema": average}, path)
        with pytest.raises(ValueError, match=r"'model', 'model_ema'; say which as FILE#model$"):
            train(other, few, init=path, progress=False)
        train(other, few, epochs=1, lr=1e-30, init=f"{path}#model_ema", progress=False)
        assert all(bool((weight == 1).all()) for weight in other.parameters())
        with pytest.raises(ValueError, match="no weights under 'ema'"):
            train(other, few, init=f"{path}#ema", progress=False)

    def test_a_file_of_torch_save_of_another_name(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        net, other = small_net(), small_net()
        for weight in net.parameters():
            weight.data.uniform_()
        torch.save(net.state_dict(), tmp_path / "net.safetensors")
        train(other, few, epochs=1, lr=1e-30, init=tmp_path / "net.safetensors", progress=False)
        for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    def test_files_of_torch_save_that_do_not_fit(
        self, small_net: Build, few: Pair, tmp_path: Path
    ) -> None:
        net = small_net()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        path, state = tmp_path / "last.pt", net.state_dict()
        some = {f"1.{name}": value for name, value in state.items()}
        torch.save({**some, "0.mean": torch.rand(3), "0.std": torch.rand(3)}, path)
        with pytest.raises(ValueError, match=r"last\.pt holds a network with a layer before it"):
            train(net, few, init=path, progress=False)
        torch.save({name: value.double() for name, value in state.items()}, path)
        with pytest.raises(ValueError, match=r"must be torch\.float32, got torch\.float64"):
            train(net, few, init=path, progress=False)
        torch.save(dict(list(state.items())[1:]), path)
        with pytest.raises(ValueError, match=r"last\.pt for Sequential"):
            train(net, few, init=path, progress=False)
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    def test_files(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no checkpoint file nowhere"):
            train(small_net(), few, init="nowhere", progress=False)
        path = tmp_path / "weights.safetensors"
        path.write_bytes(b"no tensors at all")
        with pytest.raises(ValueError, match=r"weights\.safetensors is not a readable"):
            train(small_net(), few, init=path, progress=False)
        save_file(dict(small_net().double().state_dict()), path)
        with pytest.raises(ValueError, match=r"0\.bias must be torch\.float32, got torch\.float64"):
            train(small_net(), few, init=path, progress=False)
        save_file({"bias": torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=r"weights\.safetensors for Sequential"):
            train(small_net(), few, init=path, progress=False)

    def test_weights_under_a_prefix(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        """As of compiled and distributed models, and of the state of a training."""
        net, path = small_net(), tmp_path / "compiled.safetensors"
        train(net, few, epochs=1, saving=Saving(tmp_path), progress=False)
        state = {f"_orig_mod.{name}": value for name, value in net.state_dict().items()}
        save_file({name: x for name, x in state.items() if "num_batches" not in name}, path)
        for file in (path, tmp_path / "resume.safetensors"):
            other = small_net()
            train(other, few, epochs=1, lr=1e-30, init=file, progress=False)
            for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
                assert torch.equal(mine, theirs)
