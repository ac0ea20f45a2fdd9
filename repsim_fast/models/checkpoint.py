"""Trained networks in one safetensors file each: weights, and in the header what they are of."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from repsim_fast._core import headers
from repsim_fast._core.model_state import unwrap
from repsim_fast._core.tensor_files import read_metadata, read_tensors, write_tensors

from .fitting import found_fit
from .masked_states import without_masks
from .registry import build
from .state_files import is_safetensors, read_states, split_key
from .wide_resnet import WideResNet, from_published

_HEADER = "repsim_fast"
_ARCHITECTURE = {"name": str, "num_classes": int, "in_channels": int}
_LARGEST = 2**31 - 1
_SCHEMA = headers.record(
    {
        "name": headers.text(200),
        "num_classes": headers.whole(1, _LARGEST),
        "in_channels": headers.whole(1, _LARGEST),
    },
    {
        "method": headers.text(200),
        "method_options": headers.named(headers.free),
        "epochs": headers.whole(0),
        "ema": headers.optional(headers.number(0, 1)),
        "classes": headers.listed(headers.text()),
        "clean_accuracy": headers.optional(headers.number(0, 1)),
        "robust_accuracy": headers.optional(headers.number(0, 1)),
        "attack": headers.text(),
        "checksum": headers.text(64),
        "commit": headers.text(200),
        "recipe": headers.named(headers.free),
    },
)


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    name: str,
    num_classes: int,
    in_channels: int = 3,
    **metadata: Any,
) -> None:
    """Write a model's weights and what is needed to build it again.

    The file is written under a temporary name and renamed, so that a file already at `path`
    stays whole until the new one is.

    Args:
        path: file to write, by habit `*.safetensors`.
        model: what `build(name, num_classes=num_classes, in_channels=in_channels)` returned.
        name: name of its architecture.
        num_classes: its number of outputs.
        in_channels: its channels.
        **metadata: anything JSON can hold, given back by `load_checkpoint`; method, epochs, ema,
            classes, clean_accuracy, robust_accuracy (in [0, 1]), attack and recipe as `train`
            writes them.

    Raises:
        TypeError: metadata that JSON cannot hold.
        ValueError: weights that do not fit the architecture, no such architecture, or metadata of
            another form than their names have.
        ImportError: the package of a "torchvision:" or "timm:" architecture is missing.
        OSError: the file cannot be written.
    """
    described = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **metadata}
    try:
        header = json.dumps(described)
    except TypeError as error:
        raise TypeError(f"metadata must be what JSON can hold: {error}") from None
    check_architecture("model", model, described)
    headers.parsed(header, _SCHEMA, "metadata")  # or nobody could read it again
    # Copies, because safetensors refuses tensors that share memory or are not contiguous.
    tensors = {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in unwrap(model).state_dict().items()
    }
    write_tensors(path, tensors, {_HEADER: header})


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a checkpoint and load its weights.

    Returns:
        The model, on the CPU and in evaluation mode, with the dtypes of the file; and all that
        was saved with it: name, num_classes, in_channels and the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this package, or weights that do not fit the architecture.
        ImportError: the package of a "torchvision:" or "timm:" architecture is missing.
    """
    _check_there(path)
    metadata, state = read_tensors(path)
    described = _header(path, metadata)
    with _bounded_by(path, state):
        model = build(**{key: described[key] for key in _ARCHITECTURE}, seed=0)
    _check_fit(str(path), _shapes(model), {key: x.shape for key, x in state.items()}, described)
    model.load_state_dict(state, assign=True)  # assign keeps the dtypes of the file
    return model.eval(), described


def load_weights(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    architecture: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Put the weights of a file into a model of the same architecture.

    Args:
        path: what `save_checkpoint` wrote, or another file of safetensors or ``torch.save``, whose
            one state dict that fits is taken, also from under a key ("state_dict", "model") or a
            prefix ("module."); where several fit, "FILE#KEY" says which. Of a pruned network, by
            `pruning.prune` or torch.nn.utils.prune, pruned weights are 0 in a model without masks.
        model: as it is where the weights do not fit.
        architecture: name, num_classes and in_channels of the model, for messages.

    Returns:
        The weights by name, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of another architecture, number of classes or dtype, or of a network
            with a normalisation of images before it; or a model whose weights have no memory.
    """
    path, key = split_key(path)
    _check_there(path)
    here = type(unwrap(model)).__name__ if architecture is None else _named(architecture)
    own = unwrap(model).state_dict()
    if empty := [name for name, x in own.items() if is_lazy(x) or x.is_meta]:
        raise ValueError(
            f"model: {empty[0]!r} has no memory for a weight: run a lazy model once first, "
            "make others outside torch.device('meta')"
        )
    if key is None and is_safetensors(path) and has_header(path):
        metadata, masked = read_tensors(path)
        state = dict(without_masks(masked, own))
        wanted = {key: x.shape for key, x in own.items()}
        problems = _problems(wanted, {key: x.shape for key, x in state.items()})
    else:
        metadata, state, problems = {}, _one_that_fits(path, model, here, key), []
    problems = problems or [
        f"{key} must be {own[key].dtype}, got {x.dtype}"
        for key, x in state.items()
        if x.dtype != own[key].dtype
    ]
    if problems:
        there = _named(_header(path, metadata)) if _HEADER in metadata else "weights"
        raise ValueError(
            f"{path} holds {there}, which do not fit the model, {here}: {_some(problems)}"
        )
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)
    return state


def _one_that_fits(path: str, model: nn.Module, here: str, key: str | None) -> dict[str, Tensor]:
    states, _ = read_states(path)
    network, what = unwrap(model), f"{path} for {here}"
    rename = from_published if isinstance(network, WideResNet) else None
    found = found_fit(states, network, what=what, key=key, rename=rename)
    if found.mean is not None and found.std is not None:
        raise ValueError(
            f"{path} holds a network with a layer before it that normalises images "
            f"(mean {found.mean.tolist()}, std {found.std.tolist()}), which {here} has not: put it "
            "before the model (models.normalized), or save the weights without it"
        )
    return dict(found.state)


def check_architecture(argument: str, model: nn.Module, architecture: Mapping[str, Any]) -> None:
    """Check that `load_checkpoint` could build `model` again.

    Raises:
        TypeError: an entry of the architecture of another type.
        ValueError: weights that do not fit the architecture, or no such architecture.
        ImportError: the package of a "torchvision:" or "timm:" architecture is missing.
    """
    for key, kind in _ARCHITECTURE.items():
        if not isinstance(architecture[key], kind):
            raise TypeError(
                f"{key} of the architecture must be {kind.__name__}, got {architecture[key]!r}"
            )
    wanted = _built(*(architecture[key] for key in _ARCHITECTURE))
    _check_fit(argument, wanted, _shapes(model), architecture)


# Kept, as a training asks for the same one after each epoch. Built on the CPU, since the meta
# device would import torch's compiler, which takes longer than most networks.
@functools.lru_cache(maxsize=16)
def _built(name: str, num_classes: int, in_channels: int) -> dict[str, torch.Size]:
    return _shapes(build(name, num_classes=num_classes, in_channels=in_channels, seed=0))


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in unwrap(model).state_dict().items()}


def checkpoint_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What was saved with a checkpoint's weights: name, num_classes, in_channels and metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this package.
    """
    _check_there(path)
    return _header(path, read_metadata(path))


def has_header(path: str | os.PathLike[str]) -> bool:
    """Whether a safetensors file says that `save_checkpoint` wrote it."""
    return _HEADER in read_metadata(path)


def _check_there(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint file {os.fspath(path)}")


def _header(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    what = f"{os.fspath(path)} is not a checkpoint of repsim_fast"
    if _HEADER not in metadata:
        raise ValueError(
            f"{what}: its header lacks {', '.join(_ARCHITECTURE)}; of weights of other origin "
            f"say whose they are: models.load('ARCHITECTURE={os.fspath(path)}')"
        )
    described: dict[str, Any] = headers.parsed(metadata[_HEADER], _SCHEMA, what)
    return described


@contextlib.contextmanager
def _bounded_by(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> Iterator[None]:
    """Networks built inside may not be far larger than what the file holds.

    A header of a few bytes could ask for a network that takes hours or all memory to build. What is
    not far larger is built, since messages then say which weight it is that does not fit.

    Raises:
        ValueError: The network has.
    """
    left = [2 * len(state) + 1000, 2 * sum(x.numel() for x in state.values()) + 2**24]
    builder = threading.get_ident()

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != builder:
            return
        left[0] -= 1
        left[1] -= 0 if is_lazy(parameter) else parameter.numel()
        if min(left) < 0:
            raise ValueError(
                f"{os.fspath(path)}: the weights do not fit its architecture, which has far "
                "more of them than the file"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(
            f"{os.fspath(path)}: its architecture cannot be built: {str(error).splitlines()[0]}"
        ) from error
    finally:
        hook.remove()


def _check_fit(
    what: str,
    wanted: Mapping[str, torch.Size],
    got: Mapping[str, torch.Size],
    architecture: Mapping[str, Any],
) -> None:
    if problems := _problems(wanted, got):
        raise ValueError(
            f"{what}: the weights do not fit {_named(architecture)}: {_some(problems)}"
        )


def _named(architecture: Mapping[str, Any]) -> str:
    return (
        f"{architecture['name']} with num_classes={architecture['num_classes']}, "
        f"in_channels={architecture['in_channels']}"
    )


def _some(problems: list[str]) -> str:
    return "; ".join(sorted(problems)[:3]) + ("; ..." if len(problems) > 3 else "")


def _problems(wanted: Mapping[str, torch.Size], got: Mapping[str, torch.Size]) -> list[str]:
    problems = [f"{key} is missing" for key in wanted.keys() - got.keys()]
    problems += [f"{key} is unknown" for key in got.keys() - wanted.keys()]
    return problems + [
        f"{key} must have shape {tuple(wanted[key])}, got {tuple(got[key])}"
        for key in wanted.keys() & got.keys()
        if wanted[key] != got[key]
    ]
