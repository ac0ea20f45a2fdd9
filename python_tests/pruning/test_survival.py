"""Masks hold through whatever a training does to weights."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from repsim_fast import pruning
from repsim_fast.models import load, load_weights
from repsim_fast.training import Optimisation, Saving, train
from repsim_fast.training.awp import perturbed_weights

IMAGES = (torch.rand(32, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def zeros(model: nn.Sequential) -> list[Tensor]:
    return [model[0].weight == 0, model[4].weight == 0]


@pytest.mark.parametrize(
    "how",
    [
        Optimisation(),
        Optimisation(awp=0.01),
        Optimisation(ema=0.5),
        Optimisation("sam"),
        Optimisation("adamw", decay_norms_and_biases=False),
        Optimisation(autocast=torch.bfloat16),
    ],
    ids=["sgd", "awp", "ema", "sam", "adamw", "bfloat16"],
)
@pytest.mark.parametrize("method", ["standard", "pgd"])
def test_pruned_weights_stay_out(how: Optimisation, method: str) -> None:
    model = network()
    pruning.prune(model, 0.75)
    before, weight = zeros(model), model[4].weight.clone()
    options = {"eps": 0.1, "steps": 1} if method == "pgd" else None
    train(
        model, IMAGES, method=method, method_options=options, epochs=2, batch_size=16, lr=0.01,
        optimisation=how, progress=False,
    )  # fmt: skip
    assert all(map(torch.equal, zeros(model), before))
    assert not torch.equal(model[4].weight, weight)
    for layer in (model[0], model[4]):  # underneath as well: norms of weights are of what is left
        assert torch.equal(layer.parametrizations.weight.original, layer.weight)


def test_weight_perturbation_is_as_large_as_the_pruned_weight_asks() -> None:
    model = network()
    pruning.prune(model, 0.75)
    weight = model[4].weight.detach().clone()
    loss = lambda: nn.functional.cross_entropy(model(IMAGES[0]), IMAGES[1])  # noqa: E731
    with perturbed_weights(model, loss, 0.1, torch.amp.GradScaler("cpu", enabled=False)):
        moved = (model[4].weight - weight).detach()
    assert float(moved.norm()) == pytest.approx(0.1 * float(weight.norm()), rel=1e-5)
    assert not bool(moved[weight == 0].any())


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def run(folder: Path | None, stop: bool = False, resume: bool = False) -> dict[str, Tensor]:
        model = network()
        pruning.prune(model, 0.5)

        def on_epoch(_: nn.Module, record: object) -> None:
            if stop:
                raise KeyboardInterrupt

        saving = None if folder is None else Saving(folder, resume=resume)
        train(
            model, IMAGES, epochs=2, batch_size=16, saving=saving, on_epoch=on_epoch,
            optimisation=Optimisation(ema=0.5), progress=False,
        )  # fmt: skip
        return model.state_dict()

    whole = run(None)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run(tmp_path, stop=True)
    resumed = run(tmp_path, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other = network(1)
    pruning.prune(other, 0.25)
    load_weights(tmp_path / "last.safetensors", other)
    assert torch.equal(
        other[4].weight == 0, resumed["4.parametrizations.weight.0.keep"].logical_not()
    )


@pytest.mark.parametrize("learned", [False, True])
def test_a_training_of_another_sparsity_is_not_gone_on_with(tmp_path: Path, learned: bool) -> None:
    def run(sparsity: float, *, stop: bool) -> None:
        def on_epoch(_: nn.Module, record: object) -> None:
            if stop:
                raise KeyboardInterrupt

        model = network()
        with contextlib.ExitStack() as stack:
            if learned:
                stack.enter_context(pruning.learned_scores(model, sparsity))
            else:
                pruning.prune(model, sparsity)
            saving = Saving(tmp_path, resume=not stop)
            train(model, IMAGES, epochs=2, saving=saving, on_epoch=on_epoch, progress=False)

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run(0.5, stop=True)
    kept = r"kept_weights: {'0': 18, '4': 96} there, {'0': 8, '4': 39} here"
    with pytest.raises(ValueError, match=rf"other settings \({kept}\)"):
        run(0.8, stop=False)
    run(0.5, stop=False)


def test_the_applied_state_is_that_of_the_dense_architecture() -> None:
    model = network()
    pruning.prune(model, 0.75)
    state = pruning.apply(model)
    dense = network(1)
    dense.load_state_dict(state)
    assert torch.equal(dense.eval()(IMAGES[0]), model.eval()(IMAGES[0]))
    state["0.weight"].zero_()
    assert bool(model[0].weight.any())


def test_a_compiled_model_and_a_copy_are_masked() -> None:
    model = network().eval()
    pruning.prune(model, 0.5)
    want = model(IMAGES[0])
    assert torch.equal(copy.deepcopy(model)(IMAGES[0]), want)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(IMAGES[0]), want)
    assert pruning.report(compiled).sparsity == 0.5


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("of_torch", [False, True])
def test_files_with_masks_load_into_the_unpruned_model(
    tmp_path: Path, suffix: str, of_torch: bool
) -> None:
    model, path = network(), tmp_path / f"pruned{suffix}"
    if of_torch:
        torch_prune.l1_unstructured(model[0], "weight", 0.5)
        torch_prune.l1_unstructured(model[4], "bias", 0.5)
    else:
        pruning.prune(model, 0.75)
    want = model.eval()(IMAGES[0])
    (save_file if suffix == ".safetensors" else torch.save)(model.state_dict(), str(path))
    (tmp_path / "mine.py").write_text(f"from {__name__} import network\n")
    dense = network(1)
    load_weights(path, dense)
    named = load(f"{tmp_path / 'mine.py'}:network={path}")
    for found in (dense.eval(), named):
        assert torch.equal(found(IMAGES[0]), want)


def test_a_pruned_model_begins_with_the_masks_of_a_file(tmp_path: Path) -> None:
    model, other = network(), network(1)
    pruning.prune(model, 0.75)
    pruning.prune(other, 0.25)
    path = tmp_path / "pruned.safetensors"
    save_file(model.state_dict(), path)
    train(other, IMAGES, epochs=1, lr=1e-30, init=path, progress=False)
    assert all(map(torch.equal, zeros(other), zeros(model)))


def test_dense_weights_go_into_a_layer_of_two_names() -> None:
    layer = nn.Linear(36, 36)
    model = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)
    pruning.prune(model, 0.5)
    want = model(IMAGES[0])
    state = pruning.apply(model)
    nn.init.ones_(layer.parametrizations.weight.original)
    pruning.put(model, state)
    assert torch.equal(model(IMAGES[0]), want)
