"""Layers belong to the stage that made what they show, whatever they are called."""

import pytest
import torch
from torch import nn

from repsim_fast import models
from repsim_fast.analysis.grids import block_index, stages_by_name
from repsim_fast.analysis.stages import making_stages

X = torch.rand(2, 3, 16, 16)


def labels(model, layers, **options):
    return dict(zip(layers, making_stages(model, X, layers, **options), strict=True))


@pytest.fixture(scope="module")
def wide():
    return models.build("wrn-16-1", num_classes=10, seed=0)


def test_pre_activation_blocks_show_the_stage_before_first(wide):
    layers = [n for n, m in wide.named_modules() if not list(m.children())]
    found = labels(wide, layers)
    module = dict(zip(layers, stages_by_name(layers), strict=True))
    differ = {name: found[name] for name in layers if found[name] != module[name]}
    assert differ == {
        "stage1.0.bn1": "stem", "stage1.0.relu1": "stem",
        "stage2.0.bn1": "stage1", "stage2.0.relu1": "stage1",
        "stage3.0.bn1": "stage2", "stage3.0.relu1": "stage2",
        "bn": "stage3", "relu": "stage3",
    }  # fmt: skip
    assert (found["conv1"], found["avgpool"], found["fc"]) == ("stem", "head", "head")


def test_names_do_not_matter(wide):
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = wide.conv1, wide.stage1, wide.stage2, wide.stage3
            self.e, self.f = wide.bn, wide.relu

        def forward(self, x):
            return self.f(self.e(self.d(self.c(self.b(self.a(x))))))

    found = labels(Renamed(), ["a", "b.0.relu1", "c.0.relu1", "c.1.relu1", "d.1.conv2", "f"])
    assert list(found.values()) == ["stem", "stem", "b", "c", "d", "d"]


def test_post_activation_networks_have_the_stage_of_the_module():
    network = models.build("resnet-20", num_classes=10, seed=0)
    layers = [n for n, m in network.named_modules() if n.startswith("stage") and "." in n]
    assert set(labels(network, layers).values()) == {"stage1", "stage2", "stage3"}
    assert all(stage == name.partition(".")[0] for name, stage in labels(network, layers).items())


def test_steps_that_are_no_modules_count_as_made_where_they_run():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(True)

        def forward(self, x):
            return self.act(self.norm(x + self.conv(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first, self.second = nn.Conv2d(3, 3, 1), Adds(), Adds()
            self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

        def forward(self, x):
            x = self.second(self.first(self.stem(x).relu()))
            return self.fc(self.norm(x * 2).mean((2, 3)))

    layers = ["stem", "first.norm", "first.act", "second.norm", "norm", "fc"]
    assert list(labels(Net(), layers).values()) == [
        "stem", "first", "first", "second", "second", "head",
    ]  # fmt: skip


def test_a_module_that_is_called_again_has_a_stage_for_each_call():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (
                nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)) for _ in range(2)
            )
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(self.two(self.act(self.one(x))))

    found = labels(Shared(), ["act", "act#2"], stages=["one", "two"])
    assert found == {"act": "one", "act#2": "two"}
    with pytest.raises(ValueError, match="'act' was called 2 times, wanted call 3"):
        labels(Shared(), ["act#3"])


def test_the_model_comes_back_as_it_was(wide):
    wide.train()
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    labels(wide, ["bn"])
    assert wide.training
    assert all(torch.equal(before[name], value) for name, value in wide.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in wide.modules())


def test_what_is_not_there_is_said(wide):
    with pytest.raises(ValueError, match="expected names of modules, got 'relu9'"):
        labels(wide, ["relu9"])
    with pytest.raises(ValueError, match="found none in Linear, expected two or more"):
        making_stages(nn.Linear(3, 2), torch.rand(2, 3), [""])


def test_blocks_of_made_tensors_are_seen_where_those_of_names_are_not(wide):
    """A map whose blocks are, exactly, the tensors that each stage made."""
    layers = [n for n, m in wide.named_modules() if not list(m.children())]
    made = making_stages(wide, X, layers)
    blocks = torch.tensor([[float(a == b) for a in made] for b in made]).numpy()
    assert block_index(blocks, made) == pytest.approx(1)
    assert block_index(blocks, stages_by_name(layers)) < 0.75
