"""Selectivity of a model's units, streamed, against the index written out."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from repsim_fast.analysis.selectivity import class_selectivity, selectivity, selectivity_of_means


class Twice(nn.Module):
    """One ReLU called twice, on maps and on features, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.relu(self.fc(x))


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return torch.rand(53, 1, 8, 8), torch.randint(0, 4, (53,)) * 1000 - 7


def written_out(units: Tensor, y: Tensor) -> Tensor:
    indices = []
    for unit in units.double().T:
        means = sorted(float(unit[y == label].mean()) for label in y.unique())
        rest = sum(means[:-1]) / (len(means) - 1)
        indices.append((means[-1] - rest) / (means[-1] + rest + 1e-6))
    return torch.tensor(indices, dtype=torch.float64)


@pytest.mark.parametrize("batch_size", [1, 8, 53])
def test_every_call_of_every_layer(data: tuple[Tensor, Tensor], batch_size: int) -> None:
    net, (x, y) = Twice(), data
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found = selectivity(net, data, batch_size=batch_size)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    net.eval()
    with torch.no_grad():
        hidden = torch.relu(net.bn(net.conv(x))).mean((2, 3))
        want = {"relu": hidden, "relu#2": torch.relu(net.fc(hidden))}
    assert list(found.units) == list(want)
    for name, units in want.items():
        # Batches of other sizes round float32 features otherwise.
        torch.testing.assert_close(found.units[name], written_out(units, y), rtol=1e-4, atol=1e-6)
        means = torch.stack([units[y == label].double().mean(0) for label in found.classes])
        torch.testing.assert_close(found.class_means[name], means, rtol=1e-5, atol=1e-6)
    assert found.classes == tuple(y.unique().tolist())
    assert found.counts == tuple(int((y == label).sum()) for label in found.classes)
    layers = [float(index.mean()) for index in found.units.values()]
    assert list(found.layers.values()) == layers
    assert found.mean == pytest.approx(sum(layers) / 2)
    assert str(found).splitlines()[-1] == f"mean    {found.mean:.3f}"


def test_the_calls_and_layers_asked_for(data: tuple[Tensor, Tensor]) -> None:
    assert list(selectivity(Twice(), data, layers="relu#2").units) == ["relu#2"]
    assert list(selectivity(Twice(), data, layers=["bn", "relu"]).units) == [
        "bn", "relu", "relu#2"
    ]  # fmt: skip


def test_known_units_of_a_thousand_classes_from_a_loader() -> None:
    y = torch.arange(3000) % 1000
    one, all_alike, half = (y == 7).float(), torch.full((3000,), 0.7), (y < 500).float()
    x = torch.stack((one, all_alike, half), 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    index = selectivity(nn.Sequential(nn.ReLU()), loader).units["0"]
    rest = 499 / 999
    want = [1.0, 0.0, (1 - rest) / (1 + rest)]
    assert index.tolist() == pytest.approx(want, abs=1e-5)


def test_the_sums_keep_what_float32_would_lose() -> None:
    """Means of a million equal numbers: float32 sums of 0.1 are off by a percent."""
    x = torch.full((1 << 20, 1), 0.1)
    y = torch.arange(len(x)) % 2
    found = selectivity(nn.Sequential(nn.ReLU()), (x, y), batch_size=1 << 10)
    assert found.class_means["0"].flatten().tolist() == pytest.approx([float(x[0])] * 2, rel=1e-12)


def test_agrees_with_the_index_of_a_batch(data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0].flatten(1), (data[1] + 7) // 1000
    found = selectivity(nn.Sequential(nn.ReLU()), (x, y)).units["0"]
    torch.testing.assert_close(found.float(), class_selectivity(x, y), rtol=1e-4, atol=1e-6)


class Sometimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.relu(x) if self.passes % 2 else x


def test_bad_input(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    net = Twice()
    with pytest.raises(ValueError, match=r"at least two classes, got labels \[3\]"):
        selectivity(net, (x, torch.full((53,), 3)))
    with pytest.raises(ValueError, match="data must have labels"):
        selectivity(net, x)
    with pytest.raises(TypeError, match="labels must be integers"):
        selectivity(net, (x, y.float()))
    with pytest.raises(ValueError, match=r"labels must have shape \(n,\)"):
        selectivity(net, (x, torch.zeros(53, 4, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"no nn\.ReLU module"):
        selectivity(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), data)
    with pytest.raises(ValueError, match="matched no layer"):
        selectivity(net, data, layers="gelu")
    with pytest.raises(ValueError, match="layer 'relu' must have finite activations"):
        selectivity(net, (x * float("nan"), y))
    with pytest.raises(ValueError, match="called in every pass, got"):
        selectivity(Sometimes(), (x.flatten(1), y), batch_size=10)
    assert not any(module._forward_hooks for module in net.modules())
    nothing = nn.Sequential(nn.Flatten(), nn.Linear(64, 0), nn.ReLU())
    with pytest.raises(ValueError, match=r"n_units >= 1\), got \(\d+, 0\)"):
        selectivity(nothing, data)
    rows = nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), nn.ReLU())
    with pytest.raises(ValueError, match="units for each of the"):
        selectivity(rows, (x.expand(-1, 2, -1, -1), y))


@pytest.mark.parametrize("shape", [(1, 3), (3,), (2, 3, 4)])
def test_means_of_one_class_have_no_index(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"means must be \(n_classes >= 2, n_units\), got"):
        selectivity_of_means(torch.ones(shape))


def test_negative_class_means_are_named():
    data = torch.tensor([[-3.0], [1.0]]), torch.tensor([0, 1])
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    with pytest.warns(UserWarning, match="1 layers, such as '0', have negative class means"):
        selectivity(model, data, layers=["0", "1"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selectivity(model, data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_wider_than_activations(dtype: torch.dtype) -> None:
    # 80,000 samples, whose sums and counts 16 bits do not hold.
    y = torch.arange(80_000, dtype=torch.int32) % 2
    x = (torch.rand(80_000, 3) * (1 + y[:, None])).to(dtype)
    x[:, 2] = 0
    found = class_selectivity(x, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), written_out(x, y), rtol=1e-6, atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(class_selectivity(x, y), found)


def test_labels_may_be_any_integers() -> None:
    x, y = torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    want = class_selectivity(x, y)
    for labels in (y.int(), y - 7, y * 2**60, y.to(torch.uint8)):
        assert torch.equal(class_selectivity(x, labels), want)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (torch.rand(4, 2), torch.tensor([0, 1, 1]), ValueError, r"y must have shape \(4,\), got"),
        (torch.rand(4, 2), torch.rand(4), TypeError, "y must be an integer tensor .*float32"),
        (torch.rand(4, 2), [0, 1, 0, 1], TypeError, "y must be an integer tensor .* list"),
        (torch.rand(4), torch.tensor([0, 1, 1, 0]), ValueError, "activations must have shape"),
        (torch.ones(2, 2).int(), torch.tensor([0, 1]), TypeError, "activations must be .*int32"),
    ],
)
def test_wrong_arguments_are_named(
    x: Tensor, y: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        class_selectivity(x, y)
