"""Encoded images to one uint8 tensor."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from repsim_fast._core.threads import Turns

# Only these are tried: others (EPS, for one) hand the file to outside programs.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "GIF", "TIFF")
# Bytes and pixels of one image; decoding takes up to twelve bytes a pixel.
LARGEST_FILE = 1 << 26
LARGEST_IMAGE = 1 << 25
# Larger ones are decoded one at a time, not as many as there are cores.
_LARGE = 1 << 22
_one_large = Turns()
# Images decoded between two updates of the progress bar; bounds the encoded bytes in memory.
_BLOCK = 256
# Below this mean encoded size Python's own work per image dominates, and threads, which must
# take turns at it, measured slower than one: 32x32 JPEGs have 1 kB, 224x224 ones 18 kB.
_THREADS_FROM_BYTES = 12_000


class Encoded(NamedTuple):
    """An encoded image and where it is from, for error messages."""

    data: bytes
    where: str


def decode_images(
    encoded: Iterable[Encoded], total: int, *, size: int | None = None, progress: bool = False
) -> Tensor:
    """Decode to RGB.

    Args:
        encoded: the images, exactly `total` of them.
        total: their number.
        size: side to bring them to (`centre_square`); None if all have one size already.
        progress: show a progress bar.

    Returns:
        uint8 (total, 3, H, W).

    Raises:
        ValueError: an unreadable image, or different sizes without `size`; names the image.
    """
    images = np.empty((total, 3, size or 0, size or 0), np.uint8)
    done = 0
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, unit=" images", disable=not progress) as bar,
    ):
        for block in _blocks(encoded):
            threaded = sum(len(item.data) for item in block) >= _THREADS_FROM_BYTES * len(block)
            decoded = (pool.map if threaded else map)(partial(_decode, size=size), block)
            for item, image in zip(block, decoded, strict=True):
                height, width, _ = image.shape
                if done == 0 and size is None:
                    images = np.empty((total, 3, height, width), np.uint8)
                if images.shape[2:] != (height, width):
                    raise ValueError(
                        f"{item.where}: image is {width}x{height}, the first one "
                        f"{images.shape[3]}x{images.shape[2]}; give size to bring all to one size"
                    )
                images[done] = image.transpose(2, 0, 1)
                done += 1
            bar.update(len(block))
    return torch.from_numpy(images)


def resize_images(images: Tensor, size: int | None) -> Tensor:
    """Bring decoded uint8 (N, C, H, W) with 1 or 3 channels to `size`; None leaves them."""
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    resized = np.empty((len(images), images.shape[1], size, size), np.uint8)
    for target, image in zip(resized, images.permute(0, 2, 3, 1).numpy(), strict=True):
        pillow = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        pixels = np.asarray(centre_square(pillow, size)).reshape(size, size, -1)
        target[:] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(resized)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the central square of an image to size x size, bilinear and antialiased.

    That is a resize of the shorter side followed by a centre crop, sampled once.
    """
    if image.size == (size, size):
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _decode(item: Encoded, size: int | None) -> npt.NDArray[np.uint8]:  # (H, W, 3)
    try:
        with Image.open(io.BytesIO(item.data), formats=FORMATS) as image:
            if (pixels := image.width * image.height) > LARGEST_IMAGE:
                raise ValueError(
                    f"it has {pixels:,} pixels, more than {LARGEST_IMAGE:,} (a file of a few "
                    "bytes may ask for all memory)"
                )
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of mode {image.mode} are not 8-bit")
            with _one_large() if pixels > _LARGE else contextlib.nullcontext():
                rgb = image if image.mode == "RGB" else image.convert("RGB")
                return np.asarray(rgb if size is None else centre_square(rgb, size))
    except UnidentifiedImageError as error:  # whose message has but the address of the bytes
        raise ValueError(
            f"{item.where}: cannot read the image: it is none of {', '.join(FORMATS)}, or damaged"
        ) from error
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error
        raise ValueError(f"{item.where}: cannot read the image: {error}") from error


def _blocks(items: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    iterator = iter(items)
    while block := list(islice(iterator, _BLOCK)):
        yield block
