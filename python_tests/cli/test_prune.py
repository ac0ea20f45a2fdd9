from __future__ import annotations

from pathlib import Path

import pytest
import torch

from python_tests.support.commands import Run
from repsim_fast import models, pruning


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    path = tmp_path / "dense.safetensors"
    about = {"name": "resnet-digits", "num_classes": 10, "in_channels": 1}
    network = models.build(**about, seed=0)
    models.save_checkpoint(path, network, **about, method="pgd", clean_accuracy=0.9)
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"scope": "global"}, {"criterion": "filters"}],
    ids=["layer", "global", "filters"],
)
def test_the_file_is_what_python_makes(
    run: Run, dense: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    out = tmp_path / "compact.safetensors"
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    result = run("prune", dense, "--sparsity", 0.75, *given, "--out", out)
    assert result.exit_code == 0, result.output
    network, _ = models.load_checkpoint(dense)
    pruning.prune(network, 0.75, **options)
    expected = pruning.apply(network)
    compact, header = models.load_checkpoint(out)
    state = compact.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    left = pruning.report(compact)
    assert f"{left.kept:,} of {left.weights:,} weights left" in result.output
    assert header["pruned"]["sparsity"] == 0.75
    assert (header["method"], "clean_accuracy" in header) == ("pgd", False)


def test_named_layers_and_bad_input(run: Run, dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "compact.safetensors"
    result = run("prune", dense, "--sparsity", 1, "--out", out)
    assert (result.exit_code, out.exists()) == (1, False)
    assert "sparsity must lie in [0, 1)" in result.stderr
    name = pruning.report(models.load_checkpoint(dense)[0]).layers[0].name
    assert run("prune", dense, "--sparsity", 0.5, "--layer", name, "--out", out).exit_code == 0
    left = pruning.report(models.load_checkpoint(out)[0]).layers
    assert [layer.sparsity for layer in left] == [0.5] + [0.0] * (len(left) - 1)
