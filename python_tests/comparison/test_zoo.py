"""Many models, one in memory at a time; those that fail do not take the others with them."""

from __future__ import annotations

import errno
import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from python_tests.comparison.test_recordings import SETTINGS, Counted, same
from repsim_fast import Recording, compare, compare_zoo, record
from repsim_fast.comparison import recording_files
from repsim_fast.comparison.recording_files import part_path


@pytest.mark.parametrize("kept", [False, True])
def test_models_factories_and_recordings(
    net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path, kept: bool
) -> None:
    third = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    zoo = {
        "a/1": net_a,
        "b": lambda: net_b,
        "..": record(third, images, tmp_path / "third", **SETTINGS),
    }
    folder = tmp_path / "zoo" if kept else None
    got = compare_zoo(zoo, images, folder, **SETTINGS)
    same(compare({"a/1": net_a, "b": net_b, "..": third}, images, **SETTINGS), got)
    assert set(got.settings["recordings"]) == ({"a/1", "b", ".."} if kept else {".."})
    if kept:
        assert sorted(path.name for path in (tmp_path / "zoo").iterdir()) == ["a%2F1", "b"]
        assert got.extend(record(net_b, images, tmp_path / "4", **SETTINGS)).models[-1] == "4"


def test_one_model_at_a_time(images: Tensor) -> None:
    alive: list[weakref.ref[nn.Module]] = []
    most = 0

    def make() -> nn.Module:
        nonlocal most
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        alive.append(weakref.ref(model))
        most = max(most, sum(one() is not None for one in alive))
        return model

    gc.collect()

    def failing() -> nn.Module:
        return nn.Sequential(make(), nn.Linear(4, 4))

    zoo = {"bad": failing, **{f"m{i}": make for i in range(4)}}
    with pytest.warns(UserWarning, match="'bad' failed"):
        result = compare_zoo(zoo, images, **SETTINGS)
    assert len(result.models) == 4
    assert most == 1


@pytest.mark.filterwarnings("ignore:cca. ")
def test_of_other_measures(net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
    options: dict[str, Any] = {**SETTINGS, "maps": "pool", "measure": "procrustes_distance"}
    models = {"a": net_a, "b": net_b}
    factories: dict[str, Any] = {"a": lambda: net_a, "b": lambda: net_b}
    same(compare(models, images, **options), compare_zoo(factories, images, **options))
    options |= {"measure": "cka", "estimator": "biased", "layers": {"a": ["0", "2"], "b": ["5"]}}
    same(compare(models, images, **options), compare_zoo(factories, images, **options))


def _unwanted() -> nn.Module:
    raise AssertionError("loaded for nothing")


_TWO: Any = {"a": _unwanted, "b": _unwanted}


def test_inputs_of_their_own(images: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    data, ids = {"a": images, "b": images.flip(-1)}, [f"image {i}" for i in range(len(images))]
    got = compare_zoo({"a": model, "b": lambda: model}, data, ids=ids, **SETTINGS)
    same(compare({"a": model, "b": model}, data, ids=ids, **SETTINGS), got)


class TestFailures:
    def test_a_recording_of_other_batches_is_seen_after_one_model(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        other = record(net_a, images, tmp_path / "other", batch_size=5)
        models = [Counted(net_a), Counted(net_a)]
        zoo: dict[str, Any] = {"a": models[0], "b": models[1], "other": other}
        with pytest.raises(ValueError, match=r"recording 'a' .* differ in batch_size"):
            compare_zoo(zoo, images, **SETTINGS)
        assert models[0].passes > 0
        assert models[1].passes == 0

    def test_a_full_disk_ends_it(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, third = Counted(net_a), Counted(net_a)

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "cannot write: No space left on device")

        def second() -> nn.Module:
            monkeypatch.setattr(recording_files, "write_tensors", full)
            return net_a

        zoo: dict[str, Any] = {"first": first, "second": second, "third": third}
        with pytest.raises(OSError, match="No space left"):
            compare_zoo(zoo, images, tmp_path, **SETTINGS)
        assert third.passes == 0
        monkeypatch.undo()
        passes = first.passes
        result = compare_zoo({**zoo, "second": net_a}, images, tmp_path, **SETTINGS)
        assert result.models == ("first", "second", "third")
        assert first.passes == passes + 2  # to see that it is the same model

    def test_the_others_are_kept_and_it_is_named(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        def missing() -> nn.Module:
            raise FileNotFoundError("no such checkpoint\nand more")

        failing, counted = Counted(net_a, fail_at=3), Counted(net_b)
        zoo: dict[str, Any] = {
            "good": counted,
            "halfway": failing,
            "missing": missing,
            "none": lambda: None,
            "gone": tmp_path / "nowhere",
        }
        with pytest.warns(UserWarning, match="failed and is left out") as caught:
            result = compare_zoo(zoo, images, tmp_path / "zoo", **SETTINGS)
        assert result.models == ("good",)
        assert set(result.settings["failed"]) == set(zoo) - {"good"}
        texts = [str(w.message) for w in caught]
        assert (
            "model 'missing' failed and is left out: FileNotFoundError: no such checkpoint" in texts
        )
        assert any("'halfway'" in t and "the machine is gone" in t for t in texts)
        assert any("'none'" in t and "got NoneType" in t for t in texts)
        # The same call again repeats what failed alone, and two batches of what is there.
        passes, failing.fail_at = counted.passes, None
        again = compare_zoo(
            {"good": counted, "halfway": failing}, images, tmp_path / "zoo", **SETTINGS
        )
        assert again.models == ("good", "halfway")
        assert "failed" not in again.settings
        assert counted.passes == passes + 2

    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            (lambda part: part.write_bytes(part.read_bytes()[:-1]), "not a readable safetensors"),
            (lambda part: part.unlink(), "is missing: the recording has 1 parts"),
        ],
        ids=["cut", "missing"],
    )
    def test_a_damaged_recording_is_left_out(
        self,
        net_a: nn.Module,
        net_b: nn.Module,
        images: Tensor,
        tmp_path: Path,
        harm: Callable[[Path], object],
        message: str,
    ) -> None:
        zoo, folder = {"a": net_a, "b": net_b}, tmp_path / "zoo"
        compare_zoo(zoo, images, folder, **SETTINGS)
        harm(part_path(folder / "a", 0))
        with pytest.raises((ValueError, OSError), match=message):
            record(net_a, images, folder / "a", **SETTINGS)
        for entry in (net_a, folder / "a"):
            with pytest.warns(UserWarning, match=f"'a' failed .*{message}") as caught:
                left = compare_zoo({**zoo, "a": entry}, images, folder, **SETTINGS)
            assert left.models == ("b",)
            assert f"remove the folder '{folder / 'a'}' to record it again" in str(
                caught[0].message
            )
        shutil.rmtree(folder / "a")
        assert compare_zoo(zoo, images, folder, **SETTINGS).models == ("a", "b")

    def test_of_all(self, net_a: nn.Module, images: Tensor) -> None:
        with pytest.raises(RuntimeError, match="every model failed: 'a': ValueError: every: "):
            compare_zoo({"a": net_a, "b": net_a}, images, every=0)

    def test_an_interrupt_is_none(self, images: Tensor) -> None:
        def stop() -> nn.Module:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compare_zoo({"a": stop}, images)

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda x: compare_zoo([nn.ReLU()], x), TypeError, "zoo: expected a mapping"),
            (lambda x: compare_zoo({}, x), ValueError, "zoo: expected at least one model"),
            (lambda x: compare_zoo({"a": 3}, x), TypeError, "zoo: .* for 'a', got int"),
            (lambda x: compare_zoo({1: nn.ReLU()}, x), TypeError, "zoo: expected names"),
            (lambda x: compare_zoo({"a": nn.ReLU()}), TypeError, "data is missing"),
            (lambda x: compare_zoo({"\ud800": nn.ReLU()}, x), ValueError, "zoo: name: expected"),
            (lambda x: compare_zoo(_TWO, x, layers={"c": "1"}), ValueError, "layers: no model is"),
            (lambda x: compare_zoo(_TWO, x, inputs={"c": None}), ValueError, "inputs: no model"),
            (lambda x: compare_zoo(_TWO, x, batchsize=8), TypeError, "argument 'batchsize'"),
            (
                lambda x: compare_zoo(_TWO, iter(x.split(8))),
                ValueError,
                "data: .* each of 2 models",
            ),
            (lambda x: compare_zoo(_TWO, {"a": x}), ValueError, "data: .* none for 'b'"),
            (lambda x: compare_zoo(_TWO, x, device="vulkan"), RuntimeError, "device='vulkan'"),
            (lambda x: compare_zoo(_TWO, x, __file__), OSError, "it is not a folder"),
        ],
        ids=range(13),
    )
    def test_bad_zoos(
        self, images: Tensor, call: Callable[[Tensor], object], error: Any, message: str
    ) -> None:
        with pytest.raises(error, match=message):
            call(images)


def test_names_that_no_folder_can_have(images: Tensor, tmp_path: Path) -> None:
    names = ["x" * 300, "x" * 300 + "y", "", "CON/..", "é"]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    result = compare_zoo(dict.fromkeys(names, model), images, tmp_path, **SETTINGS)
    assert result.models == tuple(names)
    assert len({Recording.open(p).path for p in result.settings["recordings"].values()}) == 5
    assert torch.isfinite(torch.from_numpy(result.value)).all()
