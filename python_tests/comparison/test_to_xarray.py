"""Results as labelled arrays, with the real package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from repsim_fast import compare

xarray = pytest.importorskip("xarray")


def test_values_with_their_labels() -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 4), nn.Tanh())
    result = compare(one, two, torch.rand(60, 6), names=["one", "two"])
    data = result.to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert set(data.data_vars) == {"value", "standard_error", "chance"}
    assert data.attrs["measure"] == "cka"
    assert data.attrs["n_samples"] == 60
    grid = data["value"].where((data.model_a == "one") & (data.model_b == "two"), drop=True)
    np.testing.assert_array_equal(grid, result.between("one", "two").value)
    assert list(grid.layer_b.values) == ["0", "1"]
