"""Figures of the site, drawn on white, are cards where a reader's pages are dark."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from python_tests.report import chromium
from python_tests.report.chromium import Tab, browser

DOCS = Path(__file__).resolve().parents[2] / "docs"
STYLE = DOCS / "_static" / "figures.css"


def test_the_site_has_all_styles() -> None:
    named = runpy.run_path(str(DOCS / "conf.py"))["html_css_files"]
    assert sorted(named) == sorted(style.name for style in STYLE.parent.glob("*.css"))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if chromium.command() is None:
        pytest.skip("there is no Chromium")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("theme", "dark", "card"),
    [
        ("auto", True, True), ("auto", False, False), ("dark", False, True),
        ("dark", True, True), ("light", True, False), ("light", False, False),
    ],
)  # fmt: skip
def test_a_card_on_dark_pages_alone(
    tab: Tab, tmp_path: Path, theme: str, dark: bool, card: bool
) -> None:
    """By what the reader chose on the site, else by what the system says."""
    page = tmp_path / f"{theme}.html"
    page.write_text(
        f'<html data-ready="yes"><style>{STYLE.read_text()}</style>'
        f'<body data-theme="{theme}"><article><img alt=""></article></body></html>'
    )
    tab.open(page, dark=dark)
    looks = "(e => [e.backgroundColor, e.paddingLeft !== '0px', e.borderRadius !== '0px'])"
    found = tab(f"{looks}(getComputedStyle(document.querySelector('img')))")
    assert found == (
        ["rgb(255, 255, 255)", True, True] if card else ["rgba(0, 0, 0, 0)", False, False]
    )
