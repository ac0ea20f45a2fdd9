"""Features of many layers within a budget of memory, and grids from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from python_tests.support.forked import run_python
from repsim_fast.similarity import FeatureStore, grid


def filled(store: FeatureStore, batches: int = 6) -> dict[str, torch.Tensor]:
    rows: dict[str, list[torch.Tensor]] = {}
    for _ in range(batches):
        for key, width in (("a", 4), ("b", 30), ("c", 9)):
            batch = torch.randn(11, width)
            store.append(key, batch)
            rows.setdefault(key, []).append(batch.clone())
            batch.zero_()  # what was added does not change
    return {key: torch.cat(parts) for key, parts in rows.items()}


@pytest.mark.parametrize("memory", [0, 500, 3000, 10**9])
def test_matrices_are_what_was_added(memory):
    with FeatureStore(memory=memory) as store:
        expected = filled(store)
        assert store.keys() == ("a", "b", "c")
        assert store.in_memory <= memory
        assert store.in_memory + store.in_files == sum(m.nbytes for m in expected.values())
        for key, matrix in expected.items():
            assert torch.equal(store.matrix(key), matrix)
        store.append("b", torch.ones(2, 30))  # also after reading
        assert torch.equal(store.matrix("b")[-2:], torch.ones(2, 30))
        assert torch.equal(store.matrix("b")[:-2], expected["b"])


def test_the_largest_matrix_goes_first_and_files_are_npy(tmp_path):
    with FeatureStore(memory=6000, folder=tmp_path / "new") as store:
        expected = filled(store)
        assert 0 < store.in_files == expected["b"].nbytes
        (file,) = (tmp_path / "new").rglob("*.npy")
        store.matrix("b")
        np.testing.assert_array_equal(np.load(file), expected["b"].numpy())
    assert not list((tmp_path / "new").iterdir())  # what was given stays, what was made does not


def test_a_temporary_folder_is_removed():
    store = FeatureStore(memory=0)
    store.append(0, torch.randn(5, 5))
    assert store._scratch is not None
    folder = store._scratch.path
    assert folder.is_dir()
    matrix = store.matrix(0)
    store.close()
    assert not folder.exists()
    assert matrix.shape == (5, 5)  # a mapped file lives as long as its map
    assert not Path(folder).exists()


def test_stores_in_one_folder_keep_apart(tmp_path):
    (tmp_path / "0.npy").write_text("someone's own")
    with (
        FeatureStore(memory=0, folder=tmp_path) as one,
        FeatureStore(memory=0, folder=tmp_path) as two,
    ):
        first, second = filled(one), filled(two)
        for key in first:
            assert torch.equal(one.matrix(key), first[key])
            assert torch.equal(two.matrix(key), second[key])
    assert [path.name for path in tmp_path.iterdir()] == ["0.npy"]
    assert (tmp_path / "0.npy").read_text() == "someone's own"


def test_files_of_a_killed_process_are_swept(tmp_path):
    code = (
        "import os, sys, torch; from repsim_fast.similarity import FeatureStore\n"
        "store = FeatureStore(memory=0, folder=sys.argv[1]); store.append(0, torch.ones(5, 5))\n"
        "os.kill(os.getpid(), 9)"
    )
    assert run_python(code, tmp_path).returncode == -9
    (left,) = tmp_path.rglob("*.npy")
    with FeatureStore(memory=0, folder=tmp_path) as store:
        filled(store)
        assert not left.exists()
        assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_dtypes():
    with FeatureStore(memory=0) as store:
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            x = torch.randn(7, 3).to(dtype)
            store.append(dtype, x)
            read = store.matrix(dtype)
            assert read.dtype == dtype
            assert torch.equal(read, x)


def test_bad_rows():
    with FeatureStore() as store:
        store.append("a", torch.randn(3, 4))
        with pytest.raises(ValueError, match=r"rows: expected 4 features of torch.float32 for key"):
            store.append("a", torch.randn(3, 5))
        with pytest.raises(ValueError, match=r"got 4 of torch.float64"):
            store.append("a", torch.randn(3, 4).double())
        with pytest.raises(ValueError, match=r"rows: expected a matrix .* got shape \(3,\)"):
            store.append("a", torch.randn(3))
        with pytest.raises(KeyError):
            store.matrix("b")
    with pytest.raises(ValueError, match="memory: expected at least 0"):
        FeatureStore(memory=-1)


@pytest.mark.parametrize("name", ["cca", "procrustes_distance", "cka_rbf", "mutual_knn", "pwcca"])
def test_grids_from_files_are_those_from_memory(name):
    with FeatureStore(memory=0) as store:
        for key, width in (("a", 40), ("b", 30), ("c", 30)):
            store.append(key, torch.randn(700, width))
        layers = [store.matrix(key) for key in ("a", "b", "c")]
        mapped = grid(name, layers, memory=100_000)
        torch.testing.assert_close(mapped, grid(name, [layer.clone() for layer in layers]))


def test_a_closed_store_has_forgotten_everything():
    store = FeatureStore()
    store.append("a", torch.randn(5, 3))
    store.close()
    store.append("a", torch.randn(4, 2, dtype=torch.float64))
    assert store.matrix("a").shape == (4, 2)
