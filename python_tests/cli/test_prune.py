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


def test_what_is_pruned_stays_so(run: Run, dense: Path, tmp_path: Path) -> None:
    once, lower, higher = (tmp_path / f"{n}.safetensors" for n in ("once", "lower", "higher"))
    assert run("prune", dense, "--sparsity", 0.75, "--out", once).exit_code == 0
    result = run("prune", once, "--sparsity", 0.5, "--out", lower)
    assert (result.exit_code, lower.exists()) == (1, False)
    assert "sparsity: expected no less than layer" in result.stderr
    options = ("--sparsity", 0.5, "--criterion", "filters")
    assert run("prune", once, *options, "--out", higher).exit_code == 0
    before, after = zeros(once), zeros(higher)
    assert all(bool((after[name] >= before[name]).all()) for name in before)


QUICK = ("--data", "digits", "--limit", 60, "--test-limit", 20, "--epochs", 1, "--threads", 1)


def zeros(path: Path) -> dict[str, torch.Tensor]:
    network, _ = models.load_checkpoint(path)
    names = {f"{layer.name}.weight" for layer in pruning.report(network).layers}
    return {name: value == 0 for name, value in network.state_dict().items() if name in names}


def test_the_dense_network_is_not_overwritten(run: Run, dense: Path) -> None:
    before = dense.read_bytes()
    result = run("prune", dense, "--sparsity", 0.5, "--out", dense)
    assert result.exit_code == 1
    assert "--out must be another file than CHECKPOINT" in result.output
    assert dense.read_bytes() == before


def test_a_pruned_network_is_tuned_and_stays_pruned(run: Run, dense: Path, tmp_path: Path) -> None:
    compact, tuned, again = (tmp_path / f"{n}.safetensors" for n in ("compact", "tuned", "again"))
    assert run("prune", dense, "--sparsity", 0.75, "--out", compact).exit_code == 0
    result = run("train", "--init", compact, *QUICK, "--ema", 0.5, "--out", tuned)
    assert result.exit_code == 0, result.output
    before, after = zeros(compact), zeros(tuned)
    pruned = sum(int(z.sum()) for z in before.values())
    assert pruned > 100_000
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert models.checkpoint_header(tuned)["pruned"]["sparsity"] == 0.75
    first, second = (models.load_checkpoint(p)[0].state_dict() for p in (compact, tuned))
    assert not all(torch.equal(first[name], second[name]) for name in before)
    best = tmp_path / "tuned.training" / "best.safetensors"
    assert torch.equal(zeros(best)[next(iter(before))], next(iter(before.values())))
    # And further: what is tuned says that it was pruned.
    assert run("prune", tuned, "--sparsity", 0.9, "--out", again).exit_code == 0
    assert all(bool(zeros(again)[name][before[name]].all()) for name in before)
    result = run("train", "--init", compact, *QUICK, "--no-keep-zeros", "--out", again)
    assert result.exit_code == 0, result.output
    # Some lie behind neurons that never answer.
    assert sum(int(z.sum()) for z in zeros(again).values()) < pruned / 50


def test_a_stopped_tuning_goes_on(
    run: Run, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact = tmp_path / "compact.safetensors"
    assert run("prune", dense, "--sparsity", 0.75, "--out", compact).exit_code == 0
    paths = [tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"]
    options = ("--init", compact, *QUICK, "--epochs", 2)
    assert run("train", *options, "--out", paths[0]).exit_code == 0
    from repsim_fast.cli import train_run

    def stopped(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_run, "_epoch_line", stopped)
        assert run("train", *options, "--out", paths[1]).exit_code != 0
    result = run("train", *options, "--resume", "--out", paths[1])
    assert result.exit_code == 0, result.output
    whole, resumed = (models.load_checkpoint(path)[0].state_dict() for path in paths)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "resnet-digits", "--keep-zeros"), "--keep-zeros: say whose with --init"),
        (("--init", "dense.safetensors", "--keep-zeros"), "expected weights that are 0, got none"),
    ],
)
def test_zeros_that_are_not_there(
    run: Run, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = run("train", *QUICK, *options, "--out", "out.safetensors")
    assert result.exit_code == 1
    assert message in result.output
