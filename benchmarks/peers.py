"""Other packages, for comparison where they are installed: none is needed.

``make bench-peers`` gets those that can be had (``beside_peers.py``). A ``Peer`` computes a value
that its package and this one define alike, from two NumPy matrices (n, p); the benchmark checks
that before it times anything. A grid's error is recorded beside its time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import scipy.linalg
import scipy.spatial
from torch import Tensor, nn


@dataclass(frozen=True)
class Peer:
    """A function of another package, and our measure, with options, that it should equal."""

    name: str
    measure: str
    function: Callable[[np.ndarray, np.ndarray], float]
    options: Mapping[str, Any] = field(default_factory=dict)


def scipy_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """1 - c² of the disparity, turned into c; equal widths only."""
    return float(np.sqrt(1 - scipy.spatial.procrustes(x, y)[2]))


def scipy_orthogonal_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    nuclear = scipy.linalg.orthogonal_procrustes(x, y)[1]
    return float(nuclear / (np.linalg.norm(x) * np.linalg.norm(y)))


def available() -> list[Peer]:
    """Peers whose packages can be imported."""
    peers = [
        Peer("scipy.spatial.procrustes", "procrustes_similarity", scipy_procrustes),
        Peer(
            "scipy.linalg.orthogonal_procrustes",
            "procrustes_similarity",
            scipy_orthogonal_procrustes,
        ),
    ]
    for find in (_netrep, _torchmetrics, _rsatoolbox, _dcor):
        with contextlib.suppress(ImportError):
            peers += find()
    return peers


def _netrep() -> list[Peer]:
    from netrep.metrics import LinearMetric

    def angle(alpha: float) -> Callable[[np.ndarray, np.ndarray], float]:
        return lambda x, y: float(LinearMetric(alpha=alpha).fit(x, y).score(x, y))

    return [
        Peer("netrep alpha=1", "angular_procrustes_distance", angle(1.0)),
        # arccos of mean CCA where ranks are equal and full
        Peer("netrep alpha=0", "cca", lambda x, y: float(np.cos(angle(0.0)(x, y)))),
    ]


def _torchmetrics() -> list[Peer]:
    import torch
    from torchmetrics.shape import ProcrustesDisparity

    def similarity(x: np.ndarray, y: np.ndarray) -> float:
        metric = ProcrustesDisparity()
        disparity = metric(torch.from_numpy(x)[None], torch.from_numpy(y)[None])
        return float((1 - disparity).sqrt())

    return [Peer("torchmetrics ProcrustesDisparity", "procrustes_similarity", similarity)]


def _rsatoolbox() -> list[Peer]:
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    def rsa(rdm: str, comparison: str) -> Callable[[np.ndarray, np.ndarray], float]:
        def compared(x: np.ndarray, y: np.ndarray) -> float:
            rdms = [calc_rdm(Dataset(m.astype(np.float64)), method=rdm) for m in (x, y)]
            return float(compare(*rdms, method=comparison)[0, 0])

        return compared

    # Their Euclidean distances are squared, and divided by the number of features.
    rdms = {"correlation": "correlation", "euclidean": "sqeuclidean"}
    comparisons = {
        "spearman": "spearman",
        "rho-a": "rho_a",
        "tau-a": "tau_a",
        "corr": "pearson",
        "cosine": "cosine",
        "corr_cov": "whitened_pearson",
        "cosine_cov": "whitened_cosine",
    }
    return [
        Peer(
            f"rsatoolbox {rdm}, {comparison}",
            "rsa",
            rsa(rdm, comparison),
            {"rdm": rdms[rdm], "comparison": comparisons[comparison]},
        )
        for rdm in rdms
        for comparison in comparisons
    ]


def _dcor() -> list[Peer]:
    import dcor

    return [
        Peer("dcor distance_correlation", "distance_correlation", dcor.distance_correlation),
        Peer(
            "dcor u_distance_correlation_sqr",
            "bias_corrected_distance_correlation",
            dcor.u_distance_correlation_sqr,
        ),
    ]


def layer_grids() -> dict[str, Callable[..., Tensor]]:
    """Linear CKA of all pairs of layers, from (model_a, model_b, batches, layers_a, layers_b)."""
    try:
        version("pytorch-cka")  # its module is called "cka", as others are
    except PackageNotFoundError:
        return {}
    from cka import compute_cka

    def pytorch_cka(
        a: nn.Module, b: nn.Module, batches: list[Tensor], of_a: list[str], of_b: list[str]
    ) -> Tensor:
        return compute_cka(a, b, batches, layers=of_a, model2_layers=of_b, progress=False)[0]

    return {"pytorch-cka": pytorch_cka}
