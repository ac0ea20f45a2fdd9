"""The notebooks run without Jupyter, cell after cell, and what they show can be shown.

Their trainings end after an epoch here: `make docs` runs them whole.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from repsim_fast import training

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("*.md"))
_CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def show(value: object) -> None:
    """As a notebook asks for it."""
    repr(value)
    for form in ("_repr_html_", "_repr_png_"):
        if hasattr(value, form):
            getattr(value, form)()


def run(cell: str, where: str, scope: dict[str, Any]) -> None:
    """The statements, and what the last of them is worth."""
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, type_ignores=[]), where, "exec"), scope)
    if isinstance(last, ast.Expr):
        show(eval(compile(ast.Expression(last.value), where, "eval"), scope))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("error::UserWarning")  # a page would show them
def test_notebook(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = training.train
    monkeypatch.setattr(training, "train", lambda *of, **how: train(*of, **{**how, "epochs": 1}))
    text = notebook.read_text()
    cells = _CELL.findall(text)
    assert len(cells) == text.count("{code-cell}") > 0
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        run(cell, f"{notebook.stem}, cell {number}", scope)
