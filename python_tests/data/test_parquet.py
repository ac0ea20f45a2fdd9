"""Parquet files in the layout of the Hugging Face hub, made here and real."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from python_tests.support.image_files import encode, picture, write_parquet
from repsim_fast import data
from repsim_fast.data import decoding


@pytest.fixture
def folder(tmp_path):
    """Two train shards of 5 and 4 images with values 10, 11, ...; 2 test images."""
    for shard, values in enumerate([range(10, 15), range(15, 19)]):
        images = [encode(picture(value)) for value in values]
        labels = [value % 3 for value in values]
        write_parquet(tmp_path / f"train-{shard}.parquet", images, labels, names=["a", "b", "c"])
    images = [encode(picture(value)) for value in (20, 21)]
    write_parquet(tmp_path / "validation-0.parquet", images, [0, 2], names=["a", "b", "c"])
    return tmp_path


def test_shards_are_read_in_order(folder):
    train = data.load(folder, "train")
    assert train.images.shape == (9, 3, 6, 6)
    assert train.images[:, 0, 1, 1].tolist() == list(range(10, 19))
    assert train.images[:, 2, 0, 0].tolist() == [255 - value for value in range(10, 19)]
    assert train.labels.tolist() == [value % 3 for value in range(10, 19)]
    assert train.classes == ("a", "b", "c")
    assert train.name == folder.name


def test_validation_files_are_the_test_split(folder):
    test = data.load(str(folder), "test")
    assert test.images[:, 0, 1, 1].tolist() == [20, 21]
    assert test.split == "test"


@pytest.mark.parametrize("limit", range(1, 10))
def test_limit_picks_rows_across_shards_with_their_labels(folder, limit):
    part = data.load(folder, "train", limit=limit, seed=limit)
    values = part.images[:, 0, 1, 1]
    assert len(part) == limit
    assert values.tolist() == sorted(set(values.tolist()))
    assert torch.equal(part.labels, values.long() % 3)


def test_one_file(folder):
    shard = data.load(folder / "train-1.parquet", "train")
    assert shard.images[:, 0, 1, 1].tolist() == [15, 16, 17, 18]
    with pytest.raises(ValueError, match="is a train file by its name, but split is 'test'"):
        data.load(folder / "train-1.parquet", "test")


def test_a_damaged_schema_is_refused(tmp_path):
    file = write_parquet(tmp_path / "x.parquet", [encode(picture(1))] * 4, [0, 1, 2, 0])
    content = file.read_bytes()
    places = [place for place in range(len(content)) if content[place : place + 5] == b"bytes"]
    messages = []
    for place in places:
        file.write_bytes(content[:place] + b"bytez" + content[place + 5 :])
        try:
            data.load(file, "test")  # one name is for people alone
        except ValueError as error:
            messages.append(str(error))
    assert any("does not exist in schema" in message for message in messages)


@pytest.mark.parametrize("label", [30_000_000, 2**63 - 1])
def test_a_label_without_names_may_not_stand_for_millions_of_classes(tmp_path, label):
    file = write_parquet(tmp_path / "x.parquet", [encode(picture(1))] * 2, [0, label])
    with pytest.raises(ValueError, match="labels without class names must be below"):
        data.load(file, "test")


def test_names_may_be_missing(tmp_path):
    file = write_parquet(
        tmp_path / "x.parquet", [encode(picture(1))] * 2, [0, 3], image_column="img"
    )
    assert data.load(file, "test").classes == ("0", "1", "2", "3")


def test_fine_labels(tmp_path):
    file = write_parquet(
        tmp_path / "x.parquet",
        [encode(picture(1))],
        [1],
        names=["a", "b"],
        label_column="fine_label",
    )
    assert data.load(file, "test").classes == ("a", "b")


@pytest.mark.parametrize(("mode", "file_format"), [("L", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")])
def test_other_modes_become_rgb(tmp_path, mode, file_format):
    image = encode(picture(100, 8, 8, mode), file_format)
    file = write_parquet(tmp_path / "x.parquet", [image], [0])
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.mode == mode
        expected = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(data.load(file, "test").images[0], expected)


def test_different_sizes_need_size(tmp_path):
    images = [encode(picture(50, 6, 6)), encode(picture(90, 6, 12)), encode(picture(70, 9, 4))]
    file = write_parquet(tmp_path / "x.parquet", images, [0, 0, 0])
    with pytest.raises(ValueError, match=r"x.parquet, row 1: image is 12x6.* 6x6; give size"):
        data.load(file, "test")
    resized = data.load(file, "test", size=4).images
    assert resized.shape == (3, 3, 4, 4)
    assert resized[:, 0, 2, 2].tolist() == [50, 90, 70]


def test_size_cuts_the_centre(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 200
    file = write_parquet(tmp_path / "x.parquet", [encode(Image.fromarray(pixels))], [0])
    assert (data.load(file, "test", size=4).images == 200).all()


def test_threads_give_the_same_images(tmp_path, monkeypatch):
    images = [encode(picture(value % 256)) for value in range(300)]
    file = write_parquet(tmp_path / "x.parquet", images, [0] * 300)
    alone = data.load(file, "test").images
    monkeypatch.setattr(decoding, "_THREADS_FROM_BYTES", 0)
    assert torch.equal(alone, data.load(file, "test").images)


def test_broken_image_names_file_and_row(folder):
    images = [encode(picture(1))] * 4
    images[2] = images[2][: len(images[2]) // 2]
    write_parquet(folder / "train-2.parquet", images, [0] * 4)
    with pytest.raises(ValueError, match=r"train-2.parquet, row 2: cannot read the image"):
        data.load(folder, "train")


@pytest.mark.parametrize("missing", [None, b""])
def test_missing_image_names_file_and_row(tmp_path, missing):
    file = write_parquet(tmp_path / "x.parquet", [encode(picture(1)), missing], [0, 0])
    with pytest.raises(ValueError, match=r"x.parquet, row 1: there is no image"):
        data.load(file, "test")


@pytest.mark.parametrize("label", [None, -1, 2])
def test_wrong_label_names_file_and_row(tmp_path, label):
    images = [encode(picture(1))] * 3
    file = write_parquet(tmp_path / "x.parquet", images, [0, label, 1], names=["a", "b"])
    with pytest.raises(ValueError, match=r"x.parquet, row 1: label must be 0\.\.1"):
        data.load(file, "test")


def test_sixteen_bit_images_are_refused(tmp_path):
    image = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    file = write_parquet(tmp_path / "x.parquet", [encode(image)], [0])
    with pytest.raises(ValueError, match=r"row 0.*not 8-bit"):
        data.load(file, "test")


def test_missing_columns(tmp_path):
    file = write_parquet(tmp_path / "x.parquet", [encode(picture(1))], [0], image_column="pixels")
    with pytest.raises(ValueError, match="needs a column image or img, has pixels, label"):
        data.load(file, "test")
    file = write_parquet(tmp_path / "x.parquet", [encode(picture(1))], [0], label_column="y")
    with pytest.raises(ValueError, match="needs a column label or labels or fine_label"):
        data.load(file, "test")


def test_columns_of_another_type(tmp_path):
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [b"1"], "label": [0]}), file)
    with pytest.raises(ValueError, match="column 'image' must be a struct with bytes, got binary"):
        data.load(file, "test")
    pq.write_table(pa.table({"image": [{"bytes": b"1"}], "label": ["cat"]}), file)
    with pytest.raises(ValueError, match="column 'label' must hold integers, got string"):
        data.load(file, "test")


def test_unreadable_file_is_named(folder):
    (folder / "train-1.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ValueError, match=r"cannot read the parquet file .*train-1.parquet"):
        data.load(folder, "train")


def test_no_file_of_the_split_says_what_there_is(folder):
    (folder / "validation-0.parquet").unlink()
    with pytest.raises(ValueError, match=r"no test-\*.parquet or .* has train-0.parquet, train-1"):
        data.load(folder, "test")


def test_progress_only_when_asked(folder, capfd):
    data.load(folder, "train")
    assert capfd.readouterr().err == ""
    data.load(folder, "train", progress=True)
    assert "9/9" in capfd.readouterr().err


def test_real_cifar10(data_folder):
    test = data.load(data_folder / "cifar10", "test")
    assert test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert test.classes[3] == "cat"
    # Published channel means of CIFAR-10; JPEG moves them by less than this.
    means = test.tensors()[0].mean((0, 2, 3))
    torch.testing.assert_close(means, torch.tensor([0.494, 0.485, 0.450]), atol=0.005, rtol=0)


def test_real_images_of_64_and_224_pixels(data_folder):
    train = data.load(data_folder / "tiny-imagenette", "train", limit=200)
    assert train.images.shape == (200, 3, 64, 64)
    assert train.classes[-1] == "alp"
    samples = data.load(data_folder / "imagenet-samples", "test", limit=40, size=96)
    assert samples.images.shape == (40, 3, 96, 96)
    assert len(samples.classes) == 1000


def test_real_limit_matches_the_whole(data_folder):
    whole = data.load(data_folder / "tiny-imagenette", "test")
    part = data.load(data_folder / "tiny-imagenette", "test", limit=60, seed=2)
    assert torch.equal(part.images, whole.subset(60, seed=2).images)
    assert torch.equal(part.labels, whole.subset(60, seed=2).labels)


@pytest.mark.parametrize(
    "layout", ["data/{split}-0.parquet", "{split}.parquet", "default/{split}/0000.parquet"]
)
def test_layouts_of_the_hub(tmp_path, layout):
    for value, split in enumerate(("train", "validation")):
        file = tmp_path / layout.format(split=split)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(file, [encode(picture(value))], [0], names=["a"])
    found = [data.load(tmp_path, split).images[0, 0, 1, 1].item() for split in ("train", "test")]
    assert found == [0, 1]


def test_several_sets_in_a_folder_are_named(tmp_path):
    for name in ("fine", "coarse"):
        (tmp_path / name).mkdir()
        write_parquet(tmp_path / name / "train-0.parquet", [encode(picture(1))], [0])
    with pytest.raises(ValueError, match=r"several sets, choose one: .*coarse, .*fine"):
        data.load(tmp_path, "train")


def test_files_with_classes_in_other_orders(tmp_path):
    images = [encode(picture(value)) for value in range(3)]
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1, 2], names=["a", "b", "c"])
    write_parquet(tmp_path / "train-1.parquet", images, [0, 1, 2], names=["c", "b", "a"])
    write_parquet(tmp_path / "test-0.parquet", images, [0, 1, 1], names=["c", "a"])
    assert data.load(tmp_path, "train").labels.tolist() == [0, 1, 2, 2, 1, 0]
    test = data.load(tmp_path, "test")
    assert (test.classes, test.labels.tolist()) == (("a", "b", "c"), [2, 0, 0])
    write_parquet(tmp_path / "test-0.parquet", images, [0, 1, 1], names=["c", "d"])
    with pytest.raises(ValueError, match=r"test-0.parquet: has other classes .* 0 is 'c' rather"):
        data.load(tmp_path, "test")


def test_files_of_another_kind_are_told_what_else_there_is(tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"images.npz: .*; other layouts are folder:PATH"):
        data.load(tmp_path / "images.npz", "train")
