"""Bounds of each kind of layer: exact where it is linear or rises, and of whole networks sound."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repsim_fast.verification import margin_bounds, output_bounds

METHODS = ["ibp", "crown-ibp", "crown"]


class Part(nn.Module):
    """A function of an image that may use layers."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, x):
        return self.function(x, *self.layers).flatten(1)


def alone(layer):
    return Part(lambda x, made: made(x), layer)


torch.manual_seed(0)
LINEAR = {
    "Conv1d": ((4, 9), alone(nn.Conv1d(4, 6, 3, 2, 2, dilation=2, groups=2))),
    "Conv3d": ((2, 4, 3, 5), alone(nn.Conv3d(2, 2, (3, 2, 1), (1, 1, 2), (1, 0, 0), groups=2))),
    "Conv3d same": ((2, 4, 3, 5), alone(nn.Conv3d(2, 3, (3, 5, 1), padding="same"))),
    "ConvTranspose1d": ((2, 5), alone(nn.ConvTranspose1d(2, 3, 3, 2, 1, output_padding=1))),
    "ConvTranspose2d": (
        (4, 3, 5),
        alone(nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 0), 2, True, (1, 2))),
    ),
    "ConvTranspose3d": ((2, 2, 3, 2), alone(nn.ConvTranspose3d(2, 1, 2, bias=False))),
    "functions of convolutions": (
        (2, 7),
        Part(
            lambda x, a, b: F.conv_transpose1d(
                F.conv1d(x, a.weight, a.bias, padding=1), b.weight, stride=2
            ),
            nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(3, 2, 2),
        ),
    ),
    "BatchNorm3d": ((2, 2, 3, 2), alone(nn.BatchNorm3d(2))),
    "SyncBatchNorm": ((2, 3, 2), alone(nn.SyncBatchNorm(2))),
    "AvgPool1d": ((2, 7), alone(nn.AvgPool1d(3, 2, 1))),
    "AvgPool3d": ((2, 4, 3, 5), alone(nn.AvgPool3d((2, 1, 3), ceil_mode=True))),
    "AdaptiveAvgPool1d": ((2, 7), alone(nn.AdaptiveAvgPool1d(3))),
    "AdaptiveAvgPool3d": ((2, 4, 3, 5), alone(nn.AdaptiveAvgPool3d((2, None, 7)))),
    "pools of maps without channels": ((4, 5), alone(nn.AdaptiveAvgPool2d(3))),
    "PixelShuffle": ((4, 2, 3), alone(nn.PixelShuffle(2))),
    "ChannelShuffle": ((4, 2, 3), alone(nn.ChannelShuffle(2))),
    "Unflatten": ((6,), alone(nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 2)))),
    "cat of channels": (
        (2, 3, 4),
        Part(lambda x, a: torch.cat([x, a(x), x], 1), nn.Conv2d(2, 3, 1)),
    ),
    "cat of rows": ((2, 3, 4), Part(lambda x, a: torch.cat((a(x), x), dim=2), nn.Conv2d(2, 2, 1))),
    "cat of columns": ((2, 3, 4), Part(lambda x, a: torch.cat((a(x), x), -1), nn.Conv2d(2, 2, 1))),
    "cat of features": ((5,), Part(lambda x, a: torch.concat([a(x), -x], 1), nn.Linear(5, 2))),
    "chunks": ((4, 3), Part(lambda x: x.chunk(2, 1)[0] - 2 * torch.chunk(x, 2, dim=1)[1])),
    "split": ((5, 3), Part(lambda x: torch.split(x, [2, 3], 1)[1] * 2.0)),
    "product with a matrix": ((4, 3), Part(lambda x, a: x @ a.weight, nn.Linear(2, 3))),
    "unflatten": ((6,), Part(lambda x: x.unflatten(1, (2, 3)).sum(2))),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers_are_bounded_exactly(name, method):
    shape, part = LINEAR[name]
    part = part.double().eval()
    x = torch.rand(2, *shape, dtype=torch.float64)
    weights = torch.func.jacrev(lambda one: part(one[None])[0])(x[0])
    reach = 0.1 * weights.flatten(1).abs().sum(1)
    low, high = output_bounds(part, x, 0.1, method=method, bounds=None)
    torch.testing.assert_close(low, part(x) - reach)
    torch.testing.assert_close(high, part(x) + reach)


RISING = {
    "LeakyReLU": ((6,), alone(nn.LeakyReLU(0.2))),
    "leaky_relu": ((6,), Part(lambda x: F.leaky_relu(x, 0.3))),
    "PReLU": ((3, 4), alone(nn.PReLU(3))),
    "ReLU6": ((6,), Part(lambda x: F.relu6(x * 9))),
    "Hardtanh": ((6,), alone(nn.Hardtanh(-0.4, 0.7))),
    "clamp": ((6,), Part(lambda x: x.clamp(max=0.2).clamp(-0.5, None))),
    "clamp_max": ((6,), Part(lambda x: torch.clamp_max(x, 0.2))),
    "MaxPool1d": ((2, 7), alone(nn.MaxPool1d(3, 2, 1))),
    "MaxPool3d": ((2, 4, 3, 5), alone(nn.MaxPool3d((2, 1, 3), ceil_mode=True))),
    "AdaptiveMaxPool1d": ((2, 7), alone(nn.AdaptiveMaxPool1d(3))),
    "adaptive_max_pool2d": ((2, 4, 5), Part(lambda x: F.adaptive_max_pool2d(x, 2))),
    "MaxPool2d of maps without channels": ((4, 6), alone(nn.MaxPool2d(2))),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", RISING)
def test_layers_that_rise_are_bounded_by_what_they_make_of_the_ends(name, method):
    shape, part = RISING[name]
    part = part.double().eval()
    x = torch.rand(3, *shape, dtype=torch.float64) * 2 - 1
    low, high = output_bounds(part, x, 0.15, method=method, bounds=None)
    torch.testing.assert_close(low, part(x - 0.15))
    torch.testing.assert_close(high, part(x + 0.15))


def test_a_leaky_relu_lies_below_its_chord():
    # y = leaky(x) - x / 2 over [-1, 1], slope 0.2: the chord of leaky is 0.6 x + 0.4.
    part = Part(lambda x: F.leaky_relu(x, 0.2) - x * 0.5).double().eval()
    _, high = output_bounds(part, torch.zeros(1, 1).double(), 1.0, bounds=None, method="crown")
    assert high.item() == pytest.approx(0.1 + 0.4, abs=1e-9)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d((2, 1), (2, 3), ceil_mode=True)])
def test_where_one_place_wins_for_certain_max_pooling_is_linear(pool):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, padding=1), pool, nn.Flatten(), nn.LazyLinear(4)]
    model = nn.Sequential(*layers).double().eval()
    x = torch.rand(2, 1, 7, 6, dtype=torch.float64)
    model(x)
    eps = 1e-5
    weights = torch.func.jacrev(lambda one: model(one[None])[0])(x[0]).flatten(1)
    low, high = output_bounds(model, x, eps, bounds=None)
    reach = eps * weights.abs().sum(1)
    torch.testing.assert_close(low[0] - model(x)[0], -reach, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(high[0] - model(x)[0], reach, rtol=1e-6, atol=1e-12)


class Mixed(nn.Module):
    """A dense block, a split one, and what makes larger maps of small ones."""

    def __init__(self, activation):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.grow = nn.Conv2d(4, 2, 3, padding=1)
        self.branch = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.up = nn.ConvTranspose2d(6, 2, 2, stride=2)
        self.act, self.norm = activation, nn.BatchNorm2d(6)
        self.line, self.head = nn.Conv1d(2, 3, 5, stride=3), nn.Linear(3 * 31, 3)

    def forward(self, x):
        x = self.act(self.first(x))
        x = self.norm(torch.cat([x, self.act(self.grow(x))], 1))
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.act(self.branch(right))), 1)
        x = x.view(x.size(0), 2, 3, 6, 6).transpose(1, 2).flatten(1, 2)
        x = torch.cat((self.act(self.up(x)), self.act(self.up(x))), 2)
        x = self.act(self.line(F.max_pool1d(x.flatten(2), 3)))
        return self.head(x.flatten(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.LeakyReLU(0.1), nn.LeakyReLU(1.5), nn.PReLU(init=-0.3), nn.ReLU6(),
     nn.Hardtanh(-0.2, 0.3)],
    ids=str,
)  # fmt: skip
def test_no_point_leaves_the_bounds_of_a_network_of_many_layers(activation, dtype):
    torch.manual_seed(0)
    model = Mixed(activation).to(dtype)
    nn.init.normal_(model.norm.running_mean, std=0.2)
    model.eval()
    x, eps = torch.rand(2, 2, 6, 6, dtype=dtype), 0.03
    corners = torch.rand(500, *x.shape, dtype=dtype).sub(0.5).sign() * eps
    inner = (torch.rand(500, *x.shape, dtype=dtype) * 2 - 1) * eps
    z = x.clone()
    for _ in range(10):  # an attack on the first logit
        z.requires_grad_()
        (slope,) = torch.autograd.grad(model(z)[:, 0].sum(), z)
        z = (z.detach() + eps / 3 * slope.sign()).sub(x).clamp(-eps, eps).add(x)
    points = torch.cat((x + corners, x + inner, z[None])).clamp(0, 1)
    with torch.no_grad():
        found = model(points.flatten(0, 1)).view(len(points), 2, 3)
    widths = []
    for method in METHODS:
        low, high = output_bounds(model, x, eps, method=method)
        assert bool(((found >= low) & (found <= high)).all())
        widths.append((high - low).mean().item())
        margins = margin_bounds(model, x, torch.tensor([1, 2]), eps, method=method)
        right = found[:, [0, 1], [1, 2]][..., None]
        assert bool((right - found >= margins - 1e-6).all())
    assert widths[0] > widths[1] >= widths[2]


def test_what_is_written_over_a_chunk_is_refused():
    def overwriting(x):
        x = x * 1.0
        left, right = x.chunk(2, 1)
        return F.relu(left, inplace=True) + right + x[:, :1]

    with pytest.raises(ValueError, match="overwrites 'chunk'"):
        output_bounds(Part(overwriting).eval(), torch.rand(1, 2), 0.1)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (lambda x: torch.cat((x, torch.zeros(1, 2)), 1), "a concatenation with constants"),
        (lambda x: torch.cat((x, x)), "mixes images"),
        (lambda x: torch.chunk(x, 2)[0], "function 'chunk'"),
        (lambda x: x.unsqueeze(2) @ x.unsqueeze(1), "function 'matmul'"),
        (lambda x: F.leaky_relu(x, 0.1)[:, :1] * x[:, :1], "function 'mul'"),
    ],
)
def test_what_is_none_of_these_is_refused(part, says):
    with pytest.raises(ValueError, match=says):
        output_bounds(Part(part).eval(), torch.rand(1, 2), 0.1)
