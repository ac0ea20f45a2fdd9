"""Handwritten digits, 1,797 grey images of 8x8 pixels that ship inside scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from repsim_fast._core.extras import extra

from .decoding import resize_images
from .image_data import ImageData
from .request import Request

# The set has no split of its own. A third for testing leaves 599 images, enough for several
# batches of a comparison. One split for every seed, so that no model is tested on what another
# run trained on.
_TEST_SHARE = 1 / 3
_SPLIT_SEED = 0
_BRIGHTEST = 16  # pixels count the dark quarters of 4x4 blocks


def load_digits(request: Request) -> ImageData:
    """Read one split of the digits, stratified by class: 1,198 to train, 599 to test.

    References:
        Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    """
    # Here because it takes a second, which those who read other data should not wait.
    datasets, selection = (
        extra(f"sklearn.{part}", of="digits", purpose="the digits data set")
        for part in ("datasets", "model_selection")
    )
    digits = datasets.load_digits()
    train, test = selection.train_test_split(
        np.arange(len(digits.target)),
        test_size=_TEST_SHARE,
        random_state=_SPLIT_SEED,
        stratify=digits.target,
    )
    rows = np.sort(train if request.split == "train" else test)
    rows = rows[request.rows(len(rows))]
    pixels = np.rint(digits.images[rows] * (255 / _BRIGHTEST)).astype(np.uint8)
    return ImageData(
        images=resize_images(torch.from_numpy(pixels).unsqueeze(1), request.size),
        labels=torch.from_numpy(digits.target[rows].astype(np.int64)),
        classes=tuple(str(name) for name in digits.target_names),
        name="digits",
        split=request.split,
    )
