"""The embedded digits and what all sources share: limit, size, seed, wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from repsim_fast import data


def test_the_splits_hold_every_digit_once():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1198, 599)
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.classes == tuple("0123456789")
    ours = np.concatenate([train.images.numpy(), test.images.numpy()]).reshape(1797, -1)
    labels = np.concatenate([train.labels.numpy(), test.labels.numpy()])
    theirs = load_digits()
    pixels = np.rint(theirs.data * 255 / 16).astype(np.uint8)
    rows = [np.lexsort(np.c_[p, y].T) for p, y in ((ours, labels), (pixels, theirs.target))]
    np.testing.assert_array_equal(ours[rows[0]], pixels[rows[1]])
    np.testing.assert_array_equal(labels[rows[0]], theirs.target[rows[1]])


def test_the_split_is_stratified_and_the_same_for_every_seed():
    test = data.load("digits", "test")
    shares = torch.bincount(test.labels) / len(test)
    assert (shares - 0.1).abs().max() < 0.005
    assert torch.equal(test.images, data.load("digits", "test", seed=7).images)


def test_full_brightness_is_one():
    images, _ = data.load("digits", "test").tensors()
    assert images.min() == 0
    assert images.max() == 1


def test_limit_is_drawn_by_the_seed():
    parts = [data.load("digits", "test", limit=50, seed=seed) for seed in (0, 0, 1)]
    assert len(parts[0]) == 50
    assert torch.equal(parts[0].images, parts[1].images)
    assert not torch.equal(parts[0].images, parts[2].images)
    assert len(data.load("digits", "test", limit=10_000)) == 599


def test_size_resizes():
    small, large = (data.load("digits", "test", size=size) for size in (4, 16))
    assert small.images.shape == (599, 1, 4, 4)
    assert large.images.shape == (599, 1, 16, 16)
    plain = data.load("digits", "test").tensors()[0]
    # Antialiased: the mean brightness stays, where dropping every other pixel moves it.
    assert (small.tensors()[0].mean() - plain.mean()).abs() < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "split must be one of train, test, got 'validation'"),
        ({"split": "test", "size": 0}, "size must be at least 1 or None, got 0"),
        ({"split": "test", "limit": 0}, "limit must be at least 1 or None, got 0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("digits", **options)


@pytest.mark.parametrize("spec", ["nothing/here", "cifar10:nothing/here", "folder:nothing/here"])
def test_missing_path_says_what_a_data_set_is(spec):
    with pytest.raises(
        ValueError, match="no file or folder 'nothing/here'; a data set is 'digits'"
    ):
        data.load(spec, "train")
