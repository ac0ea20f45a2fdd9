"""Labels, summaries and files of results."""

from __future__ import annotations

import csv
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from python_tests.comparison.made_result import make
from repsim_fast._core.tensor_files import read_tensors
from repsim_fast.comparison.grid import Array
from repsim_fast.comparison.result import SimilarityResult


class TestGrids:
    result = make()

    def test_between_cuts_out_the_block(self) -> None:
        grid = self.result.between("a", "c")
        assert (grid.row_model, grid.column_model) == ("a", "c")
        np.testing.assert_array_equal(grid.value, self.result.value[:3, 5:])
        np.testing.assert_array_equal(self.result.between("c", "a").value, grid.value.T)
        np.testing.assert_array_equal(self.result.between(0, -1).value, grid.value)

    @pytest.mark.parametrize("model", ["z", 3, -4, 1.0, None])
    def test_no_such_model(self, model: str | int) -> None:
        with pytest.raises(ValueError, match=r"b must be a model of \('a', 'b', 'c'\)"):
            self.result.between("a", model)

    def test_grids_within_come_first(self) -> None:
        titles = [grid.title for grid in self.result.grids()]
        assert titles == ["within a", "within b", "within c", "a / b", "a / c", "b / c"]

    def test_means(self) -> None:
        grid = self.result.between("a", "c")
        v = grid.value
        off = [v[0, 1], v[0, 2], v[1, 0], v[1, 2], v[2, 0], v[2, 1]]
        assert grid.mean() == pytest.approx(v.mean())
        assert grid.mean_off_diagonal() == pytest.approx(np.mean(off))
        assert grid.mean_same_layer() == pytest.approx(np.mean([v[0, 0], v[1, 1], v[2, 2]]))
        np.testing.assert_allclose(
            grid.mean_by_distance(),
            [grid.mean_same_layer(), np.mean([v[0, 1], v[1, 2], v[1, 0], v[2, 1]]),
             (v[0, 2] + v[2, 0]) / 2],
        )  # fmt: skip

    def test_means_leave_out_layers_without_a_value(self) -> None:
        result = make((3,))
        result.value[1] = result.value[:, 1] = np.nan
        grid = result.between(0, 0)
        assert grid.mean_off_diagonal() == pytest.approx(result.value[0, 2])
        assert grid.mean_by_distance()[2] == pytest.approx(result.value[0, 2])
        assert np.isnan(grid.mean_by_distance()[1])
        assert result.undefined_layers == (("a", "layer1"),)

    def test_one_layer_of_each_has_nothing_beside_the_diagonal(self) -> None:
        result = make((1, 1))
        assert result.between("a", "b").summary() == {"mean same layer": result.value[0, 1]}
        assert result.between("a", "b").mean_with_error().value == result.value[0, 1]
        assert result.between("a", "a").summary() == {"mean of all pairs": 1.0}
        assert "nan" not in repr(result)

    def test_diagonals_need_square_grids(self) -> None:
        grid = self.result.between("a", "b")
        for method in (grid.mean_off_diagonal, grid.mean_same_layer, grid.mean_by_distance):
            with pytest.raises(ValueError, match="got 3 layers of 'a' and 2 of 'b'"):
                method()
        assert list(grid.summary()) == ["mean of all pairs"]

    def test_grid_as_a_table(self) -> None:
        table = self.result.between("a", "b").to_dataframe()
        assert table.shape == (3, 2)
        assert table.loc["layer2", "layer1"] == self.result.value[2, 4]


class TestResult:
    result = make()

    def test_long_table(self) -> None:
        table = self.result.to_dataframe()
        assert len(table) == 64
        one = table.query(
            "model_a == 'b' and layer_a == 'layer1' and model_b == 'c' and layer_b == 'layer2'"
        )
        assert one["value"].item() == self.result.value[4, 7]
        assert one["standard_error"].item() == 0.01

    def test_csv_is_the_table(self, tmp_path: Path) -> None:
        result = make()
        result.value[0, 1] = np.nan
        path = result.to_csv(tmp_path / "grid.csv")
        expected = result.to_dataframe().to_csv(index=False, lineterminator="\n")
        assert path.read_text() == expected
        assert ",,0.01,,,\n" in expected

    @pytest.mark.parametrize("table", [make().to_dataframe, make().grids()[0].to_dataframe])
    def test_tables_without_pandas_say_what_to_install(
        self, table: Callable[[], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r'pip install "repsim_fast\[tables\]"'):
            table()

    def test_repr_tells_what_matters(self) -> None:
        text = repr(self.result)
        assert "100 samples in 4 batches" in text
        assert "a (3 layers), b (2 layers), c (3 layers)" in text
        assert "within b: mean off-diagonal" in text
        assert "a / c: mean same layer" in text
        assert "3 layers) x c (3 layers)" in repr(self.result.between("a", "c"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"models": ("a", "a", "b")}, "models must be different names"),
            ({"models": ("a",)}, "models must be different names, one for each of 3"),
            ({"value": np.zeros((3, 3))}, r"value must have shape \(8, 8\).*got \(3, 3\)"),
            ({"standard_error": np.zeros(8)}, "standard_error must have shape"),
        ],
    )
    def test_labels_must_fit(self, changes: dict[str, object], message: str) -> None:
        fields = {**vars(self.result), **changes}
        with pytest.raises(ValueError, match=message):
            SimilarityResult(**fields)


class TestFiles:
    result = make()

    def test_round_trip_is_exact(self, tmp_path: Path) -> None:
        self.result.value[0, 1] = np.nan
        path = self.result.save(tmp_path / "new folder" / "result.safetensors")
        loaded = SimilarityResult.load(path)
        for name, value in vars(self.result).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(loaded, name), value)
            else:
                assert getattr(loaded, name) == value
        assert loaded.value.dtype == np.float64
        assert isinstance(loaded.layers[0], tuple)
        assert [p.name for p in path.parent.iterdir()] == ["result.safetensors"]

    def test_permissions_are_those_of_any_new_file_or_of_the_old_one(self, tmp_path: Path) -> None:
        (tmp_path / "other").touch()
        path = self.result.save(tmp_path / "result.safetensors")
        assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
        path.chmod(0o640)
        assert self.result.save(path).stat().st_mode & 0o777 == 0o640

    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.result.save(tmp_path / "result.safetensors")
        before = path.read_bytes()

        def full(*args: object) -> None:
            Path(str(args[1])).write_bytes(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(OSError, match="no space left"):
            make().save(path)
        assert path.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_unwritable_places(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "result.safetensors", tmp_path):
            with pytest.raises(OSError, match=r"cannot write '.*': "):
                self.result.save(path)

    def test_not_a_result(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no file"):
            SimilarityResult.load(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match=r"a folder, which repsim_fast\.load reads"):
            SimilarityResult.load(tmp_path)
        path = tmp_path / "x.safetensors"
        path.write_bytes(b"not tensors at all")
        with pytest.raises(ValueError, match=r"cannot load a result from .*x\.safetensors"):
            SimilarityResult.load(path)
        save_file({"value": np.zeros(2)}, path)
        with pytest.raises(ValueError, match=r"not written by SimilarityResult\.save"):
            SimilarityResult.load(path)

    def test_later_formats_and_wrong_contents(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        metadata = {"format": "repsim_fast.SimilarityResult", "format_version": "5", "result": "{}"}
        save_file({"value": np.zeros((1, 1))}, path, metadata)
        with pytest.raises(ValueError, match="later version"):
            SimilarityResult.load(path)
        metadata |= {"format_version": "1", "result": json.dumps({"models": ["a"], "layers": []})}
        save_file({"value": np.zeros((1, 1))}, path, metadata)
        with pytest.raises(ValueError, match="cannot load a result"):
            SimilarityResult.load(path)

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        path = self.result.save(tmp_path / "x.safetensors")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match="cannot load a result"):
            SimilarityResult.load(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n_samples": -1}, "n_samples: expected a whole number"),
            ({"n_batches": 2.5}, "n_batches: expected a whole number"),
            ({"models": ["a", 3, "c"]}, r"models\[1\]: expected a text"),
            ({"layers": ["abc", "de", "fgh"]}, r"layers\[0\]: expected a list"),
            ({"measure": None}, "measure: expected a text"),
            ({"versions": {"repsim_fast": 1}}, "versions.repsim_fast: expected a text"),
            ({"seconds": {"total": -1}}, "seconds.total: expected a number"),
            ({"undefined": {"a": "all"}}, "undefined.a: expected values by name"),
            ({"group_samples": [-4]}, "group_samples"),
            ({"hsic": "none"}, "expected no arrays, got hsic"),
            ({"models": ["a", "a", "c"]}, "models must be different names"),
        ],
    )
    def test_a_header_of_another_form(
        self, tmp_path: Path, change: dict[str, object], message: str
    ) -> None:
        path = make().save(tmp_path / "x.safetensors")
        metadata, arrays = read_tensors(path, "numpy")
        fields = {**json.loads(metadata["result"]), **change}
        save_file(arrays, path, {**metadata, "result": json.dumps(fields)})
        with pytest.raises(ValueError, match=f"cannot load a result from .*{message}"):
            SimilarityResult.load(path)

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            ("value", np.zeros((8, 8), np.float16)),
            ("value", np.zeros((8, 4))),
            ("standard_error", np.full((8, 8), -1.0)),
            ("hsic", np.zeros((10**9, 0))),
            ("left_out", np.zeros((0, 8))),
            ("other", np.zeros(3)),
        ],
    )
    def test_arrays_of_another_form(self, tmp_path: Path, name: str, array: Array) -> None:
        path = make().save(tmp_path / "x.safetensors")
        metadata, arrays = read_tensors(path, "numpy")
        save_file({**arrays, name: array}, path, metadata)
        with pytest.raises(ValueError, match=f"cannot load a result from .*{name}"):
            SimilarityResult.load(path)

    def test_a_full_disk_is_an_error_of_the_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(OSError, match="No space left") as caught:
            make().save(tmp_path / "x.safetensors")
        assert caught.value.errno == errno.ENOSPC
        assert not list(tmp_path.iterdir())

    def test_a_name_is_no_formula(self, tmp_path: Path) -> None:
        result = make((2,))
        names = (("=HYPERLINK(1)", "-1+2"),)
        path = SimilarityResult(**{**vars(result), "layers": names}).to_csv(tmp_path / "x.csv")
        rows = list(csv.DictReader(path.open()))
        assert {row["layer_a"] for row in rows} == {"'=HYPERLINK(1)", "'-1+2"}

    def test_a_name_keeps_to_its_cell(self, tmp_path: Path) -> None:
        result, odd = make((3,)), ("a\nb", "c\rd", 'e,"f"')
        path = SimilarityResult(**{**vars(result), "layers": (odd,)}).to_csv(tmp_path / "x.csv")
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        pairs = [(row["layer_a"], row["layer_b"]) for row in rows]
        assert pairs == [(a, b) for a in odd for b in odd]
