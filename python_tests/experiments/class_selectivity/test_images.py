"""Corrupted and mixed images."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.class_selectivity import corruptions, published
from experiments.class_selectivity.mixing import OPERATIONS, mixed_chains
from repsim_fast.data import augmentation


@pytest.mark.parametrize("kind", corruptions.SIMPLE)
@pytest.mark.parametrize("shape", [(20, 1, 8, 8), (4, 3, 32, 32)])
def test_severities_ascend_and_repeat(kind, shape):
    x = 0.25 + 0.5 * torch.rand(shape)
    moved = []
    for severity in corruptions.SEVERITIES:
        images = corruptions.corrupted("simple", kind, severity, x)
        assert images.shape == x.shape
        assert 0 <= images.min() <= images.max() <= 1
        assert torch.equal(images, corruptions.corrupted("simple", kind, severity, x))
        moved.append(float((images - x).norm()))
    assert moved == sorted(moved)
    assert moved[0] < 0.9 * moved[-1]


def test_a_blend_has_all_kinds():
    kinds = [torch.full((7, 1, 2, 2), float(k)) for k in range(3)]
    assert corruptions.blend(kinds)[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_published_arrays(monkeypatch, tmp_path):
    monkeypatch.setattr(published, "CIFAR_IMAGES", 4)
    assert published.find("cifar10", tmp_path) is None
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "fog.npy", pixels)
    np.save(folder / "labels.npy", np.tile(np.arange(4, dtype=np.uint8), 5))
    found = published.find("cifar10", tmp_path)
    assert found.kinds == ("fog",)
    x, y = found.images("fog", 3, 2)
    assert np.array_equal((x * 255).round().byte().permute(0, 2, 3, 1).numpy(), pixels[8:10])
    assert y.tolist() == [0, 1]
    np.save(folder / "fog.npy", pixels[:5])
    with pytest.raises(ValueError, match=r"expected fog.npy \(20, 32, 32, 3\)"):
        found.images("fog", 1, 2)


def test_published_folders(monkeypatch, tmp_path):
    """Labels are the places of the sorted identifiers; all kinds give the same images."""
    monkeypatch.setattr(published, "TINY_CLASSES", 3)
    root = tmp_path / "Tiny-ImageNet-C"
    for kind, severity in itertools.product(("fog", "snow"), corruptions.SEVERITIES):
        for label, name in enumerate(("n01", "n02", "n10")):
            folder = root / kind / f"{severity}" / name
            folder.mkdir(parents=True)
            for image in range(2):
                grey = 80 * label + 10 * image + severity
                Image.new("RGB", (64, 64), (grey, grey, grey)).save(folder / f"val_{image}.JPEG")
    (root / "unfinished" / "1").mkdir(parents=True)
    found = published.find("tiny-imagenet-20k", tmp_path)
    assert found.kinds == ("fog", "snow")
    x, y = found.images("fog", 2, 6)
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    greys = (255 * x[:, 0, 0, 0]).round().tolist()
    assert greys == [2, 12, 82, 92, 162, 172]
    assert torch.equal(found.images("snow", 2, 4)[0], found.images("fog", 2, 4)[0])
    monkeypatch.setattr(published, "TINY_CLASSES", 200)
    with pytest.raises(ValueError, match=r"2: expected 200 classes of images .*got 3 of"):
        found.images("fog", 2, 4)
    assert published.find("digits", tmp_path) is None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_keep_images(operation):
    x = torch.rand(6, 3, 16, 16)
    changed = operation(x, torch.linspace(-1, 1, 6))
    assert changed.shape == x.shape
    assert -1e-6 <= changed.min() <= changed.max() <= 1 + 1e-6
    assert not torch.equal(changed, x)


def test_mixed_chains_follow_their_generator():
    x, augment = torch.rand(50, 1, 8, 8), mixed_chains(augmentation.get("crop"))
    before = x.clone()
    first = augment(x, torch.Generator().manual_seed(1))
    assert torch.equal(x, before)
    assert torch.equal(first, augment(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, augment(x, torch.Generator().manual_seed(2)))
    assert -1e-6 <= first.min() <= first.max() <= 1 + 1e-6
