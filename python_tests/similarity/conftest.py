from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Most tests here have few samples on purpose; test_chance.py is about the warning of them."""
    few_samples = pytest.mark.filterwarnings("ignore:.* see chance_level:UserWarning")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(few_samples, append=False)
