"""Building by name: seeds, errors, and the packages of others."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from repsim_fast import models


def weights(name: str, seed: int | None) -> torch.Tensor:
    model = models.build(name, num_classes=3, seed=seed)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", ["wrn-10-1", "resnet-8", "preactresnet-18"])
def test_seed_decides_the_weights(name):
    assert torch.equal(weights(name, 1), weights(name, 1))
    assert not torch.equal(weights(name, 1), weights(name, 2))


def test_no_seed_draws_a_new_one():
    assert not torch.equal(weights("wrn-10-1", None), weights("wrn-10-1", None))


@pytest.mark.parametrize("seed", [5, None])
def test_global_random_state_stays(seed):
    before = torch.random.get_rng_state()
    models.build("wrn-10-1", num_classes=3, seed=seed)
    assert torch.equal(before, torch.random.get_rng_state())


def test_default_device_changes_nothing():
    expected = weights("wrn-10-1", 1)
    with torch.device("meta"):
        model = models.build("wrn-10-1", num_classes=3, seed=1)
    assert all(p.device.type == "cpu" for p in model.parameters())
    assert torch.equal(expected, torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_case_does_not_matter():
    first = models.build("WRN-10-1", num_classes=3, seed=1)
    assert torch.equal(torch.cat([p.flatten() for p in first.parameters()]), weights("wrn-10-1", 1))


def test_available_names_the_families():
    assert {"resnet-digits", "preactresnet-18", "wrn-D-K"} <= set(models.available())


@pytest.mark.parametrize("name", ["", "resnet", "wrn-28", "wrn-28-10-1", "wrn-28-10x", "vgg"])
def test_unknown_name_lists_what_there_is(name):
    with pytest.raises(ValueError, match=rf"unknown model '{name}';.* there are .*wrn-D-K"):
        models.build(name, num_classes=10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrn-27-4", r"D must be 10, 16, .* got 27"),
        ("wrn-4-4", r"D must be 10, 16, .* got 4"),
        ("preactresnet-18-w0", "W must be at least 1, got 0"),
        ("vgg-16-w0", "W must be at least 1, got 0"),
        ("cnn-small-w0", "W must be at least 1, got 0"),
        ("cnn-large-w0", "W must be at least 1, got 0"),
        ("wrn-28-0", "K must be at least 1, got 0"),
        ("resnet-18", r"D must be 8, 14, 20, .* got 18; .*torchvision:resnet18"),
        ("resnet-2", r"D must be 8, 14, 20, .* got 2;"),
    ],
)
def test_numbers_out_of_range(name, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, num_classes=10)


def test_wrong_counts():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        models.build("wrn-10-1", num_classes=0)
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        models.build("wrn-10-1", num_classes=10, in_channels=0)


def test_torchvision():
    pytest.importorskip("torchvision", exc_type=Exception)
    build = models.build
    first, again = (build("torchvision:resnet18", num_classes=7, seed=3) for _ in range(2))
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert first.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(ValueError, match=r"no classifier 'resnet19'; did you mean .*resnet18"):
        build("torchvision:resnet19", num_classes=7)
    with pytest.raises(ValueError, match="takes 3 channels, got in_channels=1"):
        build("torchvision:resnet18", num_classes=7, in_channels=1)


def test_timm():
    pytest.importorskip("timm", reason="timm is optional and not installed")
    model = models.build("timm:resnet18", num_classes=7, in_channels=1, seed=3)
    assert model.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 7)
    with pytest.raises(ValueError, match="timm has no classifier 'nothing'"):
        models.build("timm:nothing", num_classes=7)


@pytest.mark.parametrize(("package", "of"), [("torchvision", "vision"), ("timm", "timm")])
def test_missing_package_is_named(monkeypatch, package, of):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'needs {package}: pip install "repsim_fast\[{of}\]"'):
        models.build(f"{package}:resnet18", num_classes=10)


def test_package_for_another_torch(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ImportError, match="does not fit this torch: operator torchvision::nms"):
        models.build("torchvision:resnet18", num_classes=10)
