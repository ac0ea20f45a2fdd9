"""Results with hostile text in every field: what their reports hold of it is text."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from python_tests.comparison.made_result import make
from python_tests.faults import browser
from python_tests.faults.browser import SCRIPT
from python_tests.faults.table import Row
from repsim_fast import SimilarityResult
from repsim_fast.report import __file__ as _REPORT
from repsim_fast.report import write_folder

PARTS = (
    f"<script>{SCRIPT}</script>", f"\"><img src=x onerror={SCRIPT}>", f"'><svg/onload={SCRIPT}>",
    f"</title><script>{SCRIPT}</script>", f"</style><script>{SCRIPT}</script>",
    f"javascript:{SCRIPT}", f"<!--<script>{SCRIPT}//-->", f"&lt;script&gt;{SCRIPT}&lt;/script&gt;",
    f"<iframe srcdoc='<script>parent.{SCRIPT}</script>'>", "\x00<script>",
    f"<a href=javascript:{SCRIPT}>", "{{7*7}}", "$\\frac{1}{0}$", "../../x", "=1+1", "\u202e<b>",
    f"<ScRiPt\n>{SCRIPT}</sCrIpT>",
)  # fmt: skip
_OURS = (Path(_REPORT).parent / "templates" / "page.js").read_text(encoding="utf-8")
_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "h3", "p"),
    *("div", "span", "b", "figure", "picture", "source", "img", "figcaption", "table", "thead"),
    *("tbody", "tr", "th", "td", "details", "summary", "ul", "li", "br", "footer"),
    *("a", "section", "noscript", "label", "select", "option", "input", "output", "script"),
}
_ATTRIBUTES = {
    *("lang", "charset", "name", "content", "class", "id", "http-equiv", "hidden", "tabindex"),
    *("role", "scope", "value", "type", "placeholder", "autocomplete", "spellcheck"),
    *("aria-labelledby", "aria-describedby", "aria-live"),
}


class Page(HTMLParser):
    """What a browser would do more than show text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.tag = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            self.active.append(f"<{tag}>")
        self.tag = tag
        for name, value in attributes:
            if name not in _ATTRIBUTES and (tag, name, value) != ("a", "href", "#explorer"):
                self.active.append(f"<{tag} {name}={(value or '')[:80]!r}>")

    def handle_data(self, data: str) -> None:
        # Results are packed; what runs is the package's own file.
        if self.tag == "script" and data.strip() not in (_OURS.strip(), ""):
            try:
                base64.b64decode(data, validate=True)
            except ValueError:
                self.active.append(f"<script>{data[:80]}")

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""

    def handle_comment(self, data: str) -> None:
        self.active.append(f"<!--{data[:80]}-->")


def hostile(folder: Path, reports: int, dice: random.Random) -> list[Row]:
    """The page may hold no tag, attribute or address but ours, and run nothing in a browser."""
    parsed = Row(
        "report of a hostile result",
        "no script, handler, address or tag but the report's own, by an HTML parser",
    )
    opened = Row("the same in a browser", "no script runs")
    program = browser.find(folder)
    for number in range(reports):
        place = folder / f"report{number}"
        try:
            path = _crafted(dice).save(folder / "hostile.safetensors")
            result = SimilarityResult.load(path)
        except ValueError:
            parsed.count("refused")
            continue
        text = _text(dice)
        page = write_folder(
            place, result, title=text, introduction=text, tables={text: [{text: text}]}
        )
        active = Page(page.read_text(encoding="utf-8")).active
        ours = ("report", "hostile", "known")
        outside = [str(p) for p in folder.iterdir() if not p.name.startswith(ours)]
        fault = f"{active[:3]} {outside}" if active or outside else ""
        parsed.count("lost" if fault else "survived", fault)
        if program is not None:
            ran = browser.runs_script(program, page)
            opened.count("lost" if ran else "survived", f"a script ran in {page}")
    return [parsed] if program is None else [parsed, opened]


def _text(dice: random.Random) -> str:
    return "".join(dice.choice(PARTS) for _ in range(dice.choice((1, 1, 2))))


def _crafted(dice: random.Random) -> SimilarityResult:
    result = make((1, 1))
    models = (f"{_text(dice)}1", f"{_text(dice)}2")
    layers = ((_text(dice),), (_text(dice),))
    return replace(
        result,
        models=models,
        layers=layers,
        measure=_text(dice),
        estimator=_text(dice),
        value=np.where(np.eye(2) == 1, np.nan, result.value),
        settings={_text(dice): _text(dice), "data": _text(dice), "x": {_text(dice): _text(dice)}},
        versions={_text(dice): _text(dice), "repsim_fast": _text(dice)},
        seconds={_text(dice): 1.0},
        no_error=_text(dice),
        undefined={models[0]: {layers[0][0]: _text(dice)}},
    )
