"""What the standard errors and chance levels cost that `compare` gives by itself, by measure.

Two ResNet-20 on 500 random images 3x8x8, so small that forward passes are a small part; every
convolution and linear layer, averaged over positions: 2 x 20 layers of 16 to 64 features, or 10.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from timing import side_by_side

from repsim_fast import compare
from repsim_fast.models import build

MEASURES = [
    *("cca", "procrustes_similarity", "linear_regression", "rsa", "cka_rbf"),
    *("mutual_knn", "soft_matching_distance"),
]
FORMS = {
    "neither": {"jackknife": 0, "permutations": 0},
    "errors of 10 groups": {"jackknife": 10, "permutations": 0},
    "chance level of 10 permutations": {"jackknife": 0, "permutations": 10},
}


def is_counted(name: str, module: torch.nn.Module) -> bool:
    return isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))


@pytest.mark.filterwarnings("ignore:.* independent features of n = ")
@pytest.mark.parametrize("measure", MEASURES)
def test_errors_and_chance(measure, record):
    images = torch.rand(500, 3, 8, 8)
    models = {f"seed {seed}": build("resnet-20", num_classes=10, seed=seed) for seed in range(2)}
    ours = functools.partial(
        compare, models, images, layers=is_counted, maps="pool", measure=measure, batch_size=100
    )
    found = {form: ours(**options) for form, options in FORMS.items()}
    for result in found.values():
        np.testing.assert_allclose(result.value, found["neither"].value, atol=1e-6)
    assert np.isfinite(found["errors of 10 groups"].standard_error).all()
    assert np.isfinite(found["chance level of 10 permutations"].chance).all()
    times = side_by_side(
        {form: functools.partial(ours, **options) for form, options in FORMS.items()},
        rounds=3,
        warmup=0,
    )
    for form, timing in times.items():
        record(
            f"{measure} {form}",
            **timing.row(),
            ratio_to_neither=timing.median / times["neither"].median,
        )
