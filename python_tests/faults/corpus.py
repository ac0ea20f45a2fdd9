"""Small files of every format that is read, and how they are read."""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.lab.comparisons import Comparison
from python_tests.comparison.made_result import make as made_result
from python_tests.support.image_files import encode, picture, write_parquet
from repsim_fast import Recording, SimilarityResult, compare, data, models, record
from repsim_fast.comparison.recording_files import INDEX
from repsim_fast.report import load_folder, write_folder
from repsim_fast.training import Optimisation, Saving, checkpoints, train
from repsim_fast.training.state import TrainingState


@dataclass(frozen=True)
class Kind:
    """A format.

    Attributes:
        name: What it is.
        contents: Files that are as they should be, and some that once were not well received.
        place: Where a changed one is put.
        load: Reads it there.
        share: How often, beside the others.
        text: Whether the whole file is JSON.
    """

    name: str
    contents: Sequence[bytes]
    place: Path
    load: Callable[[], Any]
    share: float
    text: bool = False


def make(folder: Path) -> list[Kind]:
    """All formats, their files in ``folder``."""
    return [
        _result(folder),
        _recording(folder, "index", INDEX),
        _recording(folder, "batches", "batches-00000.safetensors"),
        _sums(folder),
        _checkpoint(folder),
        _state(folder),
        _manifest(folder),
        _parquet(folder),
        _image(folder),
        _cifar(folder),
        _comparison(folder),
    ]


def _result(folder: Path) -> Kind:
    place = folder / "result.safetensors"
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    results = (
        made_result((2, 1)),
        compare(model, model, torch.rand(40, 6), batch_size=8),
        compare(model, model, torch.rand(40, 6), measure="procrustes_similarity", jackknife=4),
    )
    contents = [result.save(place).read_bytes() for result in results]

    def load() -> None:
        result = SimilarityResult.load(place)
        # What loads must also be of use.
        repr(result)
        result.summary()
        result.to_csv(folder / "result.csv")
        result.save(folder / "again.safetensors")

    return Kind("result", contents, place, load, 4)


def _recording(folder: Path, what: str, file: str) -> Kind:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    home = folder / f"recording of {file}"
    record(model, torch.rand(40, 6), home, name="m", stored="float16", batch_size=8, every=3)

    def load() -> None:
        recording = Recording.open(home)
        repr(recording)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that 16 bits are off
            SimilarityResult.from_recordings([recording])

    place = home / file
    return Kind(f"recording, its {what}", [place.read_bytes()], place, load, 2)


def _sums(folder: Path) -> Kind:
    place = folder / "sums" / "sums-0-of-1.safetensors"
    model, data = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(40, 6)

    def load() -> None:
        compare(model, data, batch_size=8, every=3, resume=place.parent)

    with contextlib.suppress(KeyboardInterrupt):
        stopped = model.register_forward_hook(_stops_at(4))
        load()
    stopped.remove()
    return Kind("sums of a comparison", [place.read_bytes()], place, load, 1)


def _stops_at(number: int) -> Callable[..., None]:
    numbers = itertools.count(1)

    def hook(*_: Any) -> None:
        if next(numbers) == number:
            raise KeyboardInterrupt

    return hook


def _checkpoint(folder: Path) -> Kind:
    place = folder / "checkpoint.safetensors"
    network = models.build("resnet-8", num_classes=2, in_channels=1, seed=0)
    models.save_checkpoint(
        place, network, name="resnet-8", num_classes=2, in_channels=1, method="pgd",
        method_options={"eps": 0.1}, epochs=3, ema=None, clean_accuracy=0.5, classes=["a", "b"],
    )  # fmt: skip
    return Kind("checkpoint", [place.read_bytes()], place, lambda: models.load_checkpoint(place), 3)


def _state(folder: Path) -> Kind:
    place = folder / checkpoints.RESUME

    def network() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

    how, device = Optimisation(ema=0.9), torch.device("cpu")
    train(
        network(), (torch.rand(8, 1, 2, 2), torch.arange(8) % 3), epochs=2, optimisation=how,
        saving=Saving(folder), progress=False,
    )  # fmt: skip
    held = checkpoints._load(place)[1]["settings"]

    def load() -> None:
        checkpoints.mark(place)
        checkpoints.unfinished(place)
        checkpoints.load_state(place, TrainingState.begin(network(), 0.1, how, device), held)

    return Kind("training state", [place.read_bytes()], place, load, 4)


def _manifest(folder: Path) -> Kind:
    place = folder / "written" / "manifest.json"
    write_folder(place.parent, made_result((1, 1)))
    return Kind(
        "manifest", [place.read_bytes()], place, lambda: load_folder(place.parent), 1, text=True
    )


def _parquet(folder: Path) -> Kind:
    place = folder / "images.parquet"
    images = [encode(picture(value)) for value in (1, 2, 3)]
    contents = [
        write_parquet(place, images, [0, 1, 2], names=names).read_bytes()
        for names in (None, ["a", "b", "c"])
    ]
    return Kind("parquet", contents, place, lambda: data.load(place, "test"), 3)


def _image(folder: Path) -> Kind:
    place = folder / "pictures" / "class" / "image.png"
    place.parent.mkdir(parents=True)
    contents = [
        encode(picture(9, mode=mode), kind)
        for kind, mode in (
            ("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB"), ("BMP", "RGB"), ("PPM", "RGB"),
            ("GIF", "P"), ("TIFF", "RGB"), ("WEBP", "RGB"),
        )
    ]  # fmt: skip
    return Kind(
        "image", contents, place, lambda: data.load(f"folder:{folder / 'pictures'}", "test"), 4
    )


def _cifar(folder: Path) -> Kind:
    place = folder / "cifar" / "test_batch"
    place.parent.mkdir()
    (place.parent / "batches.meta").write_bytes(
        pickle.dumps({"label_names": [str(k) for k in range(10)]})
    )
    contents = []
    for protocol in (0, 2, 4):
        buffer = io.BytesIO()
        pickle.dump(
            {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 9]}, buffer, protocol=protocol
        )
        contents.append(buffer.getvalue())
    contents.append(b"cos\nsystem\n(S'touch executed'\ntR.")

    def load() -> None:
        try:
            data.load(f"cifar10:{place.parent}", "test")
        finally:
            assert not Path("executed").exists(), "a pickle was executed"

    return Kind("cifar10 pickle", contents, place, load, 2)


def _comparison(folder: Path) -> Kind:
    place = folder / "comparison.safetensors"
    Comparison(("a",), (("x", "y"),), np.eye(2), np.ones((3, 2, 2))).save(place)
    return Kind(
        "comparison of an experiment", [place.read_bytes()], place,
        lambda: Comparison.load(place), 1,
    )  # fmt: skip
