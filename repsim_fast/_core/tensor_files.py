"""Files of tensors: safetensors, written whole or not at all, read with nothing trusted."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from . import headers
from .files import open_regular, replacing

Kind = Literal["pt", "numpy"]
_WRITERS = {"pt": "safetensors.torch", "numpy": "safetensors.numpy"}
_CHECKSUMS = "crc32"  # name of the text that has them
_SCHEMA = headers.named(headers.whole(0, 2**32 - 1))


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],  # on the CPU, in order, none sharing memory with another
    metadata: Mapping[str, str],
    kind: Kind = "pt",
) -> None:
    """Write tensors or arrays and texts by name, with their checksums, which readers compare.

    Raises:
        OSError: The place cannot be written to, or is full.
    """
    library: Any = importlib.import_module(_WRITERS[kind])
    with replacing(path) as temporary:
        try:
            texts = {**metadata, _CHECKSUMS: _checksums(tensors, metadata)}
            library.save_file(dict(tensors), temporary, texts)
        except SafetensorError as error:
            raise _as_os_error(error, path) from error
        _order_texts(temporary)


def _order_texts(path: Path) -> None:
    """Bring the texts into the order of their names: the library writes them in any.

    With it the same content is the same bytes, which copies and fingerprints of files rest on.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(ordered) > size:  # would run into the tensors
            raise ValueError(f"{len(ordered)} bytes do not fit the {size} of the header")
        file.seek(8)
        file.write(ordered.ljust(size))  # spaces, as the format fills it


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
            self.metadata, self.checksums = _texts(file)
            self.names = frozenset(file.keys())
            self._file = file

    def get(self, name: str) -> Any:
        """The tensor of that name; ValueError if there is none, or another than was written."""
        if name not in self.names:
            raise ValueError(f"{os.fspath(self._path)} lacks the tensor {name!r}")
        with _as_value_error(self._path):
            return _checked(self._file.get_tensor(name), name, self.checksums)


def _read(
    path: str | os.PathLike[str], kind: Kind, *, tensors: bool
) -> tuple[dict[str, str], dict[str, Any]]:
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    open_regular(path).close()
    with _as_value_error(path), safe_open(path, framework=kind) as file:
        metadata, checksums = _texts(file)
        names = list(file.keys()) if tensors else []
        read = {name: _checked(file.get_tensor(name), name, checksums) for name in names}
        if kind == "pt":
            # Cloned: at the file's odd addresses kernels would round differently.
            read = {name: tensor.clone() for name, tensor in read.items()}
        return metadata, read


def _checksums(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """CRC-32 of each tensor by its name, dtype and shape included, and of the texts by none."""
    found = {name: _crc32(values) for name, values in tensors.items()}
    return json.dumps({**found, "": _crc32_of_texts(metadata)}, ensure_ascii=False)


def _texts(file: Any) -> tuple[dict[str, str], dict[str, int]]:
    """The texts and the checksums of an open file; there are none in files of others."""
    metadata = dict(file.metadata() or {})
    if _CHECKSUMS not in metadata:
        return metadata, {}
    checksums = headers.parsed(metadata.pop(_CHECKSUMS), _SCHEMA, _CHECKSUMS)
    if checksums.get("") != _crc32_of_texts(metadata):
        raise ValueError("its texts are not those that were written")
    return metadata, checksums


def _checked(values: Any, name: str, checksums: Mapping[str, int]) -> Any:
    if checksums and checksums.get(name) != _crc32(values):
        raise ValueError(f"tensor {name!r} is not the one that was written (CRC-32)")
    return values


def _crc32(
    values: Any,  # tensor on the CPU or array, in order
) -> int:
    kind = f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"
    if hasattr(values, "detach"):
        import torch  # there already, and not where only texts are read

        raw = values.detach().reshape(-1).view(torch.uint8).numpy()
    else:
        raw = values.reshape(-1).view("uint8")
    return zlib.crc32(raw, zlib.crc32(kind.encode()))


def _crc32_of_texts(metadata: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps(metadata, sort_keys=True).encode())


@contextlib.contextmanager
def _as_value_error(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        # A kind of number that numpy or this torch does not have is no fault of the library's.
        raise ValueError(
            f"{os.fspath(path)} is not a readable safetensors file: {error}"
        ) from error
