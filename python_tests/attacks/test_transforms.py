"""Attacks that transform images: snow, JPEG, Gabor noise, rotation and translation, corruptions."""

from __future__ import annotations

import copy
import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import Corruption, GaborAttack, JPEGAttack, RotationTranslation, SnowAttack
from repsim_fast.training.written import in_full

KINDS = [JPEGAttack, GaborAttack, SnowAttack, RotationTranslation]


def loss(model: nn.Module, adv: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return nn.functional.cross_entropy(model.eval()(adv), y).item()


def pool_net(channels: int) -> nn.Module:
    """Takes images of any size."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 16, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    ).append(nn.Linear(144, 5))
    with torch.no_grad():
        for parameter in net.parameters():
            scale = 3 / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 21, 40)])
def test_harms_more_than_its_random_start(kind: type, shape: tuple[int, ...]) -> None:
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    x[x < 0.3] = 0.0
    model = pool_net(shape[0])
    y = model(x).argmax(1)
    options = {"n_random": 1} if kind is RotationTranslation else {"steps": 1, "step_size": 1e-9}
    weak = kind(seed=0, **options)(model, x, y)
    strong = kind(seed=0)(model, x, y)
    assert strong.shape == x.shape
    assert strong.min() >= 0
    assert strong.max() <= 1
    assert loss(model, strong, y) > loss(model, weak, y)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_result(kind: type) -> None:
    x, y, model = torch.rand(4, 3, 16, 16), torch.arange(4), pool_net(3)
    state = torch.get_rng_state()
    assert torch.equal(kind(seed=5)(model, x, y), kind(seed=5)(model, x, y))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", [JPEGAttack, GaborAttack])
def test_eps_zero_gives_back_the_images(kind: type) -> None:
    x, y = torch.rand(4, 3, 21, 16), torch.arange(4)
    assert torch.allclose(kind(0.0)(pool_net(3), x, y), x)


def test_jpeg_perturbation_has_the_stated_norm_in_coefficients() -> None:
    """On a grey image away from the box: transform the change back and measure it."""
    x = torch.full((2, 1, 16, 16), 0.5)
    adv = JPEGAttack(6.0, seed=0)(pool_net(1), x, torch.tensor([0, 1]))
    blocks = ((adv - x)[:, 0] * 255).view(2, 2, 8, 2, 8).permute(0, 1, 3, 2, 4).double()
    k = torch.arange(8, dtype=torch.float64)
    dct = torch.cos(torch.pi / 8 * k[:, None] * (k + 0.5)) * 0.5
    dct[0] /= 2**0.5
    from repsim_fast.attacks.transforms.jpeg import _LUMA

    v = 2 * (dct @ blocks @ dct.T) / torch.tensor(_LUMA)
    assert v.flatten(1).norm(dim=1) == pytest.approx([6.0, 6.0], rel=1e-4)
    assert v.abs().max() <= 2.0 + 1e-5


def test_gabor_changes_no_pixel_by_more_than_eps() -> None:
    x = torch.rand(4, 3, 32, 32)
    change = GaborAttack(0.2, seed=0)(pool_net(3), x, torch.arange(4)) - x
    assert change.min() >= -1e-6
    assert change.max() <= 0.2 + 1e-6


def test_snow_keeps_its_budget() -> None:
    intensity = SnowAttack(budget=0.15)._within_budget(torch.rand(3, 7, 16, 16) * 2)
    assert (torch.nn.functional.avg_pool2d(intensity, 8) <= 0.15 + 1e-6).all()
    faint = torch.full((1, 7, 8, 8), 0.01)
    assert torch.equal(SnowAttack(budget=0.15)._within_budget(faint), faint)


class TestRotationTranslation:
    def test_no_motion_is_the_identity(self) -> None:
        x = torch.rand(4, 3, 9, 14)
        attack = RotationTranslation(max_rotation=0, max_translation=0)
        assert torch.allclose(attack(pool_net(3), x, torch.arange(4)), x, atol=1e-5)

    def test_whole_pixels_and_right_angles(self) -> None:
        x = torch.rand(1, 1, 8, 8)
        attack = RotationTranslation(max_rotation=90, max_translation=2)
        moved = attack._warp(x, torch.tensor([[0.0, 1.0, 0.5]]))
        assert torch.allclose(moved[..., 2:, 1:], x[..., :-2, :-1], atol=1e-5)
        assert (moved[..., :2, :].abs() < 1e-5).all()
        turned = attack._warp(x, torch.tensor([[1.0, 0.0, 0.0]]))
        assert torch.allclose(turned, x.rot90(1, (2, 3)), atol=1e-4) or torch.allclose(
            turned, x.rot90(-1, (2, 3)), atol=1e-4
        )

    def test_grid_is_at_least_as_bad_as_its_members(self) -> None:
        x, y, model = torch.rand(6, 3, 16, 16), torch.arange(6) % 5, pool_net(3)
        one = RotationTranslation(grid=1)(model, x, y)
        grid = RotationTranslation(grid=3)(model, x, y)
        right = [(model(adv).argmax(1) == y) for adv in (one, grid)]
        assert not (right[1] & ~right[0]).any()


def test_pixels_at_the_box_keep_their_gradient() -> None:
    """torch 2.15 gives clamp no gradient at its bounds; half of real images' pixels sit there."""
    from repsim_fast.attacks.transforms.rendering import boxed

    x = torch.tensor([[-0.1, 0.0, 0.5, 1.0, 1.1]], requires_grad=True)
    (gradient,) = torch.autograd.grad(boxed(x).sum(), x)
    assert gradient.tolist() == [[0, 1, 1, 1, 0]]
    assert boxed(x).tolist() == [[0, 0, 0.5, 1, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind: type) -> None:
    with pytest.raises(ValueError, match="x must"):
        kind()(pool_net(3), torch.rand(2, 4, 8, 8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="x must lie in bounds"):
        kind()(pool_net(3), torch.rand(2, 3, 8, 8) + 1, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="must be non-negative"):
        kind(**({"max_rotation": -1.0} if kind is RotationTranslation else {"eps": -1.0}))


needs_package = pytest.mark.skipif(
    importlib.util.find_spec("imagecorruptions") is None,
    reason="corruptions come from the imagecorruptions package",
)


class TestCorruptions:
    def test_says_which_package_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "imagecorruptions", None)
        with pytest.raises(ImportError, match="pip install imagecorruptions-imaug"):
            Corruption("fog")

    @needs_package
    def test_spatter_without_a_drop_is_the_image(self) -> None:
        """Of 300 images of 32 pixels the package makes three black."""
        x = torch.full((300, 3, 32, 32), 0.6)
        found = Corruption("spatter", severity=1, seed=0)(None, x, torch.zeros(300))
        unchanged = (found == 0.6).flatten(1).all(dim=1).sum()
        assert 0 < unchanged < 30
        assert found.flatten(1).amax(dim=1).min() > 0.5

    @needs_package
    def test_corrupts_reproducibly_and_leaves_numpy_alone(self) -> None:
        x, y = torch.rand(2, 1, 32, 40), torch.arange(2)
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        for name in ("gaussian_noise", "fog", "jpeg_compression"):
            first = Corruption(name, severity=2, seed=0)(None, x, y)
            assert first.shape == x.shape
            assert (first - x).abs().max() > 0.01
            assert torch.equal(first, Corruption(name, severity=2, seed=0)(None, x, y))
        assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
        with pytest.raises(ValueError, match="name must be one of"):
            Corruption("rain")
        with pytest.raises(ValueError, match="at least 32 pixels"):
            Corruption("fog")(None, torch.rand(2, 3, 8, 8), y)

    @needs_package
    def test_a_copy_draws_what_the_original_would(self) -> None:
        x, y = torch.rand(2, 3, 32, 32), torch.arange(2)
        corruption = Corruption("gaussian_noise", seed=0)
        copied = copy.deepcopy(corruption)
        assert torch.equal(corruption(None, x, y), copied(None, x, y))
        settings = "Corruption{name: 'gaussian_noise', severity: 3}"
        assert in_full(corruption) == settings  # and no folder of this machine
