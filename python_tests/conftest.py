from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real images beside the repository (or at REPSIM_DATA); tests that need them skip without."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REPSIM_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no image data at {folder} (set REPSIM_DATA)")
    return folder
