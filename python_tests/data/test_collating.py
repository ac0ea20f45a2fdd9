"""Samples of any structure become batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from repsim_fast import compare
from repsim_fast.data.batches import open_data
from repsim_fast.data.collating import collate


class Pair(NamedTuple):
    x: Any
    y: Any


@pytest.mark.parametrize(
    "sample",
    [
        lambda i: (torch.full((3, 2), float(i)), i),
        lambda i: Pair(np.full((2,), i), 0.5 * i),
        lambda i: {"x": torch.tensor(i), "y": {"z": [torch.ones(2) * i, torch.zeros(1)]}},
        lambda i: (np.float32(i), np.int64(i), True, np.bool_(i % 2)),
        lambda i: (0.5 * i, i),
        lambda i: {"text": f"cat {i}", "n": i},
    ],
)
def test_as_torch_does(sample: Any):
    samples = [sample(i) for i in range(4)]
    found, wanted = collate(samples), default_collate(samples)

    def same(one: Any, other: Any) -> None:
        assert type(one) is type(other)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        elif isinstance(one, (list, tuple)):
            assert len(one) == len(other)
            list(map(same, one, other))
        elif isinstance(one, dict):
            assert list(one) == list(other)
            list(map(same, one.values(), other.values()))
        else:
            assert one == other

    same(found, wanted)


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 4), ("P", 3), ("1", 1), ("CMYK", 3)]
)
def test_pictures_are_in_0_to_1(mode: str, channels: int):
    white = Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode)
    black = Image.new("RGB", (5, 4)).convert(mode)
    found = collate([{"image": white}, {"image": black}])["image"]
    assert found.shape == (2, channels, 4, 5)
    assert found.dtype == torch.float32
    assert (found[0] == 1).all()
    assert (found[1, :3] == 0).all()


def test_pictures_whose_range_is_not_known():
    with pytest.raises(ValueError, match="expected pictures of 8 bits a channel, got mode 'I;16'"):
        collate([Image.new("I;16", (2, 2))])


def test_lists_of_tokens_are_rows():
    found = collate([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6]}])
    assert found["input_ids"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_what_has_no_one_shape_stays_a_list():
    samples = [{"boxes": torch.ones(i, 4), "ids": [7] * i, "x": torch.ones(2)} for i in (1, 3)]
    found = collate(samples)
    assert [len(boxes) for boxes in found["boxes"]] == [1, 3]
    assert len(found["ids"]) == 2
    assert found["x"].shape == (2, 2)


class Scenes(Dataset[Any]):
    """Pictures with boxes and a text."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, row: int) -> Any:
        pixels = np.random.default_rng(row).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        boxes = torch.ones(row % 3, 4)
        return {"image": Image.fromarray(pixels), "boxes": boxes, "caption": f"a cat {row}"}


def test_pictures_are_compared():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    scenes = Scenes()
    images = collate([scenes[row] for row in range(len(scenes))])["image"]
    found, wanted = (compare(net, data, batch_size=8).value for data in (scenes, images))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("label", [3, "cat", torch.tensor(3)])
def test_single_samples_by_name_are_no_batches(label: Any):
    items = [{"image": torch.rand(3, 8, 8), "label": label}]
    with pytest.raises(ValueError, match="is a single sample with its label"):
        list(open_data(items).batches)


def test_parts_of_a_data_set_are_offered():
    with pytest.raises(TypeError, match=r"choose one of its parts, such as data\['train'\]"):
        open_data({"train": Scenes(), "test": Scenes()})
    with pytest.raises(TypeError, match=r"repsim_fast\.data\.load\('digits'\)"):
        open_data("digits")
