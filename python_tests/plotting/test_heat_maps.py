"""Heat maps: what they show of arrays and names, and that nothing global is touched."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from python_tests.support.forked import run_python
from repsim_fast.plotting import HeatMap, plot_heat_maps, to_png


def a_map(rows: int = 3, columns: int = 2, **changes: Any) -> HeatMap:
    value = np.random.default_rng(0).random((rows, columns))
    fields: dict[str, Any] = {
        "value": value,
        "rows": [f"layer{i}" for i in range(rows)],
        "columns": [f"unit{i}" for i in range(columns)],
        "row_label": "model a",
        "column_label": "model b",
        "title": "a / b",
        "note": "mean 0.50",
        "standard_error": np.full_like(value, 0.01),
    }
    return HeatMap(**{**fields, **changes})


def draw(*maps: HeatMap, **options: Any) -> Figure:
    return plot_heat_maps(maps or [a_map()], label="linear CKA", **options)


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.images]


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(match=is_text))


def is_text(artist: object) -> bool:
    return hasattr(artist, "get_text")


def test_values_and_names() -> None:
    one = a_map()
    figure = draw(one, title="All of it")
    (ax,) = panels(figure)
    np.testing.assert_array_equal(ax.images[0].get_array(), one.value)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["layer0", "layer1", "layer2"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["unit0", "unit1"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("model a", "model b")
    for text in ("a / b", "mean 0.50", "linear CKA", "All of it"):
        assert text in texts(figure)


def test_the_first_row_is_at_the_lower_left() -> None:
    (ax,) = panels(draw())
    assert ax.get_ylim()[0] < ax.get_ylim()[1]


def test_dollar_signs_in_names_are_no_formula(tmp_path: Path) -> None:
    one = a_map(title="a$_$ / $b", row_label="$_$")
    draw(one, path=tmp_path / "map.svg")
    assert "<!-- a$_$ / $b -->" in (tmp_path / "map.svg").read_text(encoding="utf-8")


def test_one_scale_that_changes_no_value() -> None:
    one = a_map()
    one.value[0, 1] = -0.013
    figure = draw(one, a_map(2, 4))
    assert {ax.images[0].get_clim() for ax in panels(figure)} == {(0.0, 1.0)}
    assert min(ax.images[0].get_array().min() for ax in panels(figure)) == -0.013
    assert "lowest -0.013" in texts(figure)
    assert "lowest" not in texts(draw(a_map(2, 4)))
    assert panels(draw(limits=(0.0, 3.0)))[0].images[0].get_clim() == (0.0, 3.0)
    assert "highest" in texts(draw(limits=(0.0, 0.1)))


def test_cells_without_a_value_are_marked() -> None:
    one = a_map(3, 3)
    one.value[1] = one.value[:, 1] = np.nan
    figure = draw(one)
    assert "no value" in texts(figure)
    assert panels(figure)[0].images[0].get_array().mask.sum() == 5


def test_standard_errors() -> None:
    figure = draw(standard_error=True)
    value, error = panels(figure)
    assert error.images[0].get_clim() == (0.0, 0.01)
    assert value.images[0].get_clim() == (0.0, 1.0)
    assert "standard error of linear CKA" in texts(figure)


@pytest.mark.parametrize("error", [None, np.full((3, 2), np.nan)])
def test_standard_errors_that_are_not_known(error: np.ndarray | None) -> None:
    assert len(panels(draw(a_map(standard_error=error), standard_error=True))) == 2


@pytest.mark.parametrize("n_layers", [1, 10, 50, 90, 150])
def test_labels_do_not_overlap_or_leave_the_picture(n_layers: int) -> None:
    figure = draw(a_map(n_layers, max(1, n_layers // 2)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (ax,) = panels(figure)
    renderer = canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in ax.get_yticklabels()]
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert min(label.get_fontsize() for label in ax.get_yticklabels()) >= 6
    whole = ax.get_tightbbox(renderer)
    assert whole.x0 >= 0
    assert whole.y0 >= 0
    assert whole.x1 <= figure.bbox.x1
    assert whole.y1 <= figure.bbox.y1


def test_written_to_a_file(tmp_path: Path) -> None:
    draw(path=tmp_path / "deep" / "map.png")
    assert Image.open(tmp_path / "deep" / "map.png").format == "PNG"
    draw(path=tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="not supported"):
        draw(path=tmp_path / "map.nonsense")
    assert not (tmp_path / "map.nonsense").exists()
    with pytest.raises(OSError, match="cannot write"):
        draw(path=tmp_path / "map.pdf" / "map.png")


def test_notebooks_can_show_it() -> None:
    assert draw()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="theme: expected one of 'light', 'dark'"):
        draw(theme="blue")
    with pytest.raises(ValueError, match="maps must be at least one"):
        plot_heat_maps([], label="nothing")


def test_no_global_state() -> None:
    code = (
        "import sys, matplotlib, numpy\n"
        "settings = lambda: repr(dict.items(matplotlib.rcParams))\n"
        "before = settings()\n"
        "from repsim_fast.plotting import Curve, HeatMap, plot_curves, plot_heat_maps\n"
        "one = numpy.ones((1, 1))\n"
        "plot_heat_maps([HeatMap(one, 'x', 'y')], label='one', standard_error=True)\n"
        "plot_curves([Curve(one[0], 'one')], x_label='x', y_label='y')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert settings() == before\n"
    )
    done = run_python(code, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_png_of_a_figure() -> None:
    image = Image.open(io.BytesIO(to_png(draw(), dpi=50)))
    assert image.width > 100


def test_stages_stand_for_many_layers() -> None:
    names = [f"stage{1 + k // 12}.{k}.conv" for k in range(36)]
    one = replace(a_map(36, 36), rows=names, columns=names)
    figure = draw(one, one)
    for ax in panels(figure):
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            assert [label.get_text() for label in labels] == ["stage1", "stage2", "stage3"]
    assert figure.get_figwidth() < 9
    (ax,) = panels(draw(replace(a_map(24, 2), rows=names[:24])))
    assert len(ax.get_yticklabels()) == 24


def test_into_axes_of_a_figure() -> None:
    figure = Figure(figsize=(8, 4))
    left, right = figure.subplots(1, 2)
    assert draw(a_map(), ax=left) is figure
    assert left.images
    assert not right.images
    for options in ({"standard_error": True}, {"figsize": (3, 3)}):
        with pytest.raises(ValueError, match="ax: expected one map"):
            draw(ax=right, **options)


def test_size_and_ends_of_the_scale() -> None:
    figure = draw(vmin=0.25, vmax=0.5, figsize=(5, 3))
    assert tuple(figure.get_size_inches()) == (5, 3)
    assert panels(figure)[0].images[0].get_clim() == (0.25, 0.5)


@pytest.mark.parametrize(("n_blocks", "every"), [(14, 1), (60, 2)])
def test_blocks_of_a_transformer_stand_for_their_layers(n_blocks: int, every: int) -> None:
    blocks = range(n_blocks)
    names = [
        f"bert.encoder.layer.{b}.{p}.LayerNorm" for b in blocks for p in ("attention", "output")
    ]
    size = len(names)
    (ax,) = panels(draw(replace(a_map(size, size), rows=names, columns=names)))
    wanted = [f"layer.{b}" for b in blocks[::every]]
    assert [label.get_text() for label in ax.get_yticklabels()] == wanted
    assert [label.get_text() for label in ax.get_xticklabels()] == wanted


def test_names_are_without_what_holds_all_layers() -> None:
    names = [f"bert.encoder.layer.{k}" for k in range(5)]
    (ax,) = panels(draw(replace(a_map(5, 5), rows=names, columns=names)))
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"layer.{k}" for k in range(5)]
