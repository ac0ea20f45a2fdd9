"""CIFAR-10's Python pickles: the published form, a newer one, and hostile ones."""

from __future__ import annotations

import os
import pickle
import resource
import struct

import numpy as np
import pytest

from repsim_fast import data

CLASSES = ["airplane", "automobile", "bird"]


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Write {"labels": ..., "data": ...} opcode by opcode as Python 2's cPickle did, protocol 2."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    raw = pixels.tobytes()
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b")
    array += b"\x87R(K\x01" + b"K" + bytes([len(pixels)]) + b"M\x00\x0c\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + string(b"labels") + numbers + string(b"data") + array + b"u."


def batch(start: int) -> tuple[np.ndarray, list[int]]:
    pixels = np.repeat(np.arange(start, start + 4, dtype=np.uint8)[:, None], 3072, axis=1)
    pixels[:, 1024] = 7  # first pixel of the green plane
    pixels[:, 1] = 9  # second pixel of the first row of the red plane
    return pixels, [0, 1, 2, 0]


@pytest.fixture(params=["python 2", "python 3"])
def folder(request, tmp_path):
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    for index, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels, labels = batch(10 * index)
        if request.param == "python 2":
            content = python2_pickle(pixels, labels)
        else:
            content = pickle.dumps({"data": pixels, "labels": labels}, protocol=4)
        (inner / name).write_bytes(content)
    (inner / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))
    return tmp_path


def test_python2_form_is_what_pickle_reads(tmp_path):
    pixels, labels = batch(3)
    content = pickle.loads(python2_pickle(pixels, labels), encoding="latin1")
    np.testing.assert_array_equal(content["data"], pixels)
    assert content["labels"] == labels


def test_splits(folder):
    train, test = (data.load(f"cifar10:{folder}", split) for split in ("train", "test"))
    assert train.images.shape == (20, 3, 32, 32)
    assert train.images[:, 0, 5, 5].tolist() == [10 * k + i for k in range(5) for i in range(4)]
    assert (train.images[:, 1, 0, 0] == 7).all()
    assert (train.images[:, 0, 0, 1] == 9).all()
    assert test.images[:, 2, 0, 0].tolist() == [50, 51, 52, 53]
    assert test.labels.tolist() == [0, 1, 2, 0]
    assert (test.classes, test.name) == (tuple(CLASSES), "cifar10")


def test_inner_folder_limit_and_size(folder):
    path = folder / "cifar-10-batches-py"
    part = data.load(f"cifar10:{path}", "train", limit=7, size=16)
    assert part.images.shape == (7, 3, 16, 16)
    assert (part.images[:, 0, 8, 8] % 10 % 3 == part.labels).all()


class Hostile:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_something_is_refused_before_it_does(folder, tmp_path, protocol):
    hostile = Hostile()
    hostile.path = str(tmp_path / "made")
    content = pickle.dumps({"data": hostile, "labels": []}, protocol=protocol)
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"test_batch: it asks for \w+\.mkdir, .* not allowed"):
        data.load(f"cifar10:{folder}", "test")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(folder, name):
    content = b"c__builtin__\n" + name.encode() + b"\n(U\x011tR."
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}, which is not allowed"):
        data.load(f"cifar10:{folder}", "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dictionary, got list"),
        ({"labels": [0]}, "'data' must be a two-dimensional uint8 array"),
        ({"data": np.zeros((1, 5), np.uint8), "labels": [0]}, "3072 columns, got 5"),
        ({"data": np.zeros((1, 3072)), "labels": [0]}, "two-dimensional uint8 array"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "must be a list of 2 numbers"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}, "must be a list of 1 numbers"),
        ({"data": np.zeros((1, 3072), np.uint8)}, "must be a list of 1 numbers"),
    ],
)
def test_wrong_content(folder, content, message):
    file = folder / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(ValueError, match=message):
        data.load(f"cifar10:{folder}", "test")


def test_class_names_must_be_there(folder):
    (folder / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"batches.meta: 'label_names' must be a list, got None"):
        data.load(f"cifar10:{folder}", "test")


def test_damaged_and_missing_files_are_named(folder):
    file = folder / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot read the CIFAR-10 file .*test_batch"):
        data.load(f"cifar10:{folder}", "test")
    file.unlink()
    with pytest.raises(ValueError, match="there is no test_batch in"):
        data.load(f"cifar10:{folder}", "test")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # an entry far behind the first
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # a string of a terabyte
        b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",  # an array of any size
    ],
)
def test_a_small_pickle_cannot_ask_for_much_memory(tmp_path, content):
    (tmp_path / "test_batch").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="test_batch"):
        data.load(f"cifar10:{tmp_path}", "test")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
