"""Verified accuracy of data: what is counted, and going on after an interruption."""

from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from repsim_fast.models import normalized
from repsim_fast.verification import margin_bounds, verified_accuracy


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)).train()


@pytest.fixture
def data(model):
    images = torch.rand(20, 1, 4, 4)
    labels = model(images).argmax(1)
    labels[:5] = (labels[:5] + 1) % 3
    return images, labels


def test_right_images_whose_margins_are_positive_count(model, data, tmp_path):
    path = tmp_path / "known.json"
    found = verified_accuracy(model, data, 0.01, method="crown", batch_size=7, resume=path)
    assert model.training
    margins = margin_bounds(model.eval(), *data, 0.01).scatter(1, data[1][:, None], float("inf"))
    proven = int((margins.amin(1) > 0).sum())
    assert (found.clean, found.verified, found.n) == (0.75, proven / 20, 20)
    assert 0 < proven <= 15
    assert found.low < found.verified < found.high
    assert verified_accuracy(model, data, 0.0).verified == 0.75
    assert verified_accuracy(model, data, 1.0).verified == 0


def test_the_graph_is_found_once_for_all_batches(model, data, monkeypatch):
    traced = Mock(wraps=torch.fx.symbolic_trace)
    monkeypatch.setattr("torch.fx.symbolic_trace", traced)
    verified_accuracy(model, data, 0.01, method="ibp", batch_size=4)
    assert traced.call_count == 1


def test_an_interrupted_run_goes_on(model, data, tmp_path, monkeypatch):
    path = tmp_path / "known.json"
    whole = verified_accuracy(model, data, 0.01)
    calls = []

    def interrupting(*args, **kwargs):
        calls.append(len(args[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return margin_bounds(*args, **kwargs)

    monkeypatch.setattr("repsim_fast.verification.accuracy.margin_bounds", interrupting)
    with pytest.raises(KeyboardInterrupt):
        verified_accuracy(model, data, 0.01, batch_size=6, resume=path)
    resumed = verified_accuracy(model, data, 0.01, batch_size=20, resume=path)
    assert resumed == whole
    assert calls[3:] == [8]  # what was left: twelve were known
    assert verified_accuracy(model, data, 0.01, resume=path) == whole
    assert len(calls) == 4


def test_a_file_of_something_else_is_refused(model, data, tmp_path):
    path = tmp_path / "known.json"
    verified_accuracy(model, data, 0.01, resume=path)
    images, labels = data
    other = (images.flip(0), labels)
    linear = nn.Sequential(model[0], model[1], model[3]).train()  # of the same weights
    models = ((model[:2], data, 0.01), (linear, data, 0.01))
    for arguments in ((model, data, 0.02), (model, other, 0.01), *models):
        with pytest.raises(ValueError, match="name another file"):
            verified_accuracy(*arguments, resume=path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="lacks"):
        verified_accuracy(model, data, 0.01, resume=path)


class Scaled(nn.Module):
    """With numbers that are no part of the state dict."""

    def __init__(self, scale):
        super().__init__()
        self.part, self.scale = nn.Linear(4, 3), torch.full((1, 3), scale)

    def forward(self, x):
        return self.part(x) * self.scale


def test_one_weight_or_a_constant_makes_another_model(tmp_path):
    path, model = tmp_path / "known.json", Scaled(1.0)
    data = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    verified_accuracy(model, data, 0.01, resume=path)
    other = Scaled(-1.0)
    other.load_state_dict(model.state_dict())
    changed = Scaled(1.0)
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed.part.weight[2, 3] += 1e-3
    for wrong in (other, changed):
        with pytest.raises(ValueError, match="name another file"):
            verified_accuracy(wrong, data, 0.01, resume=path)


def test_normalisation_and_settings_of_layers_make_another_model(tmp_path):
    torch.manual_seed(0)
    linear = nn.Linear(8, 3)
    data = torch.rand(5, 2, 5, 5), torch.tensor([0, 1, 2, 0, 1])

    def pooled(count_include_pad=True, ceil_mode=False):
        pool = nn.AvgPool2d(3, 2, 1, ceil_mode, count_include_pad)
        return nn.Sequential(pool, nn.AvgPool2d(2, 1), nn.Flatten(), linear)

    for number, (one, other) in enumerate(
        (
            (normalized(pooled(), 0.3, 0.25), normalized(pooled(), 0.3, 0.26)),
            (pooled(), pooled(count_include_pad=False)),
            (pooled(), pooled(ceil_mode=True)),
        )
    ):
        path = tmp_path / f"{number}.json"
        found = verified_accuracy(one, data, 0.01, resume=path)
        assert verified_accuracy(one, data, 0.01, resume=path) == found
        with pytest.raises(ValueError, match="name another file"):
            verified_accuracy(other, data, 0.01, resume=path)


def test_batches_are_known_by_their_numbers(model, data, tmp_path):
    path = tmp_path / "known.json"
    images, labels = data

    def loader(images, labels):
        return DataLoader(TensorDataset(images, labels), batch_size=8)

    found = verified_accuracy(model, loader(images, labels), 0.01, resume=path)
    assert found == verified_accuracy(model, data, 0.01)
    assert verified_accuracy(model, loader(images, labels), 0.01, resume=path) == found
    changed, wrong = images.clone(), labels.clone()
    changed[3, 0, 1, 2] += 1e-3
    wrong[3] = (wrong[3] + 1) % 3
    for other in (loader(changed, labels), loader(images, wrong), loader(images[1:], labels[1:])):
        with pytest.raises(ValueError, match="name another file"):
            verified_accuracy(model, other, 0.01, resume=path)


def test_each_of_many_images_counts(model, tmp_path):
    path, images = tmp_path / "known.json", torch.rand(250, 1, 4, 4)
    labels = torch.zeros(250, dtype=torch.int64)
    verified_accuracy(model, (images, labels), 0.01, method="ibp", resume=path)
    images[7, 0, 2, 1] = 0.5
    with pytest.raises(ValueError, match="name another file"):
        verified_accuracy(model, (images, labels), 0.01, method="ibp", resume=path)


def test_one_logit_is_no_class_to_verify(data):
    one = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).eval()
    zeros = torch.zeros(20, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^model must return logits .*n_classes >= 2\), got"):
        verified_accuracy(one, (data[0], zeros), 0.1)
    with pytest.raises(ValueError, match=r"^model must return logits .*n_classes >= 2\), got"):
        margin_bounds(one, data[0], zeros, 0.1)


@pytest.mark.parametrize("labels", [torch.arange(20) % 4, torch.arange(20) % 3 - 1])
def test_labels_are_classes_of_the_model(model, data, labels):
    with pytest.raises(ValueError, match=r"^y must lie in \[0, 2\], the model's classes"):
        verified_accuracy(model, (data[0], labels), 0.1)


def test_models_without_bounds_are_named(model, data):
    with pytest.raises(TypeError, match="model must be a module, got function"):
        verified_accuracy(lambda x: x.flatten(1), data, 0.1)
    with pytest.raises(TypeError, match=r"model must have weights in .*, got torch\.bfloat16"):
        verified_accuracy(model.bfloat16(), data, 0.1)


def test_batch_size_and_device_are_named(model, data):
    with pytest.raises(TypeError, match=r"batch_size must be a whole number, got 2\.5"):
        verified_accuracy(model, data, 0.1, batch_size=2.5)
    with pytest.raises(RuntimeError, match="device='gpu' was asked for"):
        verified_accuracy(model, data, 0.1, device="gpu")


def test_soft_labels_have_the_classes_of_the_model(model, data):
    soft = torch.eye(5)[data[1]]
    with pytest.raises(ValueError, match="soft labels must have the model's 3 classes, got 5"):
        verified_accuracy(model, (data[0], soft), 0.1)
    assert verified_accuracy(model, (data[0], soft[:, :3]), 0.0).clean == 0.75


def test_an_answer_with_a_nan_is_not_right(model, data):
    with torch.no_grad():
        model[3].bias[0] = torch.nan
    found = verified_accuracy(model, (data[0], torch.zeros(20, dtype=torch.int64)), 0.0)
    assert (found.clean, found.verified) == (0, 0)


def test_bounds_of_channels_are_among_the_settings(data, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    images = torch.rand(20, 3, 2, 2)
    labels = model(images).argmax(1)
    path, low = tmp_path / "known.json", torch.tensor([0.0, -1.0, 0.0])
    found = verified_accuracy(model, (images, labels), 0.1, bounds=(low, 1.0), resume=path)
    assert found == verified_accuracy(model, (images, labels), 0.1, bounds=(low, 1.0), resume=path)
    with pytest.raises(ValueError, match="name another file"):
        verified_accuracy(model, (images, labels), 0.1, resume=path)
