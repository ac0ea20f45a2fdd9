"""Counts the lines of the page of tasks, and runs what it says of other tools.

    python -m docs.update_tasks                      the table of docs/tasks.md
    python -m docs.update_tasks --run torchmetrics   that tool's code, where it is installed

What was run is kept in tasks_run.json with a digest of the code; what has changed since is not run.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

START, END = "<!-- tasks: docs/update_tasks.py -->\n", "<!-- end -->"
PAGE = Path(__file__).parent / "tasks.md"
RUN = PAGE.with_name("tasks_run.json")
HERE = "repsim_fast"
TOOLS = ("torchmetrics", "netrep", "thingsvision", "captum")


@dataclass
class Task:
    """A heading of the page, what is given before it, and the code of each tool."""

    title: str
    given: str
    code: dict[str, str] = field(default_factory=dict)


def tasks(page: str) -> list[Task]:
    """All of a page: headings "1. ...", `python` blocks of ours, `py` blocks that name a tool."""
    given, *parts = re.split(r"^## (\d+\. .*)$", page, flags=re.MULTILINE)
    setting = "\n".join(code for _, code in _blocks(given))
    found = []
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        task = Task(title, setting)
        for language, code in _blocks(text):
            tool = HERE if language == "python" else code.partition("\n")[0].removeprefix("# ")
            if tool not in (HERE, *TOOLS) or tool in task.code:
                raise ValueError(f"{title}: expected the code of one of {TOOLS}, got {code!r}")
            task.code[tool] = code
        found.append(task)
    return found


def lines(code: str) -> int:
    """Lines of code without comments, however it is wrapped: each statement is one."""
    return sum(bool(line.strip()) for line in ast.unparse(ast.parse(code)).splitlines())


def updated(page: str) -> str:
    """The page with the table between its markers."""
    before, rest = page.split(START)
    return before + START + table(tasks(page), _known()) + END + rest.split(END)[1]


def table(found: list[Task], known: dict[str, Any]) -> str:
    """Lines of each task in each tool; in brackets what was not run as it stands."""
    rows = [f"| task | here | {' | '.join(TOOLS)} |", "|---" * (len(TOOLS) + 2) + "|"]
    for task in found:
        counts = [str(lines(task.code[HERE])), *(_cell(task, tool, known) for tool in TOOLS)]
        rows.append(f"| {task.title} | {' | '.join(counts)} |")
    run = ", ".join(f"{tool} {known[tool]['version']}" for tool in TOOLS if tool in known)
    others = ", ".join(tool for tool in TOOLS if tool not in known)
    said = f"Run with {run}; not run, in brackets: {others or 'none'}."
    return "\n".join([*rows, "", said, ""])


def _cell(task: Task, tool: str, known: dict[str, Any]) -> str:
    if tool not in task.code:
        return "not offered"
    run = known.get(tool, {}).get("code", {}).get(task.title) == _digest(task, tool)
    return str(lines(task.code[tool])) if run else f"({lines(task.code[tool])})"


def _digest(task: Task, tool: str) -> str:
    return hashlib.sha256((task.given + task.code[tool]).encode()).hexdigest()[:16]


def _blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(python|py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _known() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(RUN.read_text()) if RUN.exists() else {}
    return known


@contextlib.contextmanager
def _folder() -> Iterator[None]:
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def run(tool: str, found: list[Task]) -> dict[str, Any]:
    """Runs a tool's code of each task; what raises nothing counts as run."""
    ran = {}
    for task in found:
        if tool not in task.code:
            continue
        print(f"{tool}: {task.title}")
        with _folder():
            exec(compile(task.given + "\n" + task.code[tool], task.title, "exec"), {})
        ran[task.title] = _digest(task, tool)
    return {"version": version(tool), "code": ran}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", choices=TOOLS, action="append", default=[])
    known, found = _known(), tasks(PAGE.read_text())
    for tool in parser.parse_args().run:
        known[tool] = run(tool, found)
    if known:
        RUN.write_text(json.dumps(known, indent=1) + "\n")
    PAGE.write_text(updated(PAGE.read_text()))


if __name__ == "__main__":
    main()
