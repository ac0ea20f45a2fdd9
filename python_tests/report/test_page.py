"""The report: one file, what it says, in light and dark."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from python_tests.comparison.made_result import make
from repsim_fast import SimilarityResult
from repsim_fast.report import write_report


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
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class TestReport:
    def test_is_one_file_that_needs_no_other(self, tmp_path: Path) -> None:
        path = write_report(tmp_path / "out" / "report.html", make())
        page = Page(path.read_text(encoding="utf-8"))
        assert page.open == []
        assert not {"link", "iframe", "img"} & {tag for tag, _ in page.tags}
        addresses = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href")]
        assert addresses == ["#explorer"]
        (policy,) = [a["content"] for _, a in page.tags if "http-equiv" in a]
        assert (policy or "").startswith("default-src 'none'; script-src 'sha256-")
        assert [p.name for p in path.parent.iterdir()] == ["report.html"]

    def test_is_as_large_as_it_says(self, tmp_path: Path) -> None:
        size = write_report(tmp_path / "r.html", make()).stat().st_size
        assert size == pytest.approx(2.0e6, rel=0.05)
        (number,) = re.findall(r"is ([\d.]+) MB of it", write_report.__doc__ or "")
        assert float(number) == 2.0

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
        body = html.partition("<body>")[2].partition("<script")[0]
        assert not re.search("<[bius]>", body.replace("<b>0", ""))
        assert "&lt;b&gt;&amp;" in html

    def test_layers_without_a_value_are_named(self, tmp_path: Path) -> None:
        result = replace(make((3, 2)), undefined={"a": {"layer1": "it does not vary"}})
        result.value[1] = result.value[:, 1] = np.nan
        text = write_report(tmp_path / "r.html", result).read_text(encoding="utf-8")
        assert "layer1 of a (it does not vary)" in text
        assert ">nan<" not in text.partition("<script")[0]

    def test_a_distance_is_told_from_a_similarity(self, tmp_path: Path) -> None:
        def text(measure: str) -> str:
            result = replace(make((3, 3)), measure=measure)
            return write_report(tmp_path / "r.html", result).read_text(encoding="utf-8")

        assert "Linear CKA" in text("cka")
        assert "0 (dark) that they are unrelated" in text("cka")
        assert "Bures distance" in text("bures_distance")
        assert "0 (dark) means that they do" in text("bures_distance")

    def test_cards_can_be_compared(self, tmp_path: Path) -> None:
        """Of every square grid the mean off-diagonal; others say that theirs is of all pairs."""
        result = make((3, 2, 3))
        html = write_report(tmp_path / "r.html", result).read_text(encoding="utf-8")
        cards = re.findall(
            r'<span class="name">([^<]*)</span><b>([^<]*)</b><span>([^<]*)</span>', html
        )
        expected = []
        for grid in result.grids():
            square = len(grid.rows) == len(grid.columns)
            mean = grid.mean_off_diagonal() if square else grid.mean()
            name = "mean off-diagonal" if square else "mean of all pairs"
            expected.append((grid.title, f"{mean:.2f}", name))
        assert cards == expected

    def test_each_figure_under_its_own_name(self, tmp_path: Path) -> None:
        result = make((3, 2, 3))
        text = Page(write_report(tmp_path / "r.html", result).read_text(encoding="utf-8")).text
        assert f"a / c3 x 3mean same layer{result.between(0, 2).mean_same_layer():.3f}" in text
        assert f"a / b3 x 2mean of all pairs{result.between(0, 1).mean():.3f}" in text

    def test_chance_levels_errors_and_notes_are_told(self, tmp_path: Path) -> None:
        result = replace(
            make((3, 3)),
            chance=np.full((6, 6), 0.25),
            chance_note="mean over 10 orders",
            no_error="none were asked for",
            notes=("few samples",),
        )
        page = Page(write_report(tmp_path / "r.html", result).read_text(encoding="utf-8"))
        for needed in (
            "by chance 0.25", "Chance level: mean over 10 orders.", "Note: few samples.",
            "No standard errors: none were asked for.",
            "unrelated layers are not at 0 but at their chance level, 0.25 on average",
        ):  # fmt: skip
            assert needed in page.text

    def test_several_results_and_no_square_grid(self, tmp_path: Path) -> None:
        results = {"First": make((3, 2)), "Second": make((1,))}
        text = write_report(tmp_path / "r.html", results).read_text("utf-8")
        assert "<h2>First</h2>" in text
        assert "<h2>Second</h2>" in text
        with pytest.raises(ValueError, match="results must be at least one"):
            write_report(tmp_path / "none.html", {})

    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot write"):
            write_report(tmp_path / "file" / "r.html", make((2,)))


HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;svg onload=alert(3)"""


def hostile_page(path: Path) -> Page:
    """A report of a result with hostile text in every field that holds text."""
    result = make((2, 2))
    bad = f"{HOSTILE} a", f"{HOSTILE} b"
    layers = ((HOSTILE, "x"), ("y", HOSTILE))
    crafted = replace(
        result,
        models=bad,
        layers=layers,
        measure=HOSTILE,
        estimator=HOSTILE,
        value=np.where(np.eye(4) == 1, np.nan, result.value),
        settings={HOSTILE: HOSTILE, "data": HOSTILE, "models": {HOSTILE: HOSTILE}},
        versions={HOSTILE: HOSTILE, "repsim_fast": HOSTILE},
        seconds={HOSTILE: 1.0},
        no_error=HOSTILE,
        undefined={bad[0]: {HOSTILE: HOSTILE}},
    )
    crafted.save(path.with_suffix(".safetensors"))
    loaded = SimilarityResult.load(path.with_suffix(".safetensors"))
    table = [{HOSTILE: HOSTILE}]
    write_report(
        path, {HOSTILE: loaded}, title=HOSTILE, introduction=HOSTILE, tables={HOSTILE: table}
    )
    return Page(path.read_text(encoding="utf-8"))


def test_no_text_of_a_result_becomes_code(tmp_path: Path) -> None:
    page = hostile_page(tmp_path / "report.html")
    assert page.open == []
    assert not {"svg", "iframe", "object", "img"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("script") == 4
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("href", "#explorer") == "#explorer"
    assert page.text.count("<script>alert(1)</script>") >= 20, "shown as it is"


def test_many_models_are_a_table_of_models_and_no_card_a_pair(tmp_path: Path) -> None:
    result = make((2, 3, 2, 2))
    html = write_report(tmp_path / "r.html", result).read_text(encoding="utf-8")
    assert 'class="card"' not in html
    text = Page(html).text
    assert "mean at the same relative depthabcd" in text
    assert f"{result.between('a', 'c').mean_same_layer():.3f}" in text
