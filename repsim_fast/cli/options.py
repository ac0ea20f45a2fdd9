"""Options that several commands have, and the checks of their values."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsim_fast._core.files import check_writable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from repsim_fast.data import ImageData

    Inputs = ImageData | dict[str, Tensor]
    """What networks are run on: images, or arrays by the names of a network's arguments."""


def parse_folder(text: str | Path) -> Path:
    """A folder's path; that of no name would be the current folder."""
    if str(text) == "":
        raise typer.BadParameter("expected the path of a folder, got ''")
    return Path(text)


class On(Enum):
    """What an option acts on, in its declaration; without it on networks as they are run."""

    RESULTS = "what is compared, be it run or recorded"
    DATA = "which data are read, and how, against which recordings are held"


def parse_channels(text: str | None) -> list[float] | None:
    """Numbers with commas between them, one for each channel."""
    if text is None:
        return None
    try:
        return [float(part) for part in str(text).split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected a number a channel, such as 0.485,0.456,0.406, got {text!r}"
        ) from None


Mean = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Normalise images of other packages' networks and of your own files by this mean, a "
        "number a channel such as 0.485,0.456,0.406 (default: as published weights have it, "
        "otherwise images stay in [0, 1]).",
    ),
]
Std = Annotated[str | None, typer.Option(metavar="NUMBERS", help="Standard deviation, as --mean.")]
IMAGES = (
    "Images: 'digits' (built in), a path with parquet files as on the Hugging Face hub, "
    "'cifar10:PATH' (the folder torchvision downloads), 'folder:PATH' (one folder a class) or "
    "'npz:FILE' (images and labels, as of MedMNIST)."
)
DataSpec = Annotated[str, typer.Option("--data", metavar="SPEC", show_default=False, help=IMAGES)]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2**14,
        metavar="PIXELS",
        help="Bring all images to this size (default: that of published weights, otherwise as they "
        "are).",
    ),
    On.DATA,
]
Split = Annotated[str, typer.Option(metavar="NAME", help="'test' or 'train' images."), On.DATA]
# Half of what torch takes, since seeds of several networks are this one plus their position.
Seed = Annotated[
    int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of everything random."), On.DATA
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="'cpu', 'cuda', 'cuda:1', ... (default: a GPU if there)."),
    On.RESULTS,
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2**12,
        metavar="N",
        help="CPU threads (default: one for each idle core). Results repeat bit for bit with the "
        "same number only.",
    ),
    On.RESULTS,
]
Autocast = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Mixed precision of forward passes: 'bfloat16', 'float16', or 'auto', which is "
        "bfloat16 where processor or GPU multiply it natively (default: none).",
    ),
]


def typed_options(context: typer.Context) -> set[str]:
    """Names of the options that stand on the command line."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def choose_autocast(name: str | None, device: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision asked for.

    Raises:
        ValueError: It is none of those there are.
    """
    import torch

    from repsim_fast._core.precision import native_half

    if name == "auto":
        return native_half(device)
    choices = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in choices:
        raise ValueError(f"--autocast must be bfloat16 or float16 or auto, got {name!r}")
    return choices[name]


def check_out(out: Path, suffix: str, option: str = "--out") -> None:
    """A file name of the command's kind that can be written to, before any work.

    Raises:
        ValueError: A name of another kind of file.
        OSError: It cannot be written to.
    """
    if out.suffix != suffix:
        raise ValueError(f"{option} must be a name that ends in {suffix}, got {str(out)!r}")
    if out.is_dir():
        raise OSError(f"cannot write {str(out)!r}: it is a folder")
    check_writable(out.parent)


def choose_device(name: str | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        RuntimeError: There is no such device.
    """
    import torch

    from repsim_fast._core.model_state import usable_device

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return usable_device(name)
    except RuntimeError as error:
        others = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        raise RuntimeError(f"--device {name}: not usable here; there is {others}") from error


def describe(images: Inputs) -> str:
    """What images or arrays these are, in a few words."""
    if isinstance(images, dict):
        return f"{len(next(iter(images.values()))):,} samples of {', '.join(images)}"
    return repr(images).removeprefix("ImageData(").removesuffix(")")
