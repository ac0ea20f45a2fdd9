"""What one does with a result: index, show, load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repsim_fast
from python_tests.comparison.made_result import make
from repsim_fast.report import write_folder


def test_by_model_and_layer() -> None:
    result = make((3, 2))
    np.testing.assert_array_equal(result["a", "b"].value, result.between("a", "b").value)
    assert result["a"].within
    cell = result["a", 1]["layer2", "layer0"]
    assert (cell.value, cell.standard_error) == (result.value[2, 3], 0.01)
    assert result["a"][-1, 0].value == result.value[2, 0]
    assert result["A", "B"]["Layer2", 0] == cell
    with pytest.raises(ValueError, match=r"'a' has no layer 'layr2'; did you mean 'layer2'"):
        result["a"]["layr2", 0]
    with pytest.raises(ValueError, match="has 3 layers, got number 3"):
        result["a"][3, 0]
    for wrong in ("layer1", 0, ("layer1", 0, 1)):
        with pytest.raises(ValueError, match=r"expected grid\[row, column\], two layers"):
            result["a"][wrong]
    with pytest.raises(ValueError, match=r"of their layers result\[a, b\]\[row, column\]"):
        result["a", "b", "layer0"]


def test_pairs_as_a_table() -> None:
    pytest.importorskip("pandas", reason="data frames are optional")
    result = make((3, 3))
    grid = result["a", "b"]
    table = grid.pairs()
    assert list(table) == ["row", "column", "value", "standard_error", "chance", "low", "high"]
    assert len(table) == 9
    assert table["value"].is_monotonic_decreasing
    first = table.iloc[0]
    assert grid[first["row"], first["column"]].value == first["value"] == grid.value.max()
    far = replace(grid, measure="procrustes_distance").pairs()
    assert far["value"].is_monotonic_increasing
    same = grid.pairs(same_layer=True)
    assert list(same["row"]) == list(grid.rows)
    np.testing.assert_array_equal(same["value"], grid.value.diagonal())
    np.testing.assert_array_equal(same["low"], grid.interval()[0].diagonal())
    with pytest.raises(ValueError, match="as many rows as columns"):
        make((3, 2))["a", "b"].pairs(same_layer=True)


def test_the_most_similar_pairs_of_all_models() -> None:
    pandas = pytest.importorskip("pandas", reason="data frames are optional")
    made = make((3, 2, 3))
    value = made.value.copy()
    value[0, 3] = value[3, 0] = np.nan
    result = replace(made, value=value, chance=np.full_like(value, 0.1))
    every = result.to_dataframe()
    between = every[(every["model_a"] < every["model_b"]) & every["value"].notna()]
    wanted = between.sort_values("value", ascending=False, ignore_index=True)
    assert len(wanted) == 3 * 2 + 3 * 3 + 2 * 3 - 1
    pandas.testing.assert_frame_equal(result.pairs(k=100), wanted)
    pandas.testing.assert_frame_equal(result.pairs(k=4), wanted[:4])
    first = result.pairs(k=1).iloc[0]
    cell = result[first["model_a"], first["model_b"]][first["layer_a"], first["layer_b"]]
    assert (cell.value, cell.standard_error) == (first["value"], first["standard_error"])
    nearest = replace(result, measure="procrustes_distance").pairs(k=3)
    assert list(nearest["value"]) == list(wanted["value"][:-4:-1])
    assert len(make((3,)).pairs()) == 0


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_how_many_pairs_is_checked(k: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="k must be"):
        make().pairs(k=k)


def test_notebooks_show_text_and_picture() -> None:
    result = replace(make((2, 2)), models=("<b>", "a"))
    for shown in (result, result["<b>", "a"], result.models_matrix()):
        html = shown._repr_html_()
        assert html is not None
        assert "&lt;b&gt;" in html
        assert "<b>" not in html
        assert "data:image/png;base64," in html


def test_notebooks_show_one_model_without_a_picture_of_models() -> None:
    assert make((2,)).models_matrix()._repr_html_() is None


def test_load_takes_a_file_or_a_folder(tmp_path: Path) -> None:
    result = make((2,))
    write_folder(tmp_path / "folder", result, figures=False)
    for path in (tmp_path / "folder", result.save(tmp_path / "file.safetensors")):
        np.testing.assert_array_equal(repsim_fast.load(path).value, result.value)
    with pytest.raises(FileNotFoundError, match=r"but in .*folder"):
        repsim_fast.load(tmp_path)


def test_writes_its_page(tmp_path: Path) -> None:
    path = make((2,)).report(tmp_path / "page.html", title="A title")
    assert "A title" in path.read_text(encoding="utf-8")


def test_tables_have_errors_and_intervals() -> None:
    made = make((3,))
    result = replace(made, left_out=np.stack([made.value] * 4), group_samples=(25,) * 4)
    table = result.to_dataframe()
    low, high = result.interval()
    np.testing.assert_array_equal(table["low"], low.ravel())
    np.testing.assert_array_equal(table["high"], high.ravel())
    np.testing.assert_array_equal(result["a"].to_dataframe("low"), low)
    np.testing.assert_array_equal(result["a"].to_dataframe("standard_error"), made.standard_error)
    with pytest.raises(ValueError, match="chance levels of within a are not known"):
        result["a"].to_dataframe("chance")


def test_many_models_are_one_map_of_models() -> None:
    panels = [ax for ax in make((2,) * 5).plot().axes if ax.images]
    assert [ax.images[0].get_array().shape for ax in panels] == [(5, 5)]
