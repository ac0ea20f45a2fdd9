"""Handwritten digits, 1,797 grey images of 8x8 pixels that come with the package.

``digits.npz`` is the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
UCI repository, CC BY 4.0; also in scikit-learn, in the same order) with a mask of those that test
here. The set has no split of its own: a third, stratified by class, leaves 599 images for testing,
enough for several batches of a comparison. One split for every seed, so that no model is tested on
what another run trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .decoding import resize_images
from .image_data import ImageData
from .request import Request

_FILE = Path(__file__).with_suffix(".npz")
_BRIGHTEST = 16  # pixels count the dark quarters of 4x4 blocks


def load_digits(request: Request) -> ImageData:
    """Read one split of the digits, stratified by class: 1,198 to train, 599 to test.

    References:
        Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    """
    with np.load(_FILE) as held:
        images, labels, tests = held["images"], held["labels"], held["test"]
    rows = np.flatnonzero(tests if request.split == "test" else ~tests)
    rows = rows[request.rows(len(rows))]
    pixels = np.rint(images[rows] * (255 / _BRIGHTEST)).astype(np.uint8)
    return ImageData(
        images=resize_images(torch.from_numpy(pixels).unsqueeze(1), request.size),
        labels=torch.from_numpy(labels[rows].astype(np.int64)),
        classes=tuple("0123456789"),
        name="digits",
        split=request.split,
    )
