"""Files of tensors: safetensors, written whole or not at all, read with nothing trusted."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from .files import open_regular, replacing

Kind = Literal["pt", "numpy"]
_WRITERS = {"pt": "safetensors.torch", "numpy": "safetensors.numpy"}


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],  # on the CPU, in order, none sharing memory with another
    metadata: Mapping[str, str],
    kind: Kind = "pt",
) -> None:
    """Write tensors or arrays and texts by name.

    Raises:
        OSError: The place cannot be written to, or is full.
    """
    library: Any = importlib.import_module(_WRITERS[kind])
    with replacing(path) as temporary:
        try:
            library.save_file(dict(tensors), temporary, dict(metadata))
        except SafetensorError as error:
            raise _as_os_error(error, path) from error


def _as_os_error(error: Exception, path: str | os.PathLike[str]) -> Exception:
    """The system's own error inside the library's, by its number, where there is one."""
    found = re.search(r"os error (\d+)", str(error))
    if found is None:
        return error
    number = int(found[1])
    return OSError(number, f"cannot write: {os.strerror(number)}", os.fspath(path))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts by name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no safetensors file.
    """
    return _read(path, "numpy", tensors=False)[0]


def read_tensors(
    path: str | os.PathLike[str], kind: Kind = "pt"
) -> tuple[dict[str, str], dict[str, Any]]:
    """The texts, and the tensors or arrays, by name; they do not hang on the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no safetensors file, or damaged.
    """
    return _read(path, kind, tensors=True)


class MappedTensors:
    """A file's tensors, each mapped into memory when it is asked for, and its texts.

    Addresses are the file's, at which kernels round differently: copy before computing.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no safetensors file, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
        open_regular(path).close()
        self._path = path
        with _as_value_error(path):
            file: Any = safe_open(path, framework="pt")
            self.metadata: dict[str, str] = dict(file.metadata() or {})
            self.names = frozenset(file.keys())
            self._file = file

    def get(self, name: str) -> Any:
        """The tensor of that name; ValueError if there is none."""
        if name not in self.names:
            raise ValueError(f"{os.fspath(self._path)} lacks the tensor {name!r}")
        with _as_value_error(self._path):
            return self._file.get_tensor(name)


def _read(
    path: str | os.PathLike[str], kind: Kind, *, tensors: bool
) -> tuple[dict[str, str], dict[str, Any]]:
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    open_regular(path).close()
    with _as_value_error(path), safe_open(path, framework=kind) as file:
        names = list(file.keys()) if tensors else []
        read = {name: file.get_tensor(name) for name in names}
        if kind == "pt":
            # Cloned: at the file's odd addresses kernels would round differently.
            read = {name: tensor.clone() for name, tensor in read.items()}
        return dict(file.metadata() or {}), read


@contextlib.contextmanager
def _as_value_error(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        # A kind of number that numpy or this torch does not have is no fault of the library's.
        raise ValueError(
            f"{os.fspath(path)} is not a readable safetensors file: {error}"
        ) from error
