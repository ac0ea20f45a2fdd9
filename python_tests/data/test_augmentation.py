"""Random crop and flip of whole batches, against one image at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from repsim_fast.data import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def possible(image: torch.Tensor, padding: int, *, flip: bool) -> list[tuple[int, int, bool]]:
    """Name all (row, column, flipped) and their crops of one image."""
    _, height, width = image.shape
    padded = F.pad(image, (padding,) * 4)
    crops = {}
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[:, row : row + height, column : column + width]
            crops[row, column, False] = crop
            if flip:
                crops[row, column, True] = crop.flip(2)
    return crops


@pytest.mark.parametrize("flip", [True, False])
def test_each_image_is_one_of_its_own_crops(flip):
    images = torch.rand(400, 2, 5, 7, generator=generator(1))
    augmented = augment(images, generator=generator(), padding=1, flip=flip)
    seen = set()
    for image, result in zip(images, augmented, strict=True):
        crops = possible(image, 1, flip=flip)
        matching = [key for key, crop in crops.items() if torch.equal(crop, result)]
        assert len(matching) == 1
        seen.update(matching)
    assert len(seen) == (18 if flip else 9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_shape_dtype_and_input_stay(dtype):
    images = (torch.rand(6, 3, 8, 8, generator=generator(1)) * 255).to(dtype)
    before = images.clone()
    augmented = augment(images, generator=generator())
    assert augmented.shape == images.shape
    assert augmented.dtype == dtype
    assert augmented.is_contiguous()
    assert torch.equal(images, before)


def test_same_generator_same_result_and_global_state_stays():
    images = torch.rand(6, 3, 8, 8, generator=generator(1))
    before = torch.random.get_rng_state()
    assert torch.equal(
        augment(images, generator=generator(5)), augment(images, generator=generator(5))
    )
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_padding_and_no_flip_changes_nothing():
    images = torch.rand(6, 3, 8, 8, generator=generator(1))
    assert torch.equal(augment(images, generator=generator(), padding=0, flip=False), images)


def test_empty_batch():
    assert augment(torch.rand(0, 3, 8, 8), generator=generator()).shape == (0, 3, 8, 8)


def test_errors():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got shape \(3, 8, 8\)"):
        augment(torch.rand(3, 8, 8), generator=generator())
    with pytest.raises(ValueError, match="padding must be at least 0, got -1"):
        augment(torch.rand(1, 3, 8, 8), generator=generator(), padding=-1)
