"""The page of tasks counts what stands on it, and what other tools' code there does is known."""

from __future__ import annotations

import pytest

from docs.update_tasks import HERE, PAGE, TOOLS, lines, run, tasks, updated


def test_the_table_is_that_of_the_page() -> None:
    page = PAGE.read_text()
    assert updated(page) == page, "python -m docs.update_tasks"


def test_every_task_has_code_here() -> None:
    found = tasks(PAGE.read_text())
    assert len(found) == 10
    assert all(HERE in task.code for task in found)
    assert {tool for task in found for tool in task.code} == {HERE, *TOOLS}


def test_lines_are_statements() -> None:
    assert lines("# none\n\nf(\n    1,\n    2,\n)\n") == 1
    assert lines("def f():\n    '''One.'''\n\n    return 1\n") == 3
    with pytest.raises(ValueError, match="expected the code of one of"):
        tasks("## 1. Task\n```py\n# someone\nx = 1\n```\n")


@pytest.mark.parametrize("tool", TOOLS)
def test_code_of_other_tools_runs(tool: str) -> None:
    pytest.importorskip(tool)
    assert run(tool, tasks(PAGE.read_text()))["code"]
