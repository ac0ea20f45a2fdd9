from __future__ import annotations

from pathlib import Path

import pytest

from python_tests.support.commands import TRAIN, Run, run_command


@pytest.fixture
def run() -> Run:
    return run_command


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A standard and a PGD-trained network, both hardly trained."""
    folder = tmp_path_factory.mktemp("checkpoints")
    found = {}
    for method, options in (("standard", []), ("pgd", ["--eps", "0.2", "--attack-steps", "2"])):
        found[method] = folder / f"{method}.safetensors"
        result = run_command(*TRAIN, "--method", method, *options, "--out", found[method])
        assert result.exit_code == 0, result.output
    return found
