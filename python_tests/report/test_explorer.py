"""The page in a browser: what one sees, points at, chooses and hears of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from python_tests.comparison.made_result import make
from python_tests.report import chromium
from python_tests.report.chromium import Tab, browser
from python_tests.report.test_page import HOSTILE
from repsim_fast import SimilarityResult
from repsim_fast.report import write_report

pytestmark = pytest.mark.skipif(chromium.command() is None, reason="there is no Chromium")

# Of the map: its values, its tick labels, its title.
MAP = "document.getElementById('map')"
SHAPE = f"[{MAP}.data[0].z.length, {MAP}.data[0].z[0].length]"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def named(result: SimilarityResult) -> SimilarityResult:
    """With names that have stages, and what intervals need."""
    layers = tuple(
        tuple(f"stage{1 + k // 8}.{k % 8}.{'conv' if k % 2 else 'relu'}" for k in range(len(names)))
        for names in result.layers
    )
    groups = np.stack([result.value * 0.99, result.value, result.value * 1.01])
    size = len(result.value)
    return replace(
        result,
        layers=layers,
        left_out=groups,
        group_samples=(30, 30, 40),
        chance=np.full((size, size), 0.25),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = {"first": named(make((24, 24, 10))), "second": named(make((3, 2)))}
    second = replace(results["second"], measure="bures_distance", models=("a", "other"))
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(path, {**results, "second": second})


def shown(tab: Tab, element: str) -> str:
    text: str = tab(f"document.getElementById('{element}').textContent")
    return text


def outside(tab: Tab) -> list[str]:
    """Requests that leave the page: pictures that it holds do not."""
    return [address for address in tab.requests if not address.startswith(("data:", "blob:"))]


@pytest.fixture
def opened(tab: Tab, page: Path) -> Iterator[Tab]:
    tab.open(page)
    yield tab
    assert tab.complaints == []
    assert outside(tab) == []


def test_shows_the_values(opened: Tab) -> None:
    grid = named(make((24, 24, 10))).between(0, 1)
    drawn = np.array(opened(f"{MAP}.data[0].z"), dtype=np.float64)
    np.testing.assert_allclose(drawn, grid.value, atol=1e-5)
    assert shown(opened, "map-heading") == "a / b"
    assert f"mean {grid.mean():.3f}" in shown(opened, "map-caption")


def test_pointing_says_layers_value_and_interval(opened: Tab) -> None:
    result = named(make((24, 24, 10)))
    opened(f"{MAP}.scrollIntoView({{block: 'center'}})")
    place = opened(
        f"(() => {{ const r = {MAP}.querySelector('.heatmaplayer image').getBoundingClientRect();"
        " return [r.left + r.width * 5.5 / 24, r.bottom - r.height * 2.5 / 24]; })()"
    )
    opened.move_to(*place)
    opened.wait_for(f"{MAP}.querySelector('.hoverlayer text') !== null")
    said = opened(f"{MAP}.querySelector('.hoverlayer').textContent")
    grid = result.between(0, 1)
    low, high = (limit[2, 5] for limit in grid.interval())
    for part in (
        f"a: {grid.rows[2]}", f"b: {grid.columns[5]}", f"{grid.value[2, 5]:.3f} ± 0.01",
        f"95 % interval {low:.3f} to {high:.3f}", "chance level 0.250",
    ):  # fmt: skip
        assert part in said


def test_models_and_measures_are_switched(opened: Tab) -> None:
    opened.choose("row", "2")
    opened.choose("column", "2")
    assert shown(opened, "map-heading") == "within c"
    assert opened(SHAPE) == [10, 10]
    opened.choose("result", "1")
    assert shown(opened, "map-heading") == "a / other"
    assert "Bures distance, 3 x 2 layers" in shown(opened, "map-caption")
    assert opened("document.getElementById('overview-part').hidden") is True


def test_errors_and_values_minus_chance_are_shown(opened: Tab) -> None:
    opened.choose("show", "error")
    np.testing.assert_allclose(opened(f"{MAP}.data[0].z[3][4]"), 0.01, atol=1e-6)
    opened.choose("show", "minus")
    value = named(make((24, 24, 10))).between(0, 1).value[3, 4]
    np.testing.assert_allclose(opened(f"{MAP}.data[0].z[3][4]"), value - 0.25, atol=2e-5)


def test_the_scale_adapts(opened: Tab) -> None:
    ends = f"[{MAP}.data[0].zmin, {MAP}.data[0].zmax]"
    assert opened(ends) == [0, 1]
    opened.choose("scale", "shown")
    value = named(make((24, 24, 10))).between(0, 1).value
    np.testing.assert_allclose(opened(ends), [value.min(), value.max()], atol=1e-4)


def test_layers_are_filtered(opened: Tab) -> None:
    opened.choose("filter", "CONV, stage1.0")
    assert opened(SHAPE) == [13, 13]
    opened.choose("filter", "stage2*conv")
    assert opened(SHAPE) == [4, 4]
    opened.choose("filter", "nothing of that name")
    assert shown(opened, "map-caption") == "No layer has such a name."
    opened.choose("filter", "")
    assert opened(SHAPE) == [24, 24]


def test_stages_stand_where_names_have_no_room(opened: Tab, page: Path) -> None:
    names = f"{MAP}.layout.yaxis.ticktext"
    assert "stage1.0.relu" in opened(names)
    opened.open(page, width=390, height=844)
    assert opened(f"{MAP}.layout.xaxis.ticktext") == ["stage1", "stage2", "stage3"]


def test_a_drag_zooms_and_the_labels_follow(opened: Tab, page: Path) -> None:
    opened.open(page, width=390, height=844)
    opened(f"{MAP}.scrollIntoView({{block: 'center'}})")
    left, bottom, size = opened(
        f"(() => {{ const r = {MAP}.querySelector('.heatmaplayer image').getBoundingClientRect();"
        " return [r.left, r.bottom, [r.width, r.height]]; })()"
    )
    start = (left + size[0] * 0.1, bottom - size[1] * 0.1)
    opened.drag(start, (left + size[0] * 0.4, bottom - size[1] * 0.4))
    opened.wait_for(f"{MAP}.layout.xaxis.range[1] < 12")
    opened.wait_for(f"{MAP}.layout.xaxis.ticktext.some((name) => name.includes('conv'))")


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = ("attention.self.query", "attention.output.LayerNorm", "output.LayerNorm")
    names = tuple(f"bert.encoder.layer.{block}.{part}" for block in range(30) for part in parts)
    result = replace(make((90, 90)), layers=(names, names))
    return write_report(tmp_path_factory.mktemp("transformer") / "report.html", result)


def test_blocks_of_a_transformer_are_labels(tab: Tab, transformer: Path) -> None:
    names = f"{MAP}.layout.xaxis.ticktext"
    tab.open(transformer)
    assert tab(names) == [f"layer.{block}" for block in range(30)]
    tab.open(transformer, width=390, height=844)
    assert tab(names) == [f"layer.{block}" for block in range(0, 30, 2)]


@pytest.mark.parametrize(
    ("width", "name"), [(390, "0…LayerNorm"), (1200, "layer.0…output.LayerNorm")]
)
def test_long_names_lose_whole_words(tab: Tab, transformer: Path, width: int, name: str) -> None:
    tab.open(transformer, width=width, height=844)
    tab(f"{MAP}.scrollIntoView({{block: 'center'}})")
    left, bottom, wide, high = tab(
        f"(() => {{ const r = {MAP}.querySelector('.heatmaplayer image').getBoundingClientRect();"
        " return [r.left, r.bottom, r.width, r.height]; })()"
    )
    tab.drag((left + 1, bottom - 1), (left + wide * 0.1, bottom - high * 0.1))
    tab.wait_for(f"{MAP}.layout.xaxis.ticktext.includes({name!r})")
    assert tab(f"{MAP}.data[0].text[0][1]").count("bert.encoder.layer.0.attention.self.query") == 1


def test_the_keyboard_goes_from_cell_to_cell(opened: Tab) -> None:
    grid = named(make((24, 24, 10))).between(0, 1)
    opened(f"{MAP}.focus()")
    for key in ("ArrowUp", "ArrowRight", "ArrowRight"):
        opened.key(key)
    said = shown(opened, "readout")
    assert f"a: {grid.rows[1]}; b: {grid.columns[2]}" in said
    assert f"{grid.value[1, 2]:.3f}" in said
    opened.key("+")
    assert opened(f"{MAP}.layout.xaxis.range[1] < 20") is True
    opened.key("0")
    assert opened(f"{MAP}.layout.xaxis.range") == [-0.5, 23.5]


def test_a_screen_reader_finds_names_and_tables(opened: Tab) -> None:
    assert shown(opened, "map-caption") in opened(f"{MAP}.getAttribute('aria-label')")
    unnamed = opened(
        "[...document.querySelectorAll('[role=img], [role=application]')]"
        ".filter((e) => e.offsetParent && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    opened("document.getElementById('values').open = true")
    opened("document.getElementById('matches').open = true")
    opened.wait_for("document.querySelectorAll('#values td').length === 24 * 24")
    grid = named(make((24, 24, 10))).between(0, 1)
    best = grid.columns[int(grid.value[0].argmax())]
    opened.wait_for("document.querySelector('#matches td') !== null")
    assert opened("document.querySelector('#matches td').textContent") == best


def test_profiles_and_overview(opened: Tab) -> None:
    grid = named(make((24, 24, 10))).between(0, 1)
    line = "document.getElementById('diagonal').data.at(-1).y"
    np.testing.assert_allclose(opened(line), grid.value.diagonal(), atol=1e-5)
    apart = "document.getElementById('distance').data.filter((t) => t.name).map((t) => t.y)"
    within_a, within_b, between = opened(apart)
    np.testing.assert_allclose(between, grid.mean_by_distance(), atol=1e-4)
    assert (len(within_a), len(within_b)) == (23, 23)
    overview = opened("document.getElementById('overview').data[0].z")
    np.testing.assert_allclose(overview[0][1], grid.mean_same_layer(), atol=1e-4)


def test_light_and_dark(tab: Tab, page: Path) -> None:
    colours = []
    for dark in (False, True):
        tab.open(page, dark=dark)
        colours.append(
            tab(f"[getComputedStyle(document.body).backgroundColor, {MAP}.layout.font.color]")
        )
    assert colours == [["rgb(255, 255, 255)", "#1f2328"], ["rgb(13, 17, 23)", "#e6edf3"]]


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_screen(tab: Tab, page: Path, width: int) -> None:
    tab.open(page, width=width, height=844)
    assert tab("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_text(tab: Tab, tmp_path: Path) -> None:
    result = make((2, 2, 2))
    crafted = replace(
        result,
        models=tuple(f"{HOSTILE}{k}" for k in range(3)),
        layers=((HOSTILE, "x<b>"), (HOSTILE, "y"), (HOSTILE, "<a href='javascript:1'>z</a>")),
        measure=HOSTILE,
    )
    tab.open(write_report(tmp_path / "r.html", {HOSTILE: crafted, "b": crafted}, title=HOSTILE))
    tab("document.getElementById('values').open = true")
    tab("document.getElementById('matches').open = true")
    tab(f"{MAP}.focus()")
    tab.key("ArrowUp")
    assert HOSTILE in shown(tab, "readout")
    added = "main img, main iframe, main svg a, main b:not(.card b), script"
    assert tab(f"document.querySelectorAll('{added}').length") == 5, (
        "plotly's script and the page's four"
    )
    assert tab.complaints == []
    assert outside(tab) == []
