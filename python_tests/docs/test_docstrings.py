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
    found = [p.relative_to(ROOT).with_suffix("") for p in files if ">>> " in p.read_text()]
    return [".".join(p.parts).removesuffix(".__init__") for p in found]


@pytest.mark.parametrize("name", with_examples())
def test_examples(name: str) -> None:
    """What differed is in the captured output."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
