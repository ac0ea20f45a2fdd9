"""L1-APGD: where a search begins, how sparse each phase is, steps, and who decides what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast._core.randomness import Stream
from repsim_fast.attacks import APGD, apgd
from repsim_fast.attacks.region import Region

EPS = 4.0


@pytest.fixture
def linear() -> Callable[[Tensor], Tensor]:
    """Sums in float64 and in the order of the entries: one answer for every layout and batch."""
    weights = torch.randn(5, 300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return lambda x: (x.double().reshape(len(x), 1, -1) * weights).sum(2)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(9, 3, 10, 10, generator=torch.Generator().manual_seed(4))


def classes(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        answers: Tensor = model(x).argmax(1)
    return answers


def seen(model: Callable[[Tensor], Tensor], x: Tensor, steps: int, **options: Any) -> list[Tensor]:
    """What the model is given; it never errs, so that no image leaves the batch."""
    inputs: list[Tensor] = []
    y = classes(model, x)

    def watched(images: Tensor) -> Tensor:
        inputs.append(images.detach().clone())
        return model(images) + 1e6 * nn.functional.one_hot(y, 5)

    APGD(EPS, norm="l1", steps=steps, seed=0, **options)(watched, x, y)
    return inputs


def lengths(delta: Tensor) -> Tensor:
    return delta.abs().flatten(1).sum(1)


def moved(delta: Tensor) -> Tensor:
    return (delta.abs().flatten(1) > 1e-6).sum(1)


def test_begins_at_the_images_and_again_at_sparse_noise_on_the_threefold_ball(
    linear: Any, x: Tensor
) -> None:
    """Points uniform in the ball have every entry moved, by next to nothing."""
    inputs = seen(linear, x, 10, restarts=2)
    assert torch.equal(inputs[0], x)
    start = inputs[len(inputs) // 2] - x
    assert torch.allclose(lengths(start), torch.tensor(3 * EPS), rtol=1e-4)
    assert (moved(start) < 0.25 * 300).all()
    assert (moved(start) > 3 * EPS).all()  # the box takes no entry further than 1


@pytest.mark.parametrize("restarts", [1, 2])
def test_every_phase_begins_as_sparse_as_its_first_point(
    linear: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    beginnings: list[tuple[float, Tensor, Tensor]] = []
    begin = apgd._begin

    def watched(search: Any, adv: Tensor) -> Any:
        state = begin(search, adv)
        moves = moved(adv - search.region.x)
        beginnings.append((float(search.region.eps) / EPS, state.fraction, moves))
        return state

    monkeypatch.setattr(apgd, "_begin", watched)
    seen(linear, x, 20, restarts=restarts)
    assert [factor for factor, _, _ in beginnings] == [3.0, 2.0, 1.0] * restarts
    # The images themselves are moved nowhere: as many entries as half the box takes to 3 eps.
    (_, fraction, support), *others = beginnings
    assert (support == 0).all()
    assert torch.allclose(fraction, torch.tensor(2 * 3 * EPS / 300))
    for _, fraction, support in others:
        assert torch.allclose(fraction, support / 300 / 1.5)
        assert (fraction < 0.2).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 20, 50])
def test_all_phases_together_have_the_steps_that_were_asked_for(
    linear: Any, x: Tensor, steps: int
) -> None:
    inputs = seen(linear, x, steps)
    phases = 3 if steps >= 3 else 1
    assert len(inputs) == steps + phases  # each phase sees its first point
    longest = [float(lengths(adv - x).max()) / EPS for adv in inputs]
    last = inputs[-max(1, steps - 2 * int(0.3 * steps)) :] if steps >= 10 else inputs[-1:]
    assert all(n <= 3 * (1 + 1e-4) for n in longest)
    assert all(float(lengths(adv - x).max()) <= EPS * (1 + 1e-4) for adv in last)


def test_neither_layout_nor_the_other_images_matter(linear: Any, x: Tensor) -> None:
    y = classes(linear, x)

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        return APGD(EPS / 4, norm="l1", steps=12, seed=5)(linear, images, labels)

    whole = attack(x, y)
    assert not torch.equal(whole, x)
    for n in (1, 4):
        assert torch.equal(attack(x[:n], y[:n]), whole[:n])
    start = Region.around(x, norm="l1", eps=EPS, bounds=(0.0, 1.0)).gaussian(Stream(5))
    spread = torch.empty(9, 3, 10, 20)[..., ::2].copy_(x)
    for images in (x.to(memory_format=torch.channels_last), spread):
        region = Region.around(images, norm="l1", eps=EPS, bounds=(0.0, 1.0))
        assert torch.equal(region.gaussian(Stream(5)), start)
        # The projection adds up the entries in the order of memory.
        assert torch.allclose(attack(images, y), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("box", [(0.0, 255.0), (-1.0, 1.0), ([0.0, -2.0, -3.0], [255.0, 2.0, 1.0])])
def test_noise_has_the_units_of_the_box(x: Tensor, box: Any) -> None:
    low, high = (torch.as_tensor(bound).expand(3).view(3, 1, 1) for bound in box)
    images = low + x * (high - low)
    bounds = tuple(torch.as_tensor(b) if isinstance(b, list) else b for b in box)
    region = Region.around(images, norm="l1", eps=1.0, bounds=bounds)
    plain = Region.around(x, norm="l1", eps=1.0, bounds=(0.0, 1.0))
    want = (plain.gaussian(Stream(0)) - x) * (high - low)
    assert torch.allclose(region.gaussian(Stream(0)) - images, want, atol=1e-3)
    assert abs(float(((plain.gaussian(Stream(0)) - x) ** 2).mean()) - 1) < 0.1


def test_without_a_box(linear: Any, x: Tensor) -> None:
    free = (-torch.inf, torch.inf)
    y = classes(linear, x)
    adv = APGD(EPS, norm="l1", steps=10, bounds=free, seed=0)(linear, x, y)
    assert adv.isfinite().all()
    assert (lengths(adv - x) <= EPS * (1 + 1e-5)).all()
    assert (classes(linear, adv) != y).all()


@pytest.mark.parametrize(("eps", "steps", "reference"), [(2.0, 10, 89), (5.0, 20, 14)])
def test_leaves_no_more_images_than_the_authors_attack(
    eps: float, steps: int, reference: int
) -> None:
    """pyautoattack 0.2.0 leaves these with the better of two seeds; points drawn uniformly from
    the ball and a fifth of the entries a step left 128 and 17."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    ).requires_grad_(False)
    for layer in (net[0], net[2], net[5]):
        noise = torch.randn(layer.weight.shape, generator=generator)
        layer.weight.copy_(noise / layer.weight[0].numel() ** 0.5)
        layer.bias.zero_()
    images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    y = classes(net, images)
    adv = APGD(eps, norm="l1", steps=steps, seed=0)(net, images, y)
    assert int((classes(net, adv) == y).sum()) <= reference
