"""Pictures and reports: what they contain, and that they touch nothing global."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from python_tests.comparison.test_results import make
from repsim_fast.plotting import plot_by_distance, plot_grids, to_png
from repsim_fast.report.page import write_report


def maps(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.images]


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(match=is_text))


def is_text(artist: object) -> bool:
    return hasattr(artist, "get_text")


class TestHeatMaps:
    def test_two_models_are_shown_against_one_another(self) -> None:
        result = make((3, 2))
        (ax,) = maps(result.plot())
        np.testing.assert_array_equal(ax.images[0].get_array(), result.value[:3, 3:])
        assert [t.get_text() for t in ax.get_yticklabels()] == ["layer0", "layer1", "layer2"]
        assert [t.get_text() for t in ax.get_xticklabels()] == ["layer0", "layer1"]
        assert ax.get_ylabel().startswith("a")
        assert ax.get_xlabel().startswith("b")

    def test_dollar_signs_in_names_are_no_formula(self, tmp_path: Path) -> None:
        result = dataclasses.replace(make((3, 2)), models=("a$_$", "$b"))
        result.plot(path=tmp_path / "grid.svg")
        text = (tmp_path / "grid.svg").read_text(encoding="utf-8")
        assert "<!-- a$_$ / $b -->" in text
        to_png(plot_by_distance(result.grids()))

    def test_the_first_layer_is_at_the_lower_left(self) -> None:
        (ax,) = maps(make((3, 2)).plot())
        assert ax.get_ylim()[0] < ax.get_ylim()[1]

    def test_choice_of_models(self) -> None:
        result = make((3, 2, 3))
        assert len(maps(result.plot("a", "b"))) == 1
        assert len(maps(result.plot("b"))) == 1
        assert len(maps(result.plot())) == 6
        assert len(maps(make((3,)).plot())) == 1
        with pytest.raises(ValueError, match="a must be given with b"):
            result.plot(b="a")

    def test_one_scale_from_0_to_1_that_changes_no_value(self) -> None:
        result = make((3, 2))
        result.value[0, 3] = -0.013
        figure = plot_grids(result.grids())
        assert {ax.images[0].get_clim() for ax in maps(figure)} == {(0.0, 1.0)}
        assert min(ax.images[0].get_array().min() for ax in maps(figure)) == -0.013
        assert "lowest -0.013" in texts(figure)
        assert "lowest" not in texts(make((3, 2)).plot())

    def test_cells_without_a_value_are_marked(self) -> None:
        result = make((3,))
        result.value[1] = result.value[:, 1] = np.nan
        figure = result.plot()
        assert "no value" in texts(figure)
        assert maps(figure)[0].images[0].get_array().mask.sum() == 5

    def test_standard_errors(self) -> None:
        figure = make((3, 2)).plot(standard_error=True)
        value, error = maps(figure)
        assert error.images[0].get_clim() == (0.0, 0.01)
        assert value.images[0].get_clim() == (0.0, 1.0)

    def test_standard_errors_that_are_not_known(self) -> None:
        result = make((3, 2))
        result.standard_error[:] = np.nan
        assert len(maps(result.plot(standard_error=True))) == 2

    @pytest.mark.parametrize("n_layers", [1, 10, 50, 90, 150])
    def test_labels_do_not_overlap_or_leave_the_picture(self, n_layers: int) -> None:
        figure = make((n_layers, max(1, n_layers // 2))).plot()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        (ax,) = maps(figure)
        renderer = canvas.get_renderer()
        boxes = [label.get_window_extent(renderer) for label in ax.get_yticklabels()]
        assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
        assert min(label.get_fontsize() for label in ax.get_yticklabels()) >= 6
        whole = ax.get_tightbbox(renderer)
        assert whole.x0 >= 0
        assert whole.y0 >= 0
        assert whole.x1 <= figure.bbox.x1
        assert whole.y1 <= figure.bbox.y1

    def test_written_to_a_file(self, tmp_path: Path) -> None:
        make((3, 2)).plot(path=tmp_path / "deep" / "map.png")
        assert Image.open(tmp_path / "deep" / "map.png").format == "PNG"
        make((3, 2)).plot(path=tmp_path / "map.pdf")
        assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
        with pytest.raises(ValueError, match="not supported"):
            make((3, 2)).plot(path=tmp_path / "map.nonsense")
        assert not (tmp_path / "map.nonsense").exists()
        with pytest.raises(OSError, match="cannot write"):
            make((3, 2)).plot(path=tmp_path / "map.pdf" / "map.png")

    def test_notebooks_can_show_it(self) -> None:
        assert make((3, 2)).plot()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="theme: expected one of 'light', 'dark'"):
            make((3,)).plot(theme="blue")
        with pytest.raises(ValueError, match="grids must be at least one"):
            plot_grids([])

    def test_no_global_state(self) -> None:
        code = (
            "import sys, matplotlib, numpy\n"
            "settings = lambda: repr(dict.items(matplotlib.rcParams))\n"
            "before = settings()\n"
            "from repsim_fast import SimilarityResult\n"
            "one = numpy.ones((1, 1))\n"
            "SimilarityResult(('a',), (('x',),), one, one, 'cka', 'biased', 4, 1)"
            ".plot(standard_error=True)\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "assert settings() == before\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class TestByDistance:
    def test_one_line_for_each_square_grid(self) -> None:
        (ax,) = plot_by_distance(make((3, 2, 3)).grids()).axes
        lines = {line.get_label(): line.get_xdata() for line in ax.lines}
        assert list(lines) == ["within a", "within b", "within c", "a / c"]
        assert list(lines["within a"]) == [1, 2]  # a layer against itself is no finding
        assert list(lines["a / c"]) == [0, 1, 2]

    def test_no_square_grid(self) -> None:
        with pytest.raises(ValueError, match="got none"):
            plot_by_distance([make((3, 2)).between(0, 1)])


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class TestReport:
    def test_is_one_file_that_needs_no_other(self, tmp_path: Path) -> None:
        path = write_report(tmp_path / "out" / "report.html", make())
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert page.open == []
        assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
        places = ("src", "srcset", "href")
        addresses = [v for _, a in page.tags for k, v in a.items() if k in places]
        assert len(addresses) == 4
        assert all(address.startswith("data:image/png;base64,") for address in addresses)
        assert not re.search(r"https?://", html)
        assert [p.name for p in path.parent.iterdir()] == ["report.html"]

    def test_pictures_are_there_in_light_and_dark(self, tmp_path: Path) -> None:
        page = Page(write_report(tmp_path / "r.html", make()).read_text(encoding="utf-8"))
        pictures = [a["src"] or "" for tag, a in page.tags if tag == "img"]
        sources = [a["srcset"] or "" for tag, a in page.tags if tag == "source"]
        corners = []
        for address in (pictures[0], sources[0]):
            png = base64.b64decode(address.partition(",")[2])
            corners.append(Image.open(io.BytesIO(png)).convert("L").getpixel((0, 0)))
        assert corners[0] > 240
        assert corners[1] < 40
        assert all(a["alt"] for tag, a in page.tags if tag == "img")

    def test_says_what_a_reader_needs(self, tmp_path: Path) -> None:
        tables = {
            "Accuracy": [{"model": "a", "accuracy": 0.875}],
            "Frame": pd.DataFrame({"n": [3]}, index=pd.Index(["x"], name="set")),
        }
        path = write_report(
            tmp_path / "r.html", make(), title="A title", introduction="Why.\n\nHow.", tables=tables
        )
        text = Page(path.read_text(encoding="utf-8")).text
        for needed in (
            "A title", "Why.", "How.", "Accuracy", "0.875", "Frame", "100 samples in 4 batches",
            "within a", "a / b", "How to read this", "Does similarity fall", "Best match",
            "Settings", "passes", "Tiny é", "torch", "0.50 s",
        ):  # fmt: skip
            assert needed in text

    def test_names_are_escaped(self, tmp_path: Path) -> None:
        html = write_report(
            tmp_path / "r.html", make((2,)), title="<b>&", tables={"<i>": [{"<u>": "<s>"}]}
        ).read_text(encoding="utf-8")
        assert not re.search("<[bius]>", html.partition("<body>")[2].replace("<b>0", ""))
        assert "&lt;b&gt;&amp;" in html

    def test_constant_layers_are_named(self, tmp_path: Path) -> None:
        result = make((3, 2))
        result.value[1] = result.value[:, 1] = np.nan
        text = write_report(tmp_path / "r.html", result).read_text(encoding="utf-8")
        assert "layer1 of a" in text
        assert ">nan<" not in text

    def test_several_results_and_no_square_grid(self, tmp_path: Path) -> None:
        results = {"First": make((3, 2)), "Second": make((1,))}
        text = write_report(tmp_path / "r.html", results, standard_error=True).read_text("utf-8")
        assert "<h2>First</h2>" in text
        assert "<h2>Second</h2>" in text
        with pytest.raises(ValueError, match="results must be at least one"):
            write_report(tmp_path / "none.html", {})

    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot write"):
            write_report(tmp_path / "file" / "r.html", make((2,)))


def test_png_of_a_figure() -> None:
    image = Image.open(io.BytesIO(to_png(make((3,)).plot(), dpi=50)))
    assert image.width > 100
