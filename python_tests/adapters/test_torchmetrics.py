"""The metric of torchmetrics, with the real package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

torchmetrics = pytest.importorskip("torchmetrics")

from python_tests.support.ranks import launch  # noqa: E402
from repsim_fast.adapters.torchmetrics import LayerCKA  # noqa: E402
from repsim_fast.ops import centered_gram  # noqa: E402
from repsim_fast.similarity import MinibatchCKA  # noqa: E402

LAYERS = ("a", "b", "c")


def _features(seed: int, n: int = 12) -> dict[str, Tensor]:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return {"c": x.square().view(n, 5, 1), "a": x, "b": x.relu()}


def _expected(seeds: range) -> MinibatchCKA:
    cka = MinibatchCKA()
    for seed in seeds:
        features = _features(seed)
        grams = [centered_gram(features[n].flatten(1), packed=True) for n in LAYERS]
        cka.update(torch.stack(grams), n=12)
    return cka


def test_value_and_errors_are_those_of_minibatch_cka() -> None:
    metric = LayerCKA(LAYERS)
    assert isinstance(metric, torchmetrics.Metric)
    for seed in range(7):
        metric.update(_features(seed))
    expected = _expected(range(7)).compute()
    torch.testing.assert_close(metric.compute(), expected.value, rtol=0, atol=1e-12)
    result = metric.result("network")
    assert result.layers == (LAYERS,)
    assert result.n_samples == 84
    errors = torch.from_numpy(result.standard_error)
    torch.testing.assert_close(errors, expected.standard_error, rtol=0, atol=1e-12)
    figure, axes = metric.plot()
    assert axes
    assert figure is axes[0].figure
    metric.reset()
    with pytest.raises(RuntimeError, match="no batch"), pytest.warns(UserWarning, match="before"):
        metric.compute()


def test_forward_gives_the_batch_and_keeps_all() -> None:
    metric = LayerCKA(LAYERS)
    for seed in range(3):
        of_batch = metric(_features(seed))
        one = _expected(range(seed, seed + 1)).compute().value
        torch.testing.assert_close(of_batch, one, rtol=0, atol=1e-12)
    torch.testing.assert_close(metric.compute(), _expected(range(3)).compute().value)
    assert metric.result().n_batches == 3
    assert len(metric.result().group_samples) == 3


def test_a_value_asked_for_before_is_not_kept_when_states_change() -> None:
    """By merging and by loading, for which torchmetrics has no hook that forgets it."""
    one, other = LayerCKA(LAYERS), LayerCKA(LAYERS)
    for metric in (one, other):
        metric.persistent(True)
    for seed in range(5):
        (one if seed < 2 else other).update(_features(seed))
    one.compute()
    one.merge_state(other)
    assert one.update_count == 5
    torch.testing.assert_close(one.compute(), _expected(range(5)).compute().value)
    one.load_state_dict(other.state_dict())
    torch.testing.assert_close(one.compute(), _expected(range(2, 5)).compute().value)


def test_metrics_that_load_one_state_stay_apart() -> None:
    first = LayerCKA(LAYERS)
    first.persistent(True)
    first.update(_features(0))
    state = first.state_dict()
    one, other = LayerCKA(LAYERS), LayerCKA(LAYERS)
    for metric in (one, other):
        metric.load_state_dict(state)
    one.update(_features(1))
    torch.testing.assert_close(other.compute(), _expected(range(1)).compute().value)


def test_a_saved_state_knows_what_it_is_of() -> None:
    metric = LayerCKA(LAYERS)
    assert not metric.state_dict()  # nothing is kept unasked
    metric.persistent(True)
    held = torch.nn.ModuleDict({"inner": metric}).state_dict()
    for other in (
        LayerCKA(LAYERS[::-1]), LayerCKA(LAYERS[:2]), LayerCKA(LAYERS, estimator="biased"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r'expected one of .*got .*"layers": \["a", "b", "c"'):
            torch.nn.ModuleDict({"inner": other}).load_state_dict(held)
    again = torch.nn.ModuleDict({"inner": LayerCKA(LAYERS)})
    again.load_state_dict(held)
    del held["inner.about"]  # of a version that did not say
    again.load_state_dict(held)
    del held["inner.hsic"]
    two = LayerCKA(["a", "b"])
    two.persistent(True)
    nameless = {k: v for k, v in two.state_dict().items() if k != "about"}
    with pytest.raises(ValueError, match=r"expected hsic \(64, 3, 3\) of 3 layers"):
        metric.load_state_dict(nameless)


@pytest.mark.parametrize("bad", [[1.0], torch.zeros(8, 3), None], ids=["list", "tensor", "None"])
def test_features_are_tensors_by_layer(bad: object) -> None:
    metric = LayerCKA(["a"])
    with pytest.raises(TypeError, match="features: expected a mapping"):
        metric.update(bad)
    with pytest.raises(TypeError, match=r"features\['a'\]: expected a tensor"):
        metric.update({"a": torch.tensor(1.0) if isinstance(bad, Tensor) else bad})
    metric.update({"a": torch.arange(8.0)})  # one feature
    assert metric.compute() == 1.0


def test_states_merge() -> None:
    one, other = LayerCKA(LAYERS), LayerCKA(LAYERS)
    for seed in range(5):
        (one if seed < 2 else other).update(_features(seed))
    one.merge_state(other)
    torch.testing.assert_close(one.compute(), _expected(range(5)).compute().value)
    again = LayerCKA(LAYERS)
    again.merge_state(one.metric_state)
    torch.testing.assert_close(again.compute(), one.compute())
    with pytest.raises(ValueError, match="expected layers"):
        one.merge_state(LayerCKA(["a", "b"]))
    with pytest.raises(ValueError, match="expected 3 layers, got 2"):
        one.merge_state(LayerCKA(["a", "b"]).metric_state)
    with pytest.raises(ValueError, match="a LayerCKA or its metric_state"):
        one.merge_state({"hsic": one.hsic})


_SHARED = """
import sys
from python_tests.adapters.test_torchmetrics import LAYERS, LayerCKA, _expected, _features
metric = LayerCKA(LAYERS)
for seed in range(rank, 7, size):
    metric.update(_features(seed))
torch.testing.assert_close(metric.compute(), _expected(range(7)).compute().value)
with metric.sync_context():
    assert metric.result().n_samples == 84
assert metric.result().n_samples == 12 * len(range(rank, 7, size))
"""


def test_processes_are_synchronised(tmp_path: Path) -> None:
    for code, output in launch(_SHARED, 2, tmp_path):
        assert code == 0, output


def test_bad_input() -> None:
    metric, features = LayerCKA(LAYERS), _features(0)
    with pytest.raises(ValueError, match="expected those of"):
        metric.update({"a": features["a"]})
    with pytest.raises(ValueError, match="same samples of all layers"):
        metric.update({**features, "a": features["a"][:8]})
    with pytest.raises(ValueError, match="NaN or Inf"):
        metric.update({**features, "a": features["a"] * float("nan")})
    with pytest.raises(ValueError, match="at least 4 samples"):
        metric.update(_features(0, n=3))
    with pytest.raises(ValueError, match="layers: expected different names"):
        LayerCKA(["a", "a"])
    with pytest.raises(ValueError, match="estimator"):
        LayerCKA(["a"], estimator="none")  # type: ignore[arg-type]
