"""Arrays are what the same tensors are, and maps say what may become of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsim_fast import similarity

X, Y = torch.randn(30, 5, 4, 4), torch.randn(30, 6)
FLAT = X.flatten(1)


@pytest.mark.parametrize("measure", ["cka", "cka_rbf", "procrustes_distance", "rsa", "mutual_knn"])
def test_arrays(measure: str) -> None:
    function = getattr(similarity, measure)
    expected = function(FLAT, Y)
    assert torch.equal(function(FLAT.numpy(), Y.numpy()), expected)
    assert torch.equal(function(FLAT, Y.numpy()), expected)
    backwards = FLAT.numpy()[:, ::-1]
    assert torch.allclose(function(backwards.copy()[:, ::-1], Y), expected)
    frozen = FLAT.numpy().copy()
    frozen.flags.writeable = False
    assert torch.equal(function(frozen, Y), expected)
    assert function(FLAT.double().numpy(), Y).dtype == torch.float64


def test_arrays_elsewhere() -> None:
    arrays = [FLAT.numpy(), Y.numpy()]
    expected = similarity.grid("cka", [FLAT, Y])
    assert torch.equal(similarity.grid("cka", arrays), expected)
    found = similarity.jackknife("rsa", arrays).standard_error
    assert torch.equal(found, similarity.jackknife("rsa", [FLAT, Y]).standard_error)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, object, str])
def test_arrays_that_are_no_features(dtype: type) -> None:
    with pytest.raises(TypeError, match="x: expected"):
        similarity.cka(np.ones((5, 3)).astype(dtype), Y[:5])
    with pytest.raises(TypeError, match="x: expected"):
        similarity.cca(np.ones((5, 3)).astype(dtype), Y[:5])


@pytest.mark.parametrize("measure", [similarity.cka, similarity.cca, similarity.mutual_knn])
def test_masked_values_are_none(measure) -> None:
    masked = np.ma.masked_array(FLAT.numpy(), mask=np.zeros(FLAT.shape, bool))
    assert torch.equal(measure(Y, masked[:, :6]), measure(Y, FLAT[:, :6]))
    masked[3, 2] = np.ma.masked
    with pytest.raises(ValueError, match=r"got a masked array of shape \(30, 80\) with 1 masked"):
        measure(Y, masked)


@pytest.mark.parametrize("measure", [similarity.cka, similarity.cca, similarity.mutual_knn])
def test_sparse_tensors_are_told_what_to_do(measure) -> None:
    for sparse in (Y.to_sparse(), Y.to_sparse_csr()):
        with pytest.raises(TypeError, match=r"x: expected a dense tensor, as x\.to_dense\(\) is"):
            measure(sparse, Y)
    assert torch.isfinite(measure(Y.to_sparse().to_dense(), Y))


@pytest.mark.parametrize("measure", [similarity.cka, similarity.procrustes_similarity])
def test_maps_are_told_what_to_do(measure) -> None:
    with pytest.raises(ValueError, match=r"shape \(30, 5, 4, 4\); x\.flatten\(1\) has.*pool"):
        measure(X, Y)
    with pytest.raises(ValueError, match=r"matrix \(n_samples, n_features\), got shape \(30,\)$"):
        measure(X[:, 0, 0, 0], Y)


def test_forms_of_maps() -> None:
    prepare, cka = similarity.prepare, similarity.cka
    assert torch.equal(cka(prepare(X, maps="flatten"), Y), cka(FLAT, Y))
    assert torch.equal(cka(prepare(X.numpy(), maps="pool"), Y), cka(X.mean((2, 3)), Y))
    positions = prepare(X, maps="positions")
    assert torch.equal(positions.features, X.movedim(1, -1).flatten(0, 2))
    # What the error proposes is the same.
    assert torch.equal(X.flatten(2).mT.flatten(0, 1), positions.features)
    assert torch.equal(prepare(Y, maps="pool").features, Y)
    with pytest.raises(ValueError, match="maps: expected one of 'flatten', 'pool', 'positions'"):
        prepare(X, maps="mean")
    with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor, got list"):
        prepare([1.0], maps="pool")
