"""The examples of the package's docstrings give what they say: a case for each module."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Those of packages that need not be there cannot be imported without them.
ADAPTERS = {"lightning", "timm", "torchmetrics", "transformers"}


def with_examples() -> list[str]:
    """Names of the modules with examples."""
    files = (p for p in sorted((ROOT / "repsim_fast").rglob("*.py")) if p.stem not in ADAPTERS)
    found = [p.relative_to(ROOT).with_suffix("") for p in files if _is_run(p.read_text())]
    return [".".join(p.parts).removesuffix(".__init__") for p in found]


def _is_run(text: str) -> bool:
    """Whether some example is not skipped."""
    return any(">>> " in line and "+SKIP" not in line for line in text.splitlines())


@pytest.mark.parametrize("name", with_examples())
def test_examples(name: str) -> None:
    """What differed is in the captured output."""
    if name.endswith("scikit_learn"):
        pytest.importorskip("sklearn", reason="an extra brings scikit-learn")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
