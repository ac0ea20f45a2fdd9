"""Networks as people name them: architectures, files of weights, other libraries, own code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from repsim_fast._core.checks import check_seed
from repsim_fast._core.randomness import private_rng

from .checkpoint import has_header, load_checkpoint
from .external import Preprocessing, load_timm, load_torchvision, take_out_classifier
from .factories import from_factory
from .fitting import Fit, MisfitError, Rename, fit
from .huggingface import load_huggingface
from .normalized import normalized
from .pretrained import load_pretrained
from .registry import available, build
from .state_files import PICKLED, SAFE, States, is_safetensors, read_states, split_key
from .wide_resnet import WideResNet, from_published

SUFFIXES = (SAFE, *PICKLED)
PRETRAINED = "pretrained:"
Numbers = float | Sequence[float] | None

_PUBLISHED = re.compile("(torchvision|timm):([^@=]+)@(.+)", re.IGNORECASE)
# Of the weights of ImageNet, where neither a file nor a caller says how many.
_CLASSES = 1000


def brings_its_own(name: str) -> bool:
    """Whether a name is one of published weights, which decide classes, channels and size."""
    return name.startswith("hf:") or bool(_PUBLISHED.fullmatch(name))


class Opened(NamedTuple):
    """A network and what is known of it.

    Attributes:
        model: On the CPU, in evaluation mode; it takes images in [0, 1].
        about: "name" of the architecture, and where they are known "num_classes", "in_channels",
            "weights" (where they come from; None: untrained), "mean" and "std" (what images are
            normalised by), "size" (of the images that its configuration wants) and all that a
            checkpoint of this package says.
    """

    model: nn.Module
    about: dict[str, Any]


def load(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    key: str | None = None,
    seed: int | None = None,
) -> nn.Module:
    """A network by name, ready to compare: on the CPU, in evaluation mode, for images in [0, 1].

    Nothing is fetched unless the name asks for it, and nothing but tensors is unpickled.

    Args:
        name: One of

            - "FILE.safetensors" of :func:`save_checkpoint` or `repsim-fast train`, or
              "pretrained:NAME" of :func:`available_pretrained`;
            - "ARCHITECTURE=FILE": weights of any origin (.pt, .pth, .ckpt, .bin, .safetensors) for
              an architecture. State dicts are found under any key ("state_dict", "model", ...) and
              prefix ("module.", "_orig_mod.", "model.", ...); where several fit, "FILE#KEY" says
              which. A normalisation beside the network in the file is used;
            - "ARCHITECTURE": untrained;
            - "torchvision:NAME@DEFAULT", or another name of torchvision's weights, and
              "timm:NAME@pretrained": with published weights and their normalisation, from the
              cache or fetched;
            - "hf:NAME" or "hf:FOLDER": of the Hugging Face hub, or saved in its layout.

            ARCHITECTURE is one of :func:`available` (see :func:`build`) or "FILE.py:NAME", a
            function or class of a file of yours that makes the network, with the arguments that
            a Lightning checkpoint has as ``hyper_parameters``. Networks of torchvision and timm
            return features where the file has all weights but the classifier's.
        num_classes: Outputs of an architecture. Default: as the weights have, 1000 without any.
        in_channels: Channels of an architecture. Default: as the weights have, 3 without any.
        mean: Of each channel of the images, which the network is to see normalised, in [0, 1].
            Default: that of the network's own configuration; none where it has none.
        std: The same.
        key: Which weights of the file, as after "#".
        seed: Seed of untrained weights, as for :func:`build`.

    Raises:
        ValueError: No such name, weights that do not fit, or several that do.
        FileNotFoundError: No such file.
        ImportError: The package that the name needs is missing.
        OSError: What the name asks for cannot be fetched.

    Example:
        >>> import torch
        >>> from repsim_fast import models
        >>> net = models.build("resnet-8", num_classes=10)
        >>> torch.save({"state_dict": net.state_dict()}, "weights.ckpt")  # doctest: +SKIP
        >>> net = models.load("resnet-8=weights.ckpt")  # doctest: +SKIP
    """
    return open_model(
        name,
        num_classes=num_classes,
        in_channels=in_channels,
        mean=mean,
        std=std,
        key=key,
        seed=seed,
    ).model


def open_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    key: str | None = None,
    seed: int | None = None,
) -> Opened:
    """As :func:`load`, with what is known of the network."""
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std must be given together, got {mean} and {std}")
    if key is not None and "=" not in name:
        raise ValueError(f"key: only for ARCHITECTURE=FILE, got {name!r}")
    model, about = _opened(name, num_classes, in_channels, key, seed)
    own = about.get("mean"), about.get("std")
    if mean is not None and std is not None:
        own = mean, std
    if own[0] is not None and own[1] is not None:
        model = normalized(model, own[0], own[1])
        about |= {"mean": _listed(own[0]), "std": _listed(own[1])}
    return Opened(model.eval(), about)


def _listed(values: Any) -> list[float]:
    return [float(f"{v:.6g}") for v in torch.as_tensor(values, dtype=torch.float64).flatten()]


def _opened(
    name: str, num_classes: int | None, in_channels: int | None, key: str | None, seed: int | None
) -> tuple[nn.Module, dict[str, Any]]:
    if name.startswith(PRETRAINED):
        return load_pretrained(name.removeprefix(PRETRAINED))
    if Path(name).is_file() and not name.endswith(".py"):
        return _checkpoint(name)
    architecture, equals, file = name.partition("=")
    if equals:
        return _from_file(architecture, file, num_classes, in_channels, key)
    if name.startswith("hf:"):
        model, prepared, weights = load_huggingface(name.removeprefix("hf:"))
        return model, _described(name, prepared, weights)
    if found := _PUBLISHED.fullmatch(name):
        loader = load_timm if found[1].lower() == "timm" else load_torchvision
        with private_rng(torch.device("cpu"), 0):  # weights are drawn before they are replaced
            model, prepared, weights = loader(found[2], found[3])
        return model, _described(name, prepared, weights)
    if name.endswith(SUFFIXES):
        raise FileNotFoundError(f"no checkpoint file {name}")
    classes, channels = num_classes or _CLASSES, in_channels or 3
    try:
        model = _architecture(name, num_classes, channels, seed)
    except ValueError as error:
        unknown = f"unknown model {name!r}"
        if not str(error).startswith(unknown):
            raise
        what = f"{name!r} is neither a checkpoint file nor a model"
        raise ValueError(str(error).replace(unknown, what, 1)) from None
    about: dict[str, Any] = {"name": name, "weights": None}
    if not _is_own(name):
        about |= {"num_classes": classes, "in_channels": channels}
    return model, about


def _checkpoint(path: str) -> tuple[nn.Module, dict[str, Any]]:
    if is_safetensors(path) and has_header(path):
        return load_checkpoint(path)
    states, _ = read_states(path)
    where, state = max(states.items(), key=lambda item: len(item[1]))
    some = ", ".join(f"{n} {tuple(x.shape)}" for n, x in list(state.items())[:3])
    raise ValueError(
        f"{path} has weights ({len(state)} tensors{f' under {where!r}' if where else ''}: {some}, "
        f"...) and does not say of which network: ARCHITECTURE={path}, such as "
        f"torchvision:resnet18={path}; architectures are {', '.join(available())}, FILE.py:NAME"
    )


def _from_file(
    architecture: str,
    file: str,
    num_classes: int | None,
    in_channels: int | None,
    key: str | None,
) -> tuple[nn.Module, dict[str, Any]]:
    path = file
    if key is None:
        path, key = split_key(file)
    states, settings = read_states(path)
    what = f"{path} for {architecture}"
    asked = {"num_classes": num_classes, "in_channels": in_channels}
    settings = {**settings, **{name: n for name, n in asked.items() if n is not None}}
    counts: Mapping[str, int] = {
        "num_classes": num_classes or _CLASSES,
        "in_channels": in_channels or 3,
    }
    model = _architecture(architecture, num_classes, counts["in_channels"], 0, _CLASSES, settings)
    rename = from_published if isinstance(model, WideResNet) else None
    try:
        found = _fitted(states, model, architecture, what, key, rename)
    except MisfitError as error:
        other = _counts_of(error.shapes, counts)
        if other == counts or any(asked[k] not in (None, n) for k, n in other.items()):
            raise
        counts = other
        classes, channels = counts["num_classes"], counts["in_channels"]
        settings = {**settings, **counts}
        model = _architecture(architecture, classes, channels, 0, settings=settings)
        found = _fitted(states, model, architecture, what, key, rename)
    return model, _about_file(architecture, path, found, model, counts)


def _fitted(
    states: States,
    model: nn.Module,
    architecture: str,
    what: str,
    key: str | None,
    rename: Rename | None,
) -> Fit:
    """The weights put into the network; into that of a library without its classifier, where the
    file has none, as of encoders trained without labels."""
    try:
        return fit(states, model, what=what, key=key, rename=rename)
    except MisfitError as error:
        only_missing = error.missing and not (error.shapes or error.unexpected)
        foreign = architecture.lower().startswith(("torchvision:", "timm:"))
        if not (only_missing and foreign and take_out_classifier(model, error.missing)):
            raise
        return replace(fit(states, model, what=what, key=key, rename=rename), headless=True)


def _counts_of(
    shapes: Mapping[str, tuple[torch.Size, torch.Size]], counts: Mapping[str, int]
) -> Mapping[str, int]:
    """Numbers of classes and channels with which shapes that differ would fit; as they were where
    the shapes do not agree on one."""
    found: dict[str, set[int]] = {which: set() for which in counts}
    for wanted, got in shapes.values():
        differ = [i for i, pair in enumerate(zip(wanted, got, strict=False)) if len({*pair}) > 1]
        if len(wanted) == len(got) and len(differ) == 1 and differ[0] < 2:
            which = ("num_classes", "in_channels")[differ[0]]
            if wanted[differ[0]] == counts[which]:
                found[which].add(got[differ[0]])
    return {
        which: found[which].pop() if len(found[which]) == 1 else n for which, n in counts.items()
    }


def _about_file(
    architecture: str, path: str, found: Fit, model: nn.Module, counts: Mapping[str, int]
) -> dict[str, Any]:
    where = "" if found.label == "whole file" else f", {found.label}"
    left = f", {len(found.left)} other tensors not used" if found.left else ""
    kinds = {x.dtype for x in found.state.values() if x.is_floating_point()}
    own = {x.dtype for x in model.state_dict().values() if x.is_floating_point()}
    cast = f", {_names(kinds)} as {_names(own)}" if kinds != own else ""
    headless = ", without a classifier, which the file lacks" if found.headless else ""
    weights = f"{path}{where}{left}{cast}{headless}"
    about: dict[str, Any] = {"name": architecture, "weights": weights}
    if not _is_own(architecture):
        about |= counts
    if found.headless:
        about["num_classes"] = 0
    if found.mean is not None and found.std is not None:
        about |= {"mean": _listed(found.mean), "std": _listed(found.std)}
    return about


def _names(kinds: set[torch.dtype]) -> str:
    return " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))


def _described(name: str, prepared: Preprocessing, weights: str) -> dict[str, Any]:
    own = {field: value for field, value in prepared._asdict().items() if value is not None}
    about: dict[str, Any] = {"name": name, "weights": weights, **own}
    if prepared.mean is not None:
        about["in_channels"] = len(prepared.mean)
    return about


def _is_own(name: str) -> bool:
    """Whether it names a file of the user's."""
    return ".py:" in name


def _architecture(
    name: str,
    num_classes: int | None,
    in_channels: int,
    seed: int | None,
    otherwise: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    if _is_own(name):
        path, _, factory = name.rpartition(":")
        with private_rng(torch.device("cpu"), 0 if seed is None else check_seed(seed)):
            return from_factory(
                path, factory, num_classes, in_channels, otherwise=otherwise, settings=settings
            )
    return build(name, num_classes=num_classes or _CLASSES, in_channels=in_channels, seed=seed)
