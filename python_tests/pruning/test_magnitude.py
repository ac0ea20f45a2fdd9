"""Exactly the weights that should go."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from repsim_fast import pruning


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[8.0, -7, 6, -5], [4, -3, 2, -1]]))
        model[2].weight.copy_(torch.tensor([[0.4, -0.3], [0.2, 9.0]]))
    return model


def weights(model: nn.Sequential) -> list[list[float]]:
    return [model[0].weight.flatten().tolist(), model[2].weight.flatten().tolist()]


def test_each_layer_loses_its_smallest() -> None:
    model = two_layers()
    pruning.prune(model, 0.5)
    assert weights(model) == [[8, -7, 6, -5, 0, 0, 0, 0], pytest.approx([0.4, 0, 0, 9])]


def test_all_layers_together_lose_the_smallest() -> None:
    model = two_layers()
    pruning.prune(model, 0.5, scope="global")
    assert weights(model) == [[8, -7, 6, -5, 4, 0, 0, 0], [0, 0, 0, 9]]


def test_named_layers_alone() -> None:
    model = two_layers()
    dense = weights(model)
    pruning.prune(model, 0.75, layers=["2"])
    assert weights(model) == [dense[0], [0, 0, 0, 9]]


def test_filters_of_the_smallest_l1_norm_go() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3, 2))
    rows = torch.tensor([[1.0, -1, 1, -1], [3, 0, 0, 0], [-2, 2, 2, -2]])
    with torch.no_grad():
        model[0].weight.copy_(rows.view(3, 1, 2, 2))
    dense = model[2].weight.clone()
    pruning.prune(model, 0.4, criterion="filters")
    assert model[0].weight.view(3, 4).tolist() == [[1, -1, 1, -1], [0, 0, 0, 0], [-2, 2, 2, -2]]
    assert torch.equal(model[2].weight, dense)


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, 100), (0.29, 71), (0.9, 10), (0.999, 1)])
def test_the_number_is_exact_also_where_all_are_alike(sparsity: float, kept: int) -> None:
    model = nn.Linear(10, 10)
    nn.init.ones_(model.weight)
    pruning.prune(model, sparsity)
    assert int(model.weight.count_nonzero()) == kept


@pytest.mark.parametrize("sparsity", [np.float32(0.3), np.float64(0.3), Fraction(3, 10)], ids=type)
def test_a_sparsity_is_any_real_number(sparsity: Any) -> None:
    layer = nn.Linear(10, 1)
    pruning.prune(layer, sparsity)
    assert pruning.report(layer).kept == 7


def test_rounds_keep_what_was_pruned_pruned() -> None:
    torch.manual_seed(0)
    model = nn.Linear(20, 10)
    gone = torch.zeros(10, 20, dtype=torch.bool)
    for number, sparsity in enumerate(pruning.sparsities(0.875, 3)):
        pruning.prune(model, sparsity, further=number > 0)
        assert not bool(model.weight[gone].any())
        gone = model.weight == 0
        assert int(gone.sum()) == [100, 150, 175][number]
        with torch.no_grad():  # what is left moves; also weights that are pruned next
            model.parametrizations.weight.original.mul_(torch.rand(10, 20))


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        ("geometric", [1 - 0.1**0.5, 0.9]),
        ("linear", [0.45, 0.9]),
        ("cubic", [0.9 * 0.875, 0.9]),
    ],
)
def test_schedules(schedule: Any, want: list[float]) -> None:
    assert pruning.sparsities(0.9, 2, schedule=schedule) == pytest.approx(want, abs=1e-15)


@pytest.mark.parametrize(
    ("sparsity", "options", "says"),
    [
        (1, {}, r"sparsity must lie in \[0, 1\), 1 leaves no weight; got 1"),
        (-0.1, {}, "got -0.1"),
        (float("nan"), {}, "got nan"),
        (0.7, {"scope": "global"}, "leave layer '2' without a weight"),
        (0.5, {"criterion": "random"}, "'random'"),
        (0.5, {"scope": "all"}, "'all'"),
        (0.5, {"criterion": "filters", "scope": "global"}, "goes with scope 'layer'"),
        (0.5, {"criterion": "filters"}, "a convolutional layer to prune, got none"),
        (0.5, {"layers": ["1"]}, "got '1'"),
        (0.5, {"layers": []}, "got none"),
        (0.5, {"further": True}, "further: expected the layers that have masks"),
    ],
)
def test_what_cannot_be_pruned_stays_as_it_is(
    sparsity: float, options: dict[str, Any], says: str
) -> None:
    model = two_layers()
    with torch.no_grad():
        model[2].weight.div_(10)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=says):
        pruning.prune(model, sparsity, **options)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


def test_double_pruning_is_refused_and_so_is_going_back() -> None:
    model = two_layers()
    pruning.prune(model, 0.5)
    pruned = weights(model)
    with pytest.raises(ValueError, match=r"pruned already .*further=True"):
        pruning.prune(model, 0.5)
    with pytest.raises(ValueError, match=r"no less than layer '0' has already, 0\.5, got 0\.25"):
        pruning.prune(model, 0.25, further=True)
    with pytest.raises(ValueError, match="pruned already"), pruning.learned_scores(model, 0.75):
        pass
    assert weights(model) == pruned


def test_filters_go_after_weights() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3)
    pruning.prune(model, 0.5)
    before = model.weight.detach().clone()
    pruning.prune(model, 0.5, criterion="filters", further=True)
    norms = before.abs().sum((1, 2, 3))
    kept = norms.topk(2).indices
    assert torch.equal(model.weight[kept], before[kept])
    assert model.weight.count_nonzero() == before[kept].count_nonzero()
    with pytest.raises(ValueError, match="no less than layer '' has already"):
        pruning.prune(model, 0.25, criterion="filters", further=True)


def test_layers_have_sparsities_of_their_own() -> None:
    model = two_layers()
    pruning.prune(model, 0.5, layers=["0"])
    pruning.prune(model, 0.75, layers=(name for name in ["2"]))
    assert [layer.sparsity for layer in pruning.report(model).layers] == [0.5, 0.75]
    pruning.prune(model, 0.75, layers=["0"], further=True)
    assert [layer.sparsity for layer in pruning.report(model).layers] == [0.75, 0.75]
    with pytest.raises(ValueError, match=r"pruned already \(layer '0'\)"):
        pruning.prune(model, 0.5)
    for begun in (["0"], ["2"]):
        model = two_layers()
        pruning.prune(model, 0.5, layers=begun)
        with pytest.raises(ValueError, match=r"pruned already"):
            pruning.prune(model, 0.75)
        with pytest.raises(ValueError, match="further: expected the layers that have masks"):
            pruning.prune(model, 0.75, further=True)
        with pruning.learned_scores(model, 0.75, layers={"0", "2"} - set(begun)):
            pass
        assert sorted(layer.sparsity for layer in pruning.report(model).layers) == [0.5, 0.75]


def test_sparsities_by_layer_are_no_names() -> None:
    model = two_layers()
    for layers in ({"0": 0.5, "2": 0.75}, "0"):
        with pytest.raises(TypeError, match="layers: expected a collection of names"):
            pruning.prune(model, 0.5, layers=layers)
    assert pruning.report(model).sparsity == 0


def test_other_kinds_of_weights_are_refused() -> None:
    model = two_layers()
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(ValueError, match="'0' has a parametrization already"):
        pruning.prune(model, 0.5)
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one weight"):
        pruning.prune(tied, 0.5)
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(ValueError, match="finite"):
        pruning.prune(broken, 0.5)
    with pytest.raises(TypeError, match="got the text"):
        pruning.prune(two_layers(), 0.5, layers="0")
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
        pruning.prune(3, 0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sparsity must be a number"):
        pruning.prune(two_layers(), "0.5")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "make_weight",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
    ],
)
def test_a_weight_that_a_hook_makes_is_refused(make_weight: Any) -> None:
    model = two_layers()
    make_weight(model[0])
    for mask in (lambda: pruning.prune(model, 0.5), lambda: pruning.hold_zeros(model)):
        with pytest.raises(ValueError, match=r"^model: expected the weight of '0' to be a param"):
            mask()
    with (
        pytest.raises(ValueError, match=r"^model: expected the weight of '0'"),
        pruning.learned_scores(model, 0.5),
    ):
        raise AssertionError("not to be reached")


def test_complex_weights_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"^model: expected a real .* '0', got torch.complex64"):
        pruning.prune(model, 0.5)


def test_a_model_in_eval_mode_stays_in_it() -> None:
    for training in (False, True):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).train(training)
        pruning.prune(model, 0.5)
        assert {m.training for m in model.modules()} == {training}
