"""The networks' structure: sizes, module order and the wiring of shortcuts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repsim_fast import data, models

OURS = [
    "resnet-digits",
    "resnet-20",
    "preactresnet-18",
    "preactresnet-18-w4",
    "wrn-10-1",
    "wrn-16-2",
    "vgg-16-w8",
    "cnn-small",
    "cnn-large-w8",
]
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear)


def called(model: nn.Module, images: Tensor) -> list[str]:
    """Name the layers in the order the forward pass calls them."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    with torch.no_grad():
        model.eval()(images)
    return names


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Published: 36.5M, 0.27M and 11.17M. The exact numbers follow from the layers.
        ("wrn-28-10", 36_479_194),
        ("resnet-20", 269_722),
        ("preactresnet-18", 11_172_170),
        ("preactresnet-18-w64", 11_172_170),
        ("preactresnet-18-w16", 701_018),
        ("vgg-16", 15_311_818),
        ("vgg-16-w64", 15_311_818),
        ("cnn-small", 214_918),
        ("cnn-small-w16", 214_918),
        ("cnn-large", 2_466_858),
        ("cnn-large-w32", 2_466_858),
    ],
)
def test_parameter_counts(name, parameters):
    model = models.build(name, num_classes=10, seed=0)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 45)])
def test_any_image_size(name, channels, side):
    model = models.build(name, num_classes=7, in_channels=channels, seed=0)
    logits = model(torch.rand(2, channels, side, side))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_wide_resnet_28_has_the_80_layers_of_the_paper_in_order():
    model = models.build("wrn-28-4", num_classes=10, seed=0)
    block = ["bn1", "relu1", "conv1", "bn2", "relu2", "conv2"]
    expected = ["conv1"]
    for stage in (1, 2, 3):
        for index in range(4):
            layers = [*block, "shortcut"] if index == 0 else block
            expected += [f"stage{stage}.{index}.{layer}" for layer in layers]
    expected += ["bn", "relu", "avgpool", "fc"]
    assert len(expected) == 80
    assert called(model, torch.rand(1, 3, 32, 32)) == expected


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet-20", 59),
        ("preactresnet-18", 56),
        ("vgg-16", 49),
        ("cnn-small", 8),
        ("cnn-large", 14),
    ],
)
def test_each_layer_is_called_once(name, layers):
    names = called(models.build(name, num_classes=10, seed=0), torch.rand(1, 3, 32, 32))
    assert len(names) == len(set(names)) == layers


def layers_of(name: str) -> list[tuple[int, ...]]:
    """Channels (out, in) and kernel, stride and padding of convolutions, sizes of linear layers."""
    return [
        (*m.weight.shape[:3], m.stride[0], m.padding[0])
        if isinstance(m, nn.Conv2d)
        else tuple(m.weight.shape)
        for m in models.build(name, num_classes=10, seed=0).modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]


def test_networks_of_pruning_papers_have_the_published_layers():
    """Of an image of 32 x 32; vgg-16 without its pooling, which the parameter count cannot see."""
    small = [(16, 3, 4, 2, 1), (32, 16, 4, 2, 1), (100, 32 * 8 * 8), (10, 100)]
    assert layers_of("cnn-small") == small
    large = [(32, 3, 3, 1, 1), (32, 32, 4, 2, 1), (64, 32, 3, 1, 1), (64, 64, 4, 2, 1)]
    assert layers_of("cnn-large") == [*large, (512, 64 * 8 * 8), (512, 512), (10, 512)]
    sizes = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    convolutions = [(n, c, 3, 1, 1) for c, n in zip([3, *sizes], sizes, strict=False)]
    assert layers_of("vgg-16") == [*convolutions, (256, 2048), (256, 256), (10, 256)]
    sides = []
    model = models.build("vgg-16-w1", num_classes=10, seed=0)
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4, model.stage5):
        stage.register_forward_hook(lambda *a: sides.append(a[2].shape[-1]))
    model(torch.rand(2, 3, 32, 32))
    assert sides == [16, 8, 4, 2, 2]


@pytest.mark.parametrize("name", ["cnn-small", "cnn-large", "vgg-16"])
def test_another_width_scales_every_layer(name):
    """Twice as wide: all but images and classes double."""
    usual = {"cnn-small": 16, "cnn-large": 32, "vgg-16": 64}[name]
    for half, whole in zip(layers_of(f"{name}-w{usual // 2}"), layers_of(name), strict=True):
        assert half[0] * (1 if whole[0] == 10 else 2) == whole[0]
        assert half[1] * (1 if whole[1] == 3 else 2) == whole[1]
        assert half[2:] == whole[2:]


@pytest.mark.parametrize("name", OURS)
def test_no_relu_works_in_place(name):
    model = models.build(name, num_classes=10, seed=0)
    assert not any(m.inplace for m in model.modules() if isinstance(m, nn.ReLU))


@pytest.mark.parametrize(("name", "activated"), [("wrn-16-2", True), ("preactresnet-18", False)])
def test_preactivation_blocks_follow_their_formula(name, activated):
    model = models.build(name, num_classes=10, seed=0).eval()
    for stage, block in ((model.stage1, 1), (model.stage2, 0)):
        unit = stage[block]
        x = torch.randn(2, unit.bn1.num_features, 8, 8)
        first = F.relu(unit.bn1(x))
        branch = F.conv2d(first, unit.conv1.weight, stride=unit.conv1.stride, padding=1)
        branch = F.conv2d(F.relu(unit.bn2(branch)), unit.conv2.weight, padding=1)
        if block == 0:
            shortcut = F.conv2d(first if activated else x, unit.shortcut.weight, stride=2)
        else:
            shortcut = x
        torch.testing.assert_close(unit(x), branch + shortcut)


def test_option_a_shortcut():
    stage = models.build("resnet-20", num_classes=10, seed=0).stage2
    x = torch.randn(2, 16, 7, 7)
    y = stage[0].shortcut(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert (y[:, 16:] == 0).all()
    assert stage[1].shortcut is None


@pytest.mark.parametrize("name", OURS)
def test_initial_signal_neither_vanishes_nor_explodes(name):
    model = models.build(name, num_classes=10, seed=0)
    logits = model(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert 0.02 < logits.std() < 5


def test_digits_network_learns_in_seconds():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    model = models.build("resnet-digits", num_classes=10, in_channels=1, seed=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    epochs, steps = 3, -(-len(train) // 64)
    # Down to zero: at a constant rate accuracy jumps between 0.6 and 0.98 from epoch to epoch, and
    # which it ends on is a matter of rounding, so of processor and threads.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for images, labels in train.batches(64, shuffle=True, generator=order):
            optimiser.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimiser.step()
            schedule.step()
    images, labels = test.tensors()
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.95  # 0.973 to 0.978 by three seeds and one or two threads
