"""Tensors come back as they were written, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from repsim_fast._core.tensor_files import MappedTensors, read_metadata, read_tensors, write_tensors

TENSORS = {
    "half": torch.arange(5).bfloat16(),
    "matrix": torch.rand(7, 3),
    "number": torch.tensor(3.0, dtype=torch.float64),
    "truth": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
}
METADATA = {"format": "test", "text": "à, 1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "file", TENSORS, METADATA)
    return tmp_path / "file"


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """By all ways of reading, which must agree."""
    metadata, tensors = read_tensors(path)
    mapped = MappedTensors(path)
    assert mapped.metadata == read_metadata(path) == metadata
    for name in mapped.names:
        assert torch.equal(mapped.get(name), tensors[name])
    return metadata, tensors


def test_as_written(path: Path) -> None:
    metadata, tensors = read(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)


def test_arrays(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros((0, 2), np.float32)}
    write_tensors(tmp_path / "file", arrays, METADATA, "numpy")
    _, found = read_tensors(tmp_path / "file", "numpy")
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    texts = {f'text {i} "\\\n\x07\x7f ü'[:40]: f"é\t{i}" for i in range(8)}  # 1 order of 362,880
    for name in ("one", "two"):
        write_tensors(tmp_path / name, TENSORS, dict(reversed(texts.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read(tmp_path / "one")[0] == texts
    assert load_file(tmp_path / "one").keys() == TENSORS.keys()  # of a reader not ours


def outcome(path: Path) -> str:
    """What is said of a file; nothing where it is as it was."""
    try:
        metadata, tensors = read(path)
    except ValueError as error:
        return str(error)
    # Blanks that fill the header, or the name of the checksums, without which it has none.
    assert METADATA.items() <= metadata.items()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    return ""


def test_every_bit_counts(path: Path) -> None:
    """In the header or behind it: the file is refused, by its name."""
    whole, refused = path.read_bytes(), 0
    for at in range(8, len(whole)):
        for bit in (0, 3, 7):
            raw = bytearray(whole)
            raw[at] ^= 1 << bit
            path.write_bytes(raw)
            said = outcome(path)
            assert not said or str(path) in said
            refused += bool(said)
    assert refused > 2.8 * (len(whole) - 8)


def test_files_of_others_have_no_checksums(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "file", {"format": "pt"})
    assert read(tmp_path / "file")[0] == {"format": "pt"}
