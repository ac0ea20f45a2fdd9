"""The images of `repsim-fast train`: trained on, mixed in and measured on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer
from torch import Tensor

from repsim_fast.data import ImageData, mixed
from repsim_fast.data.classes import difference
from repsim_fast.training.named_sets import HELD_OUT, check_names

from .options import describe
from .train_options import MIX_SHARE

TEST = "test"
"""Name of the test images of --data, beside others."""
# Published sets have a few images twice.
_FEW_REPEATED = 0.01


@dataclass(frozen=True)
class Sources:
    """Where images are from, and how many.

    Attributes:
        data: SPEC of the images trained and measured on.
        mix: SPEC of the second stream.
        mix_share: Its share of a batch.
        further: SPEC of further sets measured on, by name.
        size: Pixels all are brought to.
        limit: Images trained on, of ``data``, at most.
        test_limit: Images measured on, of each set, at most.
    """

    data: str
    mix: str | None
    mix_share: float | None
    further: Mapping[str, str]
    size: int | None
    limit: int | None
    test_limit: int

    def __post_init__(self) -> None:
        if self.mix is None and self.mix_share is not None:
            raise ValueError("--mix-share: there is no --mix to have a share")
        if not 0 < self.share < 1:
            raise ValueError(f"--mix-share must lie in (0, 1), got {self.share:g}")

    @property
    def share(self) -> float:
        """Of the second stream in a batch."""
        return MIX_SHARE if self.mix_share is None else self.mix_share


@dataclass(frozen=True)
class Images:
    """All of a training's images in memory.

    Attributes:
        train: Trained on, without the second stream.
        stream: What the trainer gets.
        test: Test images of --data.
        further: Test images of further sets by name.
        about: What is trained on, in words.
    """

    train: ImageData
    stream: Any
    test: ImageData
    further: Mapping[str, ImageData]
    about: str

    def measured(self, validation: float) -> Any:
        """The argument ``data`` of ``Evaluation``."""
        if validation:
            return self.further or None
        return {TEST: self.test, **self.further} if self.further else self.test

    def at_the_end(self) -> dict[str, ImageData]:
        """Sets measured after the training by name."""
        return {TEST: self.test, **self.further}


def named_specs(assigned: list[str] | None) -> dict[str, str]:
    """SPEC by NAME.

    Raises:
        ValueError: Not NAME=SPEC, a name twice or taken.
    """
    specs: dict[str, str] = {}
    for text in assigned or []:
        name, equals, spec = (part.strip() for part in text.partition("="))
        if not (name and equals and spec):
            raise ValueError(f"--eval-data: expected NAME=SPEC, got {text!r}")
        if name in specs:
            raise ValueError(f"--eval-data: {name} is given twice")
        if name in (TEST, HELD_OUT):
            raise ValueError(f"--eval-data: {name!r} is the name of images of --data")
        specs[name] = spec
    check_names("--eval-data", specs)
    return specs


def load_all(sources: Sources, seed: int) -> Images:
    """All images, of the same classes.

    Raises:
        ValueError: Sets with other classes, or images that cannot be mixed.
    """
    train = _load(sources.data, "train", sources.size, sources.limit, seed)
    test = _load(sources.data, "test", sources.size, sources.test_limit, seed)
    _say_repeated(test, train, sources.data)
    further = {
        name: _load(spec, "test", sources.size, sources.test_limit, seed)
        for name, spec in sources.further.items()
    }
    for name, images in further.items():
        _check_classes(f"--eval-data {name}", images, train)
    if sources.mix is None:
        return Images(train, train, test, further, describe(train))
    second = _load(sources.mix, "train", sources.size, None, seed)
    _check_classes("--mix", second, train)
    stream = mixed(train, second, share=sources.share)
    about = f"{describe(train)}; a share of {sources.share:g} from {describe(second)}"
    return Images(train, stream, test, further, about)


def _load(data: str, split: str, size: int | None, limit: int | None, seed: int) -> ImageData:
    from repsim_fast.data import load

    return load(data, split, size=size, limit=limit, seed=seed, progress=sys.stderr.isatty())


def _say_repeated(test: ImageData, train: ImageData, spec: str) -> None:
    """Say where many test images are those trained on, as of a folder that has no splits."""
    seen = {hash(_bytes(image)) for image in train.images}
    repeated = sum(hash(_bytes(image)) in seen for image in test.images)
    if repeated > _FEW_REPEATED * len(test):
        typer.echo(
            f"{repeated:,} of {len(test):,} test images are among those trained on: accuracies of "
            f"test images will be too high (--data {spec} has no split, or one in which images "
            "come twice)"
        )


def _bytes(image: Tensor) -> bytes:
    held: bytes = image.numpy().tobytes()
    return held


def _check_classes(option: str, images: ImageData, wanted: ImageData) -> None:
    """The same classes in the same order: labels are their numbers.

    Raises:
        ValueError: Others.
    """
    if images.classes == wanted.classes:
        return
    differ = difference(images.classes, wanted.classes)
    raise ValueError(f"{option}: {images.name} has other classes than --data: {differ}")
