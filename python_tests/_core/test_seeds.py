"""One rule for all seeds: whole numbers from 0 that fit in 63 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from repsim_fast import compare, models, similarity
from repsim_fast._core.randomness import Stream
from repsim_fast.analysis.blocks import find_blocks
from repsim_fast.analysis.gradients import input_unit_gradients
from repsim_fast.attacks import APGD, PGD, AutoAttack
from repsim_fast.data.interventions import other_classes
from repsim_fast.training import Diagnostics, train
from repsim_fast.verification import certify

X, Y = torch.rand(16, 4), torch.arange(16) % 2


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


TAKERS: dict[str, Callable[[Any], object]] = {
    "PGD": lambda seed: PGD(0.1, seed=seed),
    "APGD": lambda seed: APGD(0.1, seed=seed),
    "AutoAttack": lambda seed: AutoAttack(0.1, stages=("apgd-ce",), seed=seed),
    "train": lambda seed: train(network(), (X, Y), epochs=1, seed=seed, progress=False),
    "Diagnostics": lambda seed: Diagnostics(X, Y, seed=seed),
    "compare": lambda seed: compare([network()], X, seed=seed),
    "permutation test": lambda seed: similarity.permutation_test("cka", X, X, seed=seed),
    "build": lambda seed: models.build("resnet-digits", num_classes=2, in_channels=1, seed=seed),
    "certify": lambda seed: certify(network(), X, sigma=0.1, n=10, n0=5, seed=seed),
    "other_classes": lambda seed: other_classes(Y, 2, seed=seed),
    "gradients": lambda seed: input_unit_gradients(network(), X, seed=seed),
    "blocks": lambda seed: find_blocks(np.eye(8), surrogates=2, seed=seed),
}


@pytest.mark.parametrize("seed", [2**63, 2**64, 2**70, -1])
@pytest.mark.parametrize("name", TAKERS)
def test_a_seed_out_of_range_is_refused(name: str, seed: int) -> None:
    with pytest.raises(ValueError, match=rf"^seed must lie in 0 .. 2\*\*63 - 1, got {seed}$"):
        TAKERS[name](seed)


@pytest.mark.parametrize("seed", [0.5, "a", True])
@pytest.mark.parametrize("name", TAKERS)
def test_a_seed_that_is_no_integer_is_refused(name: str, seed: object) -> None:
    with pytest.raises(TypeError, match=r"^seed must be an integer.*, got"):
        TAKERS[name](seed)


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(5), torch.tensor(5)])
def test_whole_numbers_of_any_kind_are_seeds(seed: Any) -> None:
    want = torch.Generator().manual_seed(int(seed)).initial_seed()
    assert Stream(seed).on(torch.device("cpu")).initial_seed() == want
    train(network(), (X, Y), epochs=1, seed=seed, progress=False)
