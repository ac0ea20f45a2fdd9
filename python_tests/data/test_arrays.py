"""Arrays of a file by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from repsim_fast.data import load_arrays

IDS = torch.arange(12).reshape(6, 2)
MASK = IDS % 3 > 0


def saved(folder: Path, suffix: str, **arrays: Any) -> Path:
    path = folder / f"arrays{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_arrays_come_as_they_were(tmp_path: Path, suffix: str) -> None:
    found = load_arrays(saved(tmp_path, suffix, input_ids=IDS, attention_mask=MASK))
    assert {name: array.dtype for name, array in found.items()} == {
        "input_ids": torch.int64,
        "attention_mask": torch.bool,
    }
    assert torch.equal(found["input_ids"], IDS)
    assert torch.equal(found["attention_mask"], MASK)


def test_fewer_are_drawn_in_their_order(tmp_path: Path) -> None:
    path = saved(tmp_path, ".npz", x=IDS, y=IDS[:, 0])
    few = load_arrays(path, limit=3, seed=1)
    assert len(few["x"]) == 3
    assert torch.equal(few["x"][:, 0], few["y"])
    assert bool((few["y"].diff() > 0).all())
    assert torch.equal(load_arrays(path, limit=3, seed=1)["x"], few["x"])
    assert torch.equal(load_arrays(path, limit=9)["x"], IDS)
    with pytest.raises(ValueError, match="limit must be at least 1 or None, got 0"):
        load_arrays(path, limit=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected arrays of the same samples (N, ...), got none"),
        ({"x": IDS, "y": IDS[:4]}, "got x (6, 2), y (4, 2)"),
        ({"x": IDS, "n": np.float64(6)}, "got x (6, 2), n ()"),
        ({"x": np.array(["a", "b"])}, "expected numbers, got x of <U1"),
        ({"x": np.array([{}, {}])}, "is not a readable .npz file of numbers: Object arrays"),
        ({f"x{i}": np.zeros(i) for i in range(20)}, "x7 (7,), ..."),
    ],
)
def test_arrays_of_no_samples(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, ".npz", **arrays)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_arrays(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for suffix in (".npz", ".safetensors"):
        with pytest.raises(FileNotFoundError):
            load_arrays(tmp_path / f"none{suffix}")
        (tmp_path / f"text{suffix}").write_text("a text")
        with pytest.raises(ValueError, match="is not a readable"):
            load_arrays(tmp_path / f"text{suffix}")
    whole = saved(tmp_path, ".npz", x=torch.zeros(1000)).read_bytes()
    for end in (len(whole) // 2, len(whole) - 10):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is not a readable"):
            load_arrays(tmp_path / "cut.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ValueError, match="it has one array without a name"):
        load_arrays(tmp_path / "one.npz")
    with pytest.raises(ValueError, match="path must end in"):
        load_arrays(tmp_path / "tokens.csv")
