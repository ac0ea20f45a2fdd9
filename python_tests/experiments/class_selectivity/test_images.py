"""Corrupted and mixed images."""

import numpy as np
import pytest
import torch

from experiments.class_selectivity import corruptions
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


def test_published_files(monkeypatch, tmp_path):
    monkeypatch.setattr(corruptions, "PUBLISHED_IMAGES", 4)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "fog.npy", pixels)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(4, dtype=np.uint8), 5))
    assert corruptions.published_kinds(tmp_path) == ("fog",)
    assert corruptions.published_kinds(tmp_path / "nowhere") == ()
    x, y = corruptions.published(tmp_path, "fog", 3, 2)
    assert np.array_equal((x * 255).round().byte().permute(0, 2, 3, 1).numpy(), pixels[8:10])
    assert y.tolist() == [0, 1]
    np.save(tmp_path / "fog.npy", pixels[:5])
    with pytest.raises(ValueError, match=r"expected fog.npy \(20, 32, 32, 3\)"):
        corruptions.published(tmp_path, "fog", 1, 2)


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
