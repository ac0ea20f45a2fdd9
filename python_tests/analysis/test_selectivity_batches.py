"""Batches that say more than a model has arguments for."""

from __future__ import annotations

import torch

from repsim_fast import models
from repsim_fast.analysis.selectivity import selectivity


def test_mappings_and_arrays() -> None:
    net = models.build("resnet-8", num_classes=3, in_channels=1, seed=0)
    images, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
    expected = selectivity(net, (images, labels))
    for data in (
        (images.numpy(), labels.numpy()),
        (images, labels.tolist()),
        [{"image": images, "label": labels, "id": labels, "file": ["a.png"] * 30}],
    ):
        found = selectivity(net, data)
        assert str(found) == str(expected)
