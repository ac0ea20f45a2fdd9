"""Files of earlier code knew samples by a part of their numbers: no two kinds are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor, nn

from repsim_fast import Recording, SimilarityResult, compare, record
from repsim_fast._core.tensor_files import read_tensors, write_tensors
from repsim_fast.comparison.recording_files import INDEX


def as_of(version: str, path: Path, kind: str = "pt") -> None:
    """Give a file another version."""
    metadata, tensors = read_tensors(path, kind)  # type: ignore[arg-type]
    write_tensors(path, tensors, metadata | {"format_version": version}, kind)  # type: ignore[arg-type]


def test_a_recording_says_what_to_do(net_a: nn.Module, images: Tensor, tmp_path: Path) -> None:
    record(net_a, images, tmp_path / "a", batch_size=10)
    as_of("1", tmp_path / "a" / INDEX)
    with pytest.raises(ValueError, match=r"earlier version .*: record the model anew, to another"):
        Recording.open(tmp_path / "a")
    with pytest.raises(ValueError, match="earlier version"):
        record(net_a, images, tmp_path / "a", batch_size=10)
    as_of("3", tmp_path / "a" / INDEX)
    with pytest.raises(ValueError, match="later version"):
        Recording.open(tmp_path / "a")


def test_a_result_does_not_know_its_samples(
    net_a: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "result.safetensors"
    new = compare([net_a], images, batch_size=10)
    new.save(path)
    as_of("3", path, "numpy")
    old = SimilarityResult.load(path)
    assert (old.order_digest, old.sample_digests) == ("", ())
    (own,) = new.settings["weights"].values()
    assert old.settings["weights"] == {"Sequential": f"{own} (of format 3)"}
    with pytest.raises(ValueError, match=r"other: expected weights .* \(of format 3\)"):
        old.merge(new)
    with pytest.warns(UserWarning, match="which samples a result is over is not known"):
        old.merge(old)


def test_sums_of_a_comparison(net_a: nn.Module, images: Tensor, tmp_path: Path) -> None:
    compare([net_a], images, batch_size=10, resume=tmp_path / "sums")
    (path,) = (tmp_path / "sums").glob("*.safetensors")
    as_of("1", path)
    with pytest.raises(ValueError, match="another version of repsim_fast: choose another folder"):
        compare([net_a], images, batch_size=10, resume=tmp_path / "sums")
    assert json.loads(read_tensors(path)[0]["sums"])["batches"]
