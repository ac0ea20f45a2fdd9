"""Paths stand for recordings wherever a model may stand; what is none is said to be none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from python_tests.comparison.test_recordings import SETTINGS, same
from repsim_fast import Recording, SimilarityResult, compare, compare_zoo, record


@pytest.fixture
def recordings(
    net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
) -> dict[str, Recording]:
    models = {"a": net_a, "b": net_b}
    return {n: record(m, images, tmp_path / n, **SETTINGS) for n, m in models.items()}


@pytest.mark.parametrize("kind", [str, Path])
def test_in_place_of_any_model(
    recordings: dict[str, Recording], net_b: nn.Module, images: Tensor, kind: Callable[[Any], Any]
) -> None:
    one, two = recordings["a"], recordings["b"]
    a, b = kind(one.path), kind(two.path)
    want = compare([one, two])
    same(want, compare(a, b))
    same(want, compare(one, b))
    for models in ((a, b), (a, two), (one, b)):
        same(want, compare(*models, images, **SETTINGS))
        same(want, compare(*models, data=images, **SETTINGS))
    mixed = compare({"a": one, "Sequential": net_b}, images, **SETTINGS)
    same(mixed, compare(a, net_b, images, **SETTINGS))
    assert compare(net_b, a, images, **SETTINGS).models == ("Sequential", "a")
    assert compare(a).models == ("a",)


def test_paths_without_a_recording(
    recordings: dict[str, Recording], net_a: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    path = str(recordings["a"].path)
    with pytest.raises(TypeError, match="got str 'nowhere', which is no folder of a recording"):
        compare(path, "nowhere", images)
    with pytest.raises(FileNotFoundError, match="expected the folder of a recording, got 'nowh"):
        compare(path, Path("nowhere"))
    with pytest.raises(TypeError, match="data must be"):
        compare(net_a, "digits")
    with pytest.raises(FileNotFoundError, match="got a folder without"):
        compare(path, tmp_path)


@pytest.mark.parametrize("wrong", [None, 3, [None], {"a": None}, [nn.ReLU()]])
def test_from_recordings_of_something_else(wrong: Any) -> None:
    with pytest.raises(TypeError, match="recordings: expected recordings or their paths, got "):
        SimilarityResult.from_recordings(wrong)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("path", lambda path, x: record(nn.Flatten(), x, path)),
        ("folder", lambda path, x: compare_zoo({"a": nn.Flatten()}, x, path)),
        ("resume", lambda path, x: compare(nn.Flatten(), x, resume=path)),
    ],
    ids=["record", "compare_zoo", "compare"],
)
def test_no_path(
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    call: Callable[[Any, Tensor], object],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{argument}: expected the path of a folder, got ''"):
        call("", images)
    with pytest.raises(TypeError, match=f"{argument}: expected the path of a folder, got 3"):
        call(3, images)
    assert not os.listdir()


def test_record_asks_for_a_path(images: Tensor) -> None:
    with pytest.raises(TypeError, match="path: expected the path of a folder, got None"):
        record(nn.Flatten(), images, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("shuffle", ["no", 3, [True]])
def test_shuffle_is_true_or_false(images: Tensor, tmp_path: Path, shuffle: Any) -> None:
    with pytest.raises(TypeError, match="shuffle must be True, False or None, got "):
        record(nn.Flatten(), images, tmp_path / "a", shuffle=shuffle)
    with pytest.raises(TypeError, match="shuffle must be True, False or None, got "):
        compare(nn.Flatten(), images, shuffle=shuffle)


def test_a_merged_result_is_not_extended(
    recordings: dict[str, Recording], net_a: nn.Module, tmp_path: Path
) -> None:
    others = record(net_a, torch.rand(40, 3, 8, 8), tmp_path / "other", name="a", **SETTINGS)
    merged = compare([recordings["a"]]).merge(compare([others]))
    paths = (str(recordings["a"].path), str(others.path))
    assert merged.settings["recordings"]["a"] == "; ".join(paths)
    assert merged.settings["merged"] == 2
    with pytest.raises(ValueError, match="result of one comparison, got a merged one"):
        merged.extend(recordings["b"])


def test_recordings_that_have_moved(recordings: dict[str, Recording], tmp_path: Path) -> None:
    result = compare([recordings["a"]])
    shutil.move(recordings["a"].path, tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="recordings= says where those of this result are"):
        result.extend(recordings["b"])
    extended = result.extend(recordings["b"], recordings={"a": tmp_path / "moved"})
    assert extended.models == ("a", "b")
