"""Images with labels in .npz files: whose arrays, in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from repsim_fast import data

Arrays = dict[str, npt.NDArray[Any]]


def images(count: int, *shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def load(tmp_path: Path, arrays: Arrays, split: str = "train", **options: Any) -> data.ImageData:
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    return data.load(f"npz:{path}", split, **options)


def test_a_file_of_medmnist(tmp_path: Path) -> None:
    arrays: Arrays = {}
    for split, count in (("train", 9), ("val", 3), ("test", 5)):
        arrays[f"{split}_images"] = images(count, 28, 28, 3)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 4
    train, test = (load(tmp_path, arrays, split) for split in ("train", "test"))
    assert str(train) == "ImageData(set train: 9 images 3x28x28, 4 classes)"
    np.testing.assert_array_equal(train.images.permute(0, 2, 3, 1), arrays["train_images"])
    np.testing.assert_array_equal(test.images.permute(0, 2, 3, 1), arrays["test_images"])
    assert test.labels.tolist() == [0, 1, 2, 3, 0]
    assert load(tmp_path, arrays, limit=2, size=14).images.shape == (2, 3, 14, 14)


def test_a_file_of_keras(tmp_path: Path) -> None:
    arrays: Arrays = {"x_train": images(6, 8, 8), "y_train": np.arange(6)}
    arrays |= {"x_test": images(4, 8, 8), "y_test": np.array([7, 0, 1, 2])}
    train, test = (load(tmp_path, arrays, split) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images[:, 0], arrays["x_train"])
    np.testing.assert_array_equal(test.images[:, 0], arrays["x_test"])
    # The largest label is among the test images.
    assert train.classes == test.classes == tuple("01234567")


def test_images_of_other_splits_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    train, test = images(4, 8, 8), images(3, 8, 8)
    np.savez(path, x_train=train, y_train=np.arange(4), x_test=test, y_test=np.array([5, 0, 1]))
    # Where they lie in the file there is something else now.
    path.write_bytes(path.read_bytes().replace(test.tobytes(), bytes(test.nbytes)))
    found = data.load(f"npz:{path}", "train")
    np.testing.assert_array_equal(found.images[:, 0], train)
    assert len(found.classes) == 6
    with pytest.raises(ValueError, match="not a readable"):
        data.load(f"npz:{path}", "test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_set_for_every_split_with_names(tmp_path: Path, split: str) -> None:
    arrays: Arrays = {"images": images(4, 3, 6, 5), "labels": np.array([1, 0, 2, 1])}
    found = load(tmp_path, {**arrays, "classes": np.array(["cat", "dog", "eel"])}, split)
    assert found.classes == ("cat", "dog", "eel")
    assert torch.equal(found.images, torch.from_numpy(arrays["images"]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, r"expected arrays train_images and train_labels.*got a \(3,\)"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.zeros(2, int)}, "uint8.*float64"),
        ({"images": images(2, 4), "labels": np.zeros(2, int)}, r"images: expected \(N, H, W\)"),
        ({"images": images(2, 3, 4, 3), "labels": np.zeros(2, int)}, "either may be the channels"),
        ({"images": images(2, 4, 4, 4), "labels": np.zeros(2, int)}, "neither has 1 or 3"),
        ({"images": images(2, 4, 4), "labels": np.zeros(3, int)}, "2 images, but 3 labels"),
        ({"images": images(2, 4, 4), "labels": np.zeros((2, 5), int)}, "one whole number"),
        ({"images": images(2, 4, 4), "labels": np.zeros(2)}, "one whole number.*float64"),
        ({"images": images(2, 4, 4), "labels": np.array([0, -1])}, "labels must lie in 0..0"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: Arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, arrays)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(b"no arrays")
    with pytest.raises(ValueError, match=r"set\.npz is not a readable \.npz file"):
        data.load(f"npz:{path}", "train")
    with pytest.raises(ValueError, match=r"no file or folder .*'npz:FILE'"):
        data.load("npz:nowhere.npz", "train")
    np.savez(path, images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    with pytest.raises(ValueError, match="not a readable"):
        data.load(f"npz:{path}", "train")
