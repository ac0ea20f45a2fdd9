"""Agreement with other packages that are installed and compute the same (benchmarks/peers.py).

None is a dependency; SciPy, which is, takes part always.
"""

from __future__ import annotations

import peers
import pytest
import torch

from repsim_fast import similarity

PEERS = peers.available()
OPTIONAL = ("netrep", "torchmetrics", "rsatoolbox", "dcor")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_agreement(peer):
    x = torch.randn(80, 6, dtype=torch.float64) + 1
    y = x @ torch.randn(6, 6, dtype=torch.float64) + torch.randn(80, 6)
    ours = float(getattr(similarity, peer.measure)(x, y, **peer.options))
    assert peer.function(x.numpy(), y.numpy()) == pytest.approx(ours, abs=1e-6)


@pytest.mark.parametrize("package", OPTIONAL)
def test_package_takes_part(package):
    """Says in the report of a test run which packages were not there to compare with."""
    if not any(peer.name.startswith(package) for peer in PEERS):
        pytest.skip(f"{package} is not installed")
