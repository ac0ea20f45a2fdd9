"""Weights in files of any origin: the mappings of tensors in them, and nothing that runs."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim_fast._core.files import open_regular
from repsim_fast._core.headers import named, parsed, record, text
from repsim_fast._core.tensor_files import read_tensors

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
SAFE = ".safetensors"

_SCALAR = np.float64(0).__reduce__()[0]  # what pickles of numpy's numbers call, of two addresses
# Beside tensors, what checkpoints hold of settings and scores; none of these runs anything.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(type(np.dtype(code)) for code in "?bhilBHILefd"),
]
_DEEPEST = 4
_OF_TORCH_SAVE = (b"PK\x03\x04", b"\x80")  # a zip archive, before torch 1.6 a pickle
# Weights in several files, as the Hugging Face hub has those of large networks.
_INDEX = ".index.json"
_LARGEST_INDEX = 1 << 26
_SCHEMA = record({"weight_map": named(text())})
_POINTER = b"version https://git-lfs"
# Tensors that are not weights, under names that trainers use.
_NOT_WEIGHTS = ("optim", "scheduler", "scaler", "rng", "loops", "callbacks")

States = Mapping[str, Mapping[str, Tensor]]
"""State dicts by where they lie in a file, keys with "/" between them; "" is the whole file."""


def read_states(path: str | os.PathLike[str]) -> tuple[States, Mapping[str, Any]]:
    """All mappings from names to tensors in a file, on the CPU, and what the network was made with,
    where the file says so: Lightning's ``hyper_parameters``, as ``save_hyperparameters()`` keeps
    them.

    Args:
        path: A safetensors file, or one that ``torch.save`` wrote, which is read with
            ``weights_only=True``; whatever they are called. Or the index of several such files
            (``model.safetensors.index.json``), which lie beside it.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file of another kind, damaged, or without such a mapping.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file of weights {os.fspath(path)!r}")
    _check_no_pointer(path)
    if os.fspath(path).endswith(_INDEX):
        return {"": dict(_parts(Path(path)))}, {}
    if is_safetensors(path):
        return {"": read_tensors(path)[1]}, {}
    content = _unpickled(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{os.fspath(path)} holds a {type(content).__name__}, not weights by name; save "
            "model.state_dict()"
        )
    if not (found := dict(_mappings(content, ""))):
        raise ValueError(
            f"{os.fspath(path)} holds no weights by name; it has "
            f"{', '.join(map(repr, list(content)[:8])) or 'nothing'}"
        )
    settings = content.get("hyper_parameters")
    return found, settings if isinstance(settings, Mapping) else {}


def _parts(index: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights of all files that an index names."""
    with open_regular(index) as file:
        files = parsed(file.read(_LARGEST_INDEX), _SCHEMA, str(index))["weight_map"]
    for name in sorted({*files.values()}):
        if Path(name).name != name or name.endswith(_INDEX):
            raise ValueError(f"{index}: expected names of files beside it, got {name!r}")
        found = read_states(index.with_name(name))[0].get("", {})
        if missing := [key for key, place in files.items() if place == name and key not in found]:
            raise ValueError(f"{index.with_name(name)} lacks {missing[0]!r}, which {index} names")
        yield from found.items()


def split_key(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """The file of "FILE#KEY", and the key, which is None without one or where a file is called
    so."""
    file, _, key = os.fspath(path).partition("#")
    return (os.fspath(path), None) if Path(path).is_file() else (file, key or None)


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of that form by its first bytes; its name decides where they are neither.

    Raises:
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        start = file.read(9)
    if start[8:] == b"{":  # after the header's length its text
        return True
    return Path(path).suffix == SAFE and not start.startswith(_OF_TORCH_SAVE)


def _check_no_pointer(path: str | os.PathLike[str]) -> None:
    """Refuse what a clone without its large files has in their place."""
    with open_regular(path) as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"{os.fspath(path)} is a pointer of Git LFS, without the weights: `git lfs pull` "
                "in its repository fetches them"
            )


def _unpickled(path: str | os.PathLike[str]) -> Any:
    try:
        with (
            open_regular(path) as file,
            torch.serialization.safe_globals(_HARMLESS),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of what an error says, too
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{os.fspath(path)}: {_why_not(error)}") from error
    except OSError:
        raise
    except Exception as error:  # of any kind: damaged bytes are a program for the unpickler
        said = (str(error).splitlines() or [""])[0]
        why = (
            "it is a TorchScript archive; save model.state_dict()"
            if "TorchScript" in said
            else f"{type(error).__name__}{said and f': {said}'} "
            "(damaged, or no file that torch.save wrote?)"
        )
        raise ValueError(f"{os.fspath(path)} cannot be read: {why}") from error


def _why_not(error: Exception) -> str:
    said = str(error)
    for words in ("Unsupported global: GLOBAL ", "Unsupported class "):
        if words in said:
            name = said.partition(words)[2].split()[0].strip(".`'")
            return (
                f"it holds more than tensors ({name}), and nothing else is unpickled: it could run "
                "anything. Where you trust it, save its weights alone: "
                "torch.save(torch.load(path, weights_only=False)[KEY], 'weights.pt'), with "
                ".state_dict() after it for a whole model"
            )
    return "it is no file of weights, neither of torch.save nor safetensors, or damaged"


def _mappings(content: Mapping[Any, Any], where: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    tensors = {
        key: value.detach()
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield where, tensors
    if where.count("/") >= _DEEPEST:
        return
    for key, value in content.items():
        named = isinstance(key, str) and not any(word in key.lower() for word in _NOT_WEIGHTS)
        if named and isinstance(value, Mapping):
            yield from _mappings(value, f"{where}/{key}" if where else key)
