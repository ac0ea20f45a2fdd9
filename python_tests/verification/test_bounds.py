"""Bounds hold what they say, for every point, and say the most they can where that is known."""

import contextlib
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repsim_fast import models, pruning, verification
from repsim_fast.verification import Traced, margin_bounds, output_bounds, trace, verified_accuracy
from repsim_fast.verification.operations import Affine

METHODS = ["ibp", "crown-ibp", "crown"]


class Residual(nn.Module):
    """Every kind of operation, functional forms among them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = (x - 0.5) / torch.full((1, 1, 1, 1), 0.25)
        x = self.relu(self.norm(self.first(x)))
        x = F.relu(self.second(x) + x)
        x = self.pool(x)
        x = F.avg_pool2d(x, 2)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.head(x.view(x.size(0), -1))


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    model = Residual()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.2, 3)
    nn.init.normal_(model.norm.weight)
    return model.eval().to(dtype)


def dense(*widths, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval().to(dtype)


def inside(low, high, out):
    return bool(((out >= low) & (out <= high)).all())


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_network_is_bounded_exactly(method):
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
        .eval()
        .double()
    )
    x, eps = torch.rand(4, 2, 6, 6, dtype=torch.float64) * 0.5 + 0.25, 0.1
    jacobian = torch.func.jacrev(lambda z: model(z[None])[0])(x[0]).flatten(1)
    reach = eps * jacobian.abs().sum(1)
    low, high = output_bounds(model, x, eps, method=method)
    # Of intervals, too: what is linear at the end, here all, is bounded as one.
    torch.testing.assert_close(low, model(x) - reach, rtol=0, atol=1e-12)
    torch.testing.assert_close(high, model(x) + reach, rtol=0, atol=1e-12)


def test_intervals_are_those_of_the_closed_form():
    model = dense(4, 6, 3)
    x = torch.rand(5, 4, dtype=torch.float64)
    first, _, last = model
    low, high = (x - 0.3).clamp(0, 1), (x + 0.3).clamp(0, 1)
    plus, minus = first.weight.clamp(min=0), first.weight.clamp(max=0)
    below = (low @ plus.T + high @ minus.T + first.bias).relu()
    above = (high @ plus.T + low @ minus.T + first.bias).relu()
    plus, minus = last.weight.clamp(min=0), last.weight.clamp(max=0)
    found = output_bounds(model, x, 0.3, method="ibp")
    torch.testing.assert_close(found[0], below @ plus.T + above @ minus.T + last.bias)
    torch.testing.assert_close(found[1], above @ plus.T + below @ minus.T + last.bias)


def test_crown_is_that_of_the_closed_form():
    # One hidden neuron on [-1, 2]: chord 2/3 z + 2/3 above, z below (the nearer of 0 and z).
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval().double()
    with torch.no_grad():
        for layer, weight, bias in (
            (model[0], [[3.0]], [-1.0]),
            (model[2], [[1.0], [-2.0]], [0.0, 1]),
        ):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    x = torch.tensor([[0.5]], dtype=torch.float64)
    low, high = output_bounds(model, x, 0.5, method="crown")
    torch.testing.assert_close(low, torch.tensor([[0.0, -3.0]], dtype=torch.float64))
    torch.testing.assert_close(high, torch.tensor([[2.0, 1.0]], dtype=torch.float64))


def exact_minimum(model, x, eps, row):
    """Least row . f over the ball: linear programs, one for each pattern of ReLUs."""
    from scipy.optimize import linprog

    first, _, last = model
    weight, bias = first.weight.detach().numpy(), first.bias.detach().numpy()
    value = (row @ last.weight.detach()).numpy()
    box = [(max(v - eps, 0), min(v + eps, 1)) for v in x.tolist()]
    least = float("inf")
    for pattern in itertools.product([0.0, 1.0], repeat=len(bias)):
        on = torch.tensor(pattern, dtype=torch.float64).numpy()
        sign = 1 - 2 * on
        found = linprog(
            (value * on) @ weight, A_ub=sign[:, None] * weight, b_ub=-sign * bias, bounds=box
        )
        if found.status == 0:
            least = min(least, found.fun + float((value * on) @ bias))
    return least + float(row @ last.bias.detach())


@pytest.mark.parametrize("seed", range(3))
def test_bounds_lie_below_the_exact_minimum_and_the_better_ones_nearer(seed):
    model = dense(3, 4, 3, seed=seed)
    x, y = torch.rand(1, 3, dtype=torch.float64), torch.tensor([1])
    found = {m: margin_bounds(model, x, y, 0.2, method=m)[0].detach() for m in METHODS}
    for other in (0, 2):
        row = torch.zeros(3, dtype=torch.float64)
        row[1], row[other] = 1, -1
        exact = exact_minimum(model, x[0], 0.2, row)
        assert found["crown"][other] <= exact + 1e-9
        assert found["ibp"][other] <= found["crown-ibp"][other] <= exact + 1e-9
        tiny = margin_bounds(model, x, y, 1e-6, method="crown")[0, other].item()
        assert tiny == pytest.approx(exact_minimum(model, x[0], 1e-6, row), abs=1e-9)
    assert found["crown"][1] == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.02])
def test_no_random_or_attacked_point_leaves_the_bounds(method, eps):
    model = network()
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        low, high = output_bounds(model, x, eps, method=method)
    assert bool((high - low).isfinite().all())
    for _ in range(20):
        sign = torch.rand(512, *x.shape).sub_(0.5).mul_(2)
        points = (x + eps * sign.mul_(3).clamp_(-1, 1)).clamp_(0, 1).flatten(0, 1)
        with torch.no_grad():
            assert inside(low, high, model(points).view(512, 4, 3))
    for row in (*torch.eye(3), *-torch.eye(3)):
        z = x.clone()
        for _ in range(10):
            z.requires_grad_()
            (slope,) = torch.autograd.grad((model(z) @ row).sum(), z)
            z = (z + eps / 4 * slope.sign()).detach().sub(x).clamp(-eps, eps).add(x).clamp(0, 1)
            assert inside(low, high, model(z).detach())
            assert inside(low, high, model.double()(z.double()).detach())
            model.float()


@pytest.mark.parametrize("method", METHODS)
def test_a_million_points_of_a_small_network_stay_within(method):
    model = dense(6, 16, 16, 3, dtype=torch.float32)
    x = torch.rand(1, 6)
    low, high = output_bounds(model, x, 0.1, method=method)
    with torch.no_grad():
        for _ in range(10):
            points = (x + torch.rand(100_000, 6).sub_(0.5).mul_(0.2)).clamp_(0, 1)
            assert inside(low, high, model(points))


@pytest.mark.parametrize("method", METHODS)
def test_sums_that_cancel_are_rounded_outwards(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 2)).eval()
    with torch.no_grad():
        # What is left of 1e6-sized terms is rounding.
        model[0].weight[:, 150:] = -model[0].weight[:, :150] * (1 + 1e-7)
        model[0].weight.mul_(1e6)
        model[2].weight[1] = -model[2].weight[0]
    half = torch.rand(8, 150)
    x = torch.cat((half, half), 1)
    low, high = output_bounds(model, x, 0.0, method=method)
    exact = nn.Sequential(*(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 2))).double()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert inside(low, high, model(x))
        assert inside(low.double(), high.double(), exact(x.double()))
        one_by_one = torch.cat([model(row[None]) for row in x])
        assert inside(low, high, one_by_one)
        assert not torch.equal(model(x).double(), exact(x.double()))


class Spread(nn.Module):
    """One pixel in 4096 places, each with a weight, and their sum by halves of halves."""

    def __init__(self):
        super().__init__()
        weights = torch.full((64, 64), 2.9e-8)  # each is lost in a sum with 1
        weights[0, 0] = 1
        self.register_buffer("weights", weights)
        self.halves = nn.Sequential(*[nn.AvgPool2d(2) for _ in range(6)])

    def forward(self, x):
        return self.halves(F.adaptive_avg_pool2d(x, 64) * self.weights).flatten(1)


@pytest.mark.parametrize("method", METHODS)
def test_a_pixel_that_pooling_spreads_is_rounded_outwards(method):
    low, high = output_bounds(Spread().eval(), torch.full((1, 1, 1, 1), 0.5), 0.4, method=method)
    exact = Spread().double()
    for end in (0.1, 0.9):
        assert inside(low, high, exact(torch.full((1, 1, 1, 1), end, dtype=torch.float64)))


def test_a_million_random_and_many_attacked_points_of_a_larger_network_stay_within():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(72, 32), nn.ReLU(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    nn.init.uniform_(model[1].running_mean, -1, 1)
    x, eps = torch.rand(1, 1, 12, 12), 0.01
    with torch.no_grad():
        found = [output_bounds(model, x, eps, method=method) for method in METHODS]
    low, high = (torch.stack(ends) for ends in zip(*found, strict=True))
    low, high = low.amax(0), high.amin(0)  # the tightest of the three
    seen = torch.full((2, 10), torch.inf)
    for row in (*torch.eye(10), *-torch.eye(10)):
        z = x + (torch.rand(64, 1, 12, 12) * 2 - 1) * eps
        for step in range(20):
            z.requires_grad_()
            (slope,) = torch.autograd.grad((model(z) @ row).sum(), z)
            z = (z + eps / (step + 1) * slope.sign()).detach().sub(x).clamp(-eps, eps).add(x)
            out = model(z.clamp_(0, 1)).detach()
            assert inside(low, high, out)
            seen = torch.minimum(seen, torch.stack((out.amin(0), -out.amax(0))))
    with torch.no_grad():
        for number in range(250):
            signs = torch.rand(4000, 1, 12, 12).sub_(0.5).mul_(2 if number % 2 else 1e6)
            points = signs.clamp_(-1, 1).mul_(eps).add_(x).clamp_(0, 1)
            assert inside(low, high, model(points))
    # Attacks come near, so that they could have been outside.
    assert ((-seen[1] - seen[0]) / (high - low)).min() > 0.7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", [1e-9, 1e-6, 1e-3])
def test_sums_that_cancel_within_a_ball_are_rounded_outwards(method, eps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 30), nn.ReLU(), nn.Linear(30, 2)).eval()
    with torch.no_grad():
        model[0].weight[:, 100:] = -model[0].weight[:, :100] * (1 + 1e-7)
        model[0].weight.mul_(1e6)
        model[2].weight[1] = -model[2].weight[0]
    half = torch.rand(6, 100) * 0.9 + 0.05
    x = torch.cat((half, half), 1)
    low, high = output_bounds(model, x, eps, method=method)
    exact = dense(200, 30, 2)
    exact.load_state_dict(model.state_dict())
    signs = torch.rand(200, 6, 100, dtype=torch.float64).sub(0.5).sign() * eps
    for left, right in ((signs, signs), (signs, -signs)):
        points = x.double() + torch.cat((left, right), 2)  # some of which no float32 is
        with torch.no_grad():
            assert inside(low.double(), high.double(), exact(points))
            images = points.float()
            held = ((images.double() - x.double()).abs() <= eps).all(2)
            for n in range(6):
                assert inside(low[n], high[n], model(images[:, n])[held[:, n]])


@pytest.mark.parametrize("method", METHODS)
def test_bounds_train_their_network(method):
    model = network(dtype=torch.float64)
    x, y = torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2])

    def loss():
        return F.cross_entropy(-margin_bounds(model, x, y, 0.01, method=method), y)

    before = loss()
    before.backward()
    names = [name for name, p in model.named_parameters() if p.grad is None]
    assert names == []
    weight, step = model.first.weight, 1e-6
    with torch.no_grad():
        weight.add_(step * weight.grad)
        difference = (loss() - before) / step
    torch.testing.assert_close(difference, weight.grad.square().sum(), rtol=1e-3, atol=0)


def test_a_batch_is_bounded_as_its_images_are_and_a_chunk_changes_nothing():
    model = network(dtype=torch.float64)
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    low, high = output_bounds(model, x, 0.02, chunk=7)
    for i in range(3):
        one = output_bounds(model, x[i : i + 1], 0.02)
        torch.testing.assert_close(low[i : i + 1], one[0])
        torch.testing.assert_close(high[i : i + 1], one[1])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), "'1' .Sigmoid"),
        (nn.Sequential(nn.Linear(4, 4), nn.GELU()), "GELU"),
    ],
)
def test_a_module_without_bounds_is_named(module, name):
    with pytest.raises(ValueError, match=name):
        output_bounds(module.eval(), torch.rand(2, 4), 0.1)


class Overwriting(nn.Module):
    def forward(self, x):
        y = x * 2
        return F.relu(y, inplace=True) + y


def test_what_cannot_be_bounded_soundly_is_refused():
    x = torch.rand(2, 4)
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="overwrites 'mul'"):
        output_bounds(Overwriting().eval(), x, 0.1)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        output_bounds(model.train(), x, 0.1)
    model.eval()
    with pytest.raises(ValueError, match="'weight' is on the meta device"):
        output_bounds(nn.Linear(4, 3, device="meta").eval(), x, 0.1)
    with pytest.raises(ValueError, match="method"):
        output_bounds(model, x, 0.1, method="deeppoly")
    with pytest.raises(ValueError, match="x must lie in"):
        output_bounds(model, x + 1, 0.1)
    with pytest.raises(TypeError, match="dtype"):
        output_bounds(model, x.double(), 0.1)
    with pytest.raises(ValueError, match="y must lie in"):
        margin_bounds(model, x, torch.tensor([0, 3]), 0.1)
    with pytest.raises(ValueError, match="mixes images"):
        output_bounds(nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)).eval(), x, 0.1)


@pytest.mark.parametrize(
    "eps", [-0.1, float("nan"), float("inf"), "a", None, [0.1, 0.2], torch.tensor([0.1, 0.2])]
)
def test_a_radius_is_one_number(eps):
    model, x, y = nn.Linear(4, 3).eval(), torch.rand(2, 4), torch.tensor([0, 1])
    for bound in (
        lambda: output_bounds(model, x, eps),
        lambda: margin_bounds(model, x, y, eps),
        lambda: verified_accuracy(model, (x, y), eps),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^eps must be .*, got"):
            bound()


@pytest.mark.parametrize("bounds", [3, (0.0,), "a"])
def test_bounds_are_a_pair(bounds):
    with pytest.raises(TypeError, match=r"^bounds must be a pair \(low, high\) or None, got"):
        output_bounds(nn.Linear(4, 3).eval(), torch.rand(2, 4), 0.1, bounds=bounds)


def test_bounds_may_be_those_of_channels():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).eval(), torch.rand(2, 2, 2, 2)
    want = output_bounds(model, x, 0.1)
    low = output_bounds(model, x, 0.1, bounds=(torch.zeros(2, 1, 1), 1.0))
    assert all(map(torch.equal, want, low))


def test_one_value_a_channel_is_not_one_a_column():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).eval(), torch.rand(2, 2, 2, 2)
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0])
    want = output_bounds(model, x, 0.3, bounds=(low.view(2, 1, 1), high.view(2, 1, 1)))
    assert all(map(torch.equal, want, output_bounds(model, x, 0.3, bounds=(low, high))))
    with pytest.raises(ValueError, match=r"^bounds must be .* shape \(2, 2, 2\), got shape \(3,\)"):
        output_bounds(model, x, 0.3, bounds=(torch.zeros(3), 1.0))
    with pytest.raises(TypeError, match=r"^bounds must be a pair of numbers .*, got '0' in it"):
        output_bounds(model, x, 0.3, bounds=("0", 1.0))


@pytest.mark.parametrize(
    "name",
    [
        "resnet-8",
        "wrn-10-1",
        "preactresnet-18-w4",
        "resnet-digits",
        "vgg-16-w4",
        "cnn-small-w4",
        "cnn-large-w4",
        "pruned",
    ],
)
def test_the_networks_of_the_package_are_bounded(name):
    model = models.build(
        "resnet-8" if name == "pruned" else name, num_classes=4, in_channels=1, seed=0
    ).eval()
    if name == "pruned":
        pruning.prune(model, 0.5)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        low, high = output_bounds(model, x, 0.001, method="ibp")
        for _ in range(20):
            points = (x + 0.001 * torch.randn_like(x).sign()).clamp(0, 1)
            assert inside(low, high, model(points))


class Changed(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x).flatten(1)


def test_slices_and_padding_are_bounded_as_linear_maps():
    sliced = Changed(lambda x: F.pad(x[:, :, ::2], (1, 0, 0, 0)) * 2.0).eval()
    x = torch.rand(2, 1, 4, 2, dtype=torch.float64) * 0.5 + 0.25
    low, high = output_bounds(sliced, x, 0.1)
    value = sliced(x)
    reach = 0.2 * (value != 0)
    torch.testing.assert_close(low, value - reach)
    torch.testing.assert_close(high, value + reach)
    for part in (
        lambda x: x[:1],
        lambda x: F.pad(x, (1, 1), value=1.0),
        lambda x: x[0],
        lambda x: x[None, 0],
        lambda x: x[()],
        lambda x: x[..., :1, :, :, :],
    ):
        wrong = Changed(part).eval()
        with pytest.raises(ValueError, match="no bounds are known of function"):
            output_bounds(wrong, x, 0.1)


@pytest.mark.parametrize(
    "part",
    [
        nn.ZeroPad2d((1, 0, 0, 2)),
        lambda x: x[..., 1:] * 1.0,
        lambda x: x[..., 0] * 1.0,
        lambda x: x[:, None] * 1.0,
        lambda x: x[:, ..., None, ::2] * 1.0,
    ],
)
def test_other_ways_to_slice_and_pad(part):
    model = nn.Sequential(Changed(part), nn.LazyLinear(3)).double().eval()
    x = torch.rand(2, 2, 4, 3, dtype=torch.float64)
    model(x)
    plain = nn.Sequential(Changed(part), model[1]).eval()
    weights = torch.func.jacrev(lambda one: plain(one[None])[0])(x[0])
    reach = 0.1 * weights.flatten(1).abs().sum(1)
    for method in METHODS:
        low, high = output_bounds(plain, x, 0.1, method=method, bounds=None)
        torch.testing.assert_close(low, plain(x) - reach)
        torch.testing.assert_close(high, plain(x) + reach)


class Written(nn.Module):
    """A network in one of the ways in which users write it."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part = nn.Conv2d(2, 2, 3, padding=1), part
        self.register_buffer("mean", torch.tensor([0.1, -0.2]))
        self.register_buffer("variance", torch.tensor([0.5, 2.0]))

    def forward(self, x):
        return self.part(self, self.first(x)).flatten(1)


WRITTEN = {
    "max pooling beyond the edge": lambda m, x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max pooling by names": lambda m, x: F.max_pool2d(x, kernel_size=2, stride=1, padding=1),
    "torch.max_pool2d": lambda m, x: torch.max_pool2d(x, 2),
    "average pooling": lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "adaptive pooling": lambda m, x: F.adaptive_avg_pool2d(x, (2, 1)),
    "torch.flatten": lambda m, x: torch.flatten(F.relu(x), start_dim=1),
    "view": lambda m, x: x.relu().view(x.shape[0], -1),
    "reshape": lambda m, x: torch.reshape(torch.relu(x), (x.size(0), -1)),
    "squeeze": lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(-1),
    "corner": lambda m, x: x[:, :, 0, -1],
    "permute": lambda m, x: x.permute(0, 2, 3, 1).contiguous(),
    "transpose": lambda m, x: torch.transpose(x, 2, 3).unsqueeze(1),
    "mT": lambda m, x: F.relu(x.mT) + x.mH * 0.5,
    "mean": lambda m, x: x.relu().mean(dim=(2, 3)),
    "sum": lambda m, x: torch.sum(x.relu(), (2, 3)),
    "clamp": lambda m, x: x.clamp(min=0),
    "clamp in place": lambda m, x: (x * 1.0).clamp_min_(0),
    "plus": lambda m, x: F.relu(x) + x,
    "torch.add": lambda m, x: torch.add(F.relu(x), x),
    "add in place": lambda m, x: F.relu(x).add_(x),
    "minus": lambda m, x: 1 - torch.sub(F.relu(x), x),
    "thrice": lambda m, x: F.relu(x) + x + x.mul(0.5),
    "scaled": lambda m, x: torch.div(-x.mul(2.0), 3.0) * torch.tensor([1.0, -2.0]).view(2, 1, 1),
    "repeated": lambda m, x: x.mean(3, keepdim=True) * torch.tensor([1.0, -2.0, 3.0]) + 1,
    "batch norm": lambda m, x: F.batch_norm(x, m.mean, m.variance, None, m.mean),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WRITTEN)
def test_functional_forms_are_bounded(name, method):
    model = Written(WRITTEN[name]).eval()
    x, eps = torch.rand(2, 2, 5, 5), 0.05
    low, high = output_bounds(model, x, eps, method=method)
    shape = (200, *x.shape)
    points = (x + eps * (torch.rand(shape) * 4 - 2).clamp(-1, 1)).clamp(0, 1).flatten(0, 1)
    found = model(points).view(200, 2, -1)
    assert inside(low, high, found)
    # And not much wider than what was found.
    assert (high - low).mean() < 6 * (found.amax(0) - found.amin(0)).mean()


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool2d"),
        (lambda m, x: F.adaptive_max_pool2d(x, 1, True)[0], "adaptive_max_pool2d"),
        (lambda m, x: torch.add(F.relu(x), x, alpha=2), "add"),
        (lambda m, x: x + x.mean(3, keepdim=True), "add' of values of two shapes"),
        (lambda m, x: x.clamp(min=m.mean.view(2, 1, 1)), "clamp"),
        (lambda m, x: x.permute(1, 0, 2, 3), "permute"),
        (lambda m, x: x.sum(0, keepdim=True), "sum"),
        (lambda m, x: F.batch_norm(x, m.mean, m.variance, training=True), "batch_norm"),
        (lambda m, x: x[:, torch.tensor([0])], "getitem"),
        (lambda m, x: x - x.data, "attribute 'data'"),
        (lambda m, x: x * x.real, "attribute 'real'"),
        (lambda m, x: x[:, 0, 0].mT.mT, "attribute 'mT'"),
        (lambda m, x: x[:, 0, 0].T.T, "attribute 'T'"),
        (lambda m, x: x * getattr(x, "requires_grad"), "attribute 'requires_grad'"),  # noqa: B009
    ],
)
def test_functional_forms_of_something_else_are_refused(part, name):
    with pytest.raises(ValueError, match=f"no bounds are known of .*{name}"):
        output_bounds(Written(part).eval(), torch.rand(2, 2, 5, 5), 0.1)


def test_what_the_graph_does_not_show_is_refused():
    x = torch.rand(2, 4)
    hooked, outer, replaced = (nn.Sequential(nn.Linear(4, 3)).eval() for _ in range(3))
    hooked[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    outer.register_forward_hook(lambda module, args, output: output + 1)
    replaced[0].forward = lambda x: x * 3
    for model, what in ((hooked, "hooks"), (outer, "hooks"), (replaced, "replaced forward")):
        with pytest.raises(ValueError, match=f"the {what} of module"):
            output_bounds(model, x, 0.1)
    pool = nn.Sequential(nn.AvgPool2d(2, divisor_override=-1), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="AvgPool2d"):
        output_bounds(pool, torch.rand(1, 1, 4, 4), 0.1)
    called = Changed(lambda x: F.avg_pool2d(x, 2, divisor_override=-1)).eval()
    with pytest.raises(ValueError, match="avg_pool2d"):
        output_bounds(called, torch.rand(1, 1, 4, 4), 0.1)


class Sized(nn.Module):
    """Numbers that are another's for other batches."""

    def __init__(self, part):
        super().__init__()
        self.first, self.part = nn.Linear(4, 3), part

    def forward(self, x):
        return self.part(self.first(x), x)


UNTOLD = {
    "times the batch size": lambda y, x: y * x.shape[0],
    "over the batch size": lambda y, x: y / x.size(0),
    "chance": lambda y, x: y + torch.rand(3),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("part", UNTOLD)
def test_what_depends_on_more_than_an_image_is_refused(part, batch):
    model, x = Sized(UNTOLD[part]).eval(), torch.rand(batch, 4)
    with pytest.raises(ValueError, match="does not compute what the model computes"):
        output_bounds(model, x, 0.1)
    with pytest.raises(ValueError, match="does not compute what the model computes"):
        margin_bounds(trace(model), x, torch.zeros(batch, dtype=torch.int64), 0.1)


def test_hooks_of_all_modules_are_refused():
    model, x = nn.Sequential(nn.ReLU(), nn.Linear(4, 3)).eval(), torch.rand(2, 4)
    before = trace(model)
    hook = nn.modules.module.register_module_forward_hook(lambda m, x, y: y * 2)
    try:
        with pytest.raises(ValueError, match="hooks of all modules"):
            trace(model)
        with pytest.raises(ValueError, match="does not compute what the model computes"):
            output_bounds(before, x, 0.1)
    finally:
        hook.remove()
    output_bounds(before, x, 0.1)


def test_a_graph_is_held_against_its_model_once(monkeypatch):
    model, x = Sized(lambda y, x: y).eval(), torch.full((1, 4), 0.5)
    asked = []
    monkeypatch.setattr(model, "part", lambda y, x: asked.append(x.size(0)) or y)
    traced = trace(model)
    asked.clear()
    for _ in range(3):
        output_bounds(traced, x, 0.1)
    assert asked == [4]


def test_coarse_products_are_no_disagreement():
    model, x = network().requires_grad_(False), torch.rand(2, 1, 8, 8)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        traced = trace(model)
        model.head.register_forward_hook(lambda m, x, y: y * 1.01)  # as bfloat16 may round
        output_bounds(traced, x, 0.01)
        model.head.register_forward_hook(lambda m, x, y: y * 2)
        with pytest.raises(ValueError, match="does not compute what the model computes"):
            output_bounds(trace_again(traced), x, 0.01)
    finally:
        torch.set_float32_matmul_precision(before)
    with pytest.raises(ValueError, match="does not compute what the model computes"):
        output_bounds(trace_again(traced), x, 0.01)


def trace_again(traced):
    """The same, not yet held against its model."""
    return Traced(traced.model, traced.graph)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_around_changes_nothing(method):
    model, x, y = network(), torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    low, high = output_bounds(model, x, 0.02, method=method)
    margins = margin_bounds(model, x, y, 0.02, method=method)
    with torch.autocast("cpu", torch.bfloat16):
        again = output_bounds(model, x, 0.02, method=method)
        assert torch.equal(low, again[0])
        assert torch.equal(high, again[1])
        assert torch.equal(margins, margin_bounds(model, x, y, 0.02, method=method))


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
def test_windows_change_nothing(monkeypatch):
    torch.manual_seed(0)

    class Strided(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 4, 3, stride=2, padding=(2, 1))
            self.norm = nn.BatchNorm2d(4)
            self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
            self.same = nn.Conv2d(4, 4, (2, 3), padding="same")
            self.last = nn.Conv2d(4, 6, 4, stride=3)
            self.head = nn.Linear(6 * 4, 3)

        def forward(self, x):
            x = F.relu(self.norm(self.first(x * torch.tensor([[2.0]]).double())))
            x = F.relu(self.wide(x)) + self.same(x)
            x = F.relu(self.last(F.relu(x)))
            return self.head(x.flatten(1))

    model = Strided().double().eval()
    nn.init.uniform_(model.norm.weight)
    x = torch.rand(3, 2, 13, 17, dtype=torch.float64)
    windowed = output_bounds(model, x, 0.02, chunk=5)
    calls = []
    plain = Affine.__init__

    def whole(self, *args, **kwargs):
        calls.append(kwargs.pop("windowed", None))
        plain(self, *args, **kwargs)

    monkeypatch.setattr(Affine, "__init__", whole)
    found = output_bounds(model, x, 0.02)
    assert sum(call is not None for call in calls) >= 6
    torch.testing.assert_close(windowed[0], found[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(windowed[1], found[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("rounded", [True, False])
def test_products_round_no_further_than_is_allowed_for(monkeypatch, rounded):
    """On a GPU, where TF32 is the default for convolutions."""
    asked = []

    @contextlib.contextmanager
    def noted(device):
        asked.append(device)
        yield
        asked.append("done")

    monkeypatch.setattr(verification.bounds, "float32_products", noted)
    model, x = network(), torch.rand(2, 1, 8, 8)
    output_bounds(model, x, 0.01, rounded=rounded)
    margin_bounds(model, x, torch.tensor([0, 1]), 0.01, rounded=rounded)
    assert asked == ([x.device, "done"] * 2 if rounded else [])
