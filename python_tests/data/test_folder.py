"""Image files in class folders."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from python_tests.support.image_files import encode, picture
from repsim_fast import data


def put(root, name: str, value: int, file_format: str = "PNG") -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(picture(value, 8, 8), file_format))


@pytest.fixture
def folder(tmp_path):
    put(tmp_path, "train/cat/1.png", 10)
    put(tmp_path, "train/cat/2.JPEG", 20, "JPEG")
    put(tmp_path, "train/ant/images/1.png", 30)
    put(tmp_path, "train/dog/1.png", 40)
    put(tmp_path, "val/dog/1.png", 50)
    put(tmp_path, "val/cat/1.png", 60)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    return tmp_path


def test_classes_are_the_sorted_folders(folder):
    train = data.load(f"folder:{folder}", "train")
    assert train.classes == ("ant", "cat", "dog")
    assert train.labels.tolist() == [0, 1, 1, 2]
    assert (train.images[:, 0, 7, 7].int()[[0, 1, 3]]).tolist() == [30, 10, 40]
    assert train.name == folder.name


def test_test_labels_are_numbered_as_in_training(folder):
    test = data.load(f"folder:{folder}", "test")
    assert test.classes == ("ant", "cat", "dog")
    assert test.labels.tolist() == [1, 2]
    assert test.images[:, 0, 7, 7].tolist() == [60, 50]


def test_class_folders_alone_serve_every_split(folder):
    parts = [data.load(f"folder:{folder / 'train'}", split) for split in ("train", "test")]
    assert parts[0].labels.tolist() == parts[1].labels.tolist() == [0, 1, 1, 2]
    assert parts[1].split == "test"


def test_limit_and_size(folder):
    part = data.load(f"folder:{folder}", "train", limit=2, size=4)
    assert part.images.shape == (2, 3, 4, 4)


def test_unreadable_image_is_named(folder):
    (folder / "train/dog/2.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"dog/2.png: cannot read the image: it is none of JPEG"):
        data.load(f"folder:{folder}", "train")


def test_different_sizes_name_the_file(folder):
    (folder / "train/dog/2.png").write_bytes(encode(picture(1, 8, 9)))
    with pytest.raises(ValueError, match=r"dog/2.png: image is 9x8, the first one 8x8; give size"):
        data.load(f"folder:{folder}", "train")


def test_unknown_test_class(folder):
    put(folder, "val/emu/1.png", 1)
    with pytest.raises(ValueError, match="no training class emu"):
        data.load(f"folder:{folder}", "test")


def test_what_is_hidden_is_no_class_and_no_image(folder):
    put(folder, "train/.cache/1.png", 1)
    put(folder, "train/cat/.thumbnails/1.png", 1)
    put(folder, "train/cat/._1.png", 1)
    train = data.load(f"folder:{folder}", "train")
    assert train.classes == ("ant", "cat", "dog")
    assert len(train) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_pipes_and_devices_are_refused(folder, make):
    make(folder / "train/cat/0.png")
    with pytest.raises(ValueError, match=r"0\.png: expected a regular file"):
        data.load(f"folder:{folder}", "train")


@pytest.mark.parametrize("side", [5_800, 13_000])
def test_a_small_file_with_many_pixels_is_refused(folder, side):
    image = Image.new("1", (side, side))
    (folder / "train/cat/0.png").write_bytes(encode(image))
    with pytest.raises(ValueError, match=r"0\.png: cannot read the image: it has .* pixels"):
        data.load(f"folder:{folder}", "train", size=8)


def test_a_file_of_no_end_is_refused(folder, monkeypatch):
    monkeypatch.setattr("repsim_fast.data.folder.LARGEST_FILE", 50)
    with pytest.raises(ValueError, match=r"cannot read the image: it has more than"):
        data.load(f"folder:{folder}", "train")


def test_missing_split_says_what_there_is(tmp_path):
    put(tmp_path, "train/cat/1.png", 1)
    with pytest.raises(ValueError, match=r"no folder test or validation or val.* in .* has train"):
        data.load(f"folder:{tmp_path}", "test")


def test_nothing_to_read(tmp_path):
    with pytest.raises(ValueError, match="has no class folder"):
        data.load(f"folder:{tmp_path}", "test")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="no image file"):
        data.load(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "valid")])
def test_split_folders_have_several_names(tmp_path, train, test):
    put(tmp_path, f"{train}/ant/1.png", 10)
    put(tmp_path, f"{train}/cat/1.png", 20)
    put(tmp_path, f"{test}/cat/1.png", 30)
    found = data.load(f"folder:{tmp_path}", "test")
    assert (found.classes, found.labels.tolist()) == (("ant", "cat"), [1])
    assert len(data.load(f"folder:{tmp_path}", "train")) == 2


def test_classes_may_be_called_valid_and_invalid(tmp_path):
    put(tmp_path, "valid/1.png", 10)
    put(tmp_path, "invalid/1.png", 10)
    assert data.load(f"folder:{tmp_path}", "test").classes == ("invalid", "valid")


@pytest.mark.parametrize(
    "places", ["{split}_set/{name}", "{name}/{split}"], ids=["unknown names", "inside classes"]
)
def test_splits_taken_for_classes_are_said(tmp_path, places):
    for split in ("first", "second"):
        for name in ("ant", "cat"):
            put(tmp_path, places.format(split=split, name=name) + "/1.png", 10)
    with pytest.warns(UserWarning, match="are taken for the classes, and each has the same"):
        data.load(f"folder:{tmp_path}", "test")


def test_classes_without_images_are_said(folder):
    put(folder, "train/bee/1.JFIF", 10, "JPEG")
    (folder / "train/dog/1.png").rename(folder / "train/dog/1.avif")
    with pytest.warns(UserWarning, match=r"train: no image in dog \(files that end in"):
        train = data.load(f"folder:{folder}", "train")
    assert train.labels.tolist() == [0, 1, 2, 2]


def test_other_places_than_folders(folder):
    with pytest.raises(ValueError, match=r"expected a folder .* got the file .*1\.png"):
        data.load(f"folder:{folder / 'train/cat/1.png'}", "train")
    with pytest.raises(ValueError, match="no file or folder ''"):
        data.load("folder:", "train")
