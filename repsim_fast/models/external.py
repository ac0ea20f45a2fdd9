"""Classifiers of torchvision and timm, `torchvision:NAME` and `timm:NAME`: untrained, or with the
weights that a name after `@` asks for, which alone is ever fetched."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from repsim_fast._core.extras import extra
from repsim_fast._core.suggestions import among


class Preprocessing(NamedTuple):
    """What a network's own configuration does to images in [0, 1]: normalise them, at a size."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None


def build_torchvision(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a torchvision classifier without weights.

    Raises:
        ImportError: torchvision is missing or does not fit this torch.
        ValueError: no such classifier, or images that have not 3 channels.
    """
    models, name = _torchvision(name)
    if in_channels != 3:
        raise ValueError(f"torchvision:{name} takes 3 channels, got in_channels={in_channels}")
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    return model


def load_torchvision(name: str, tag: str) -> tuple[nn.Module, Preprocessing, str]:
    """A torchvision classifier with weights: "DEFAULT" or another name of its own.

    Returns:
        The network, how its images are prepared, and the name of the weights.

    Raises:
        ImportError: torchvision is missing or does not fit this torch.
        ValueError: no such classifier or weights.
        OSError: they are not in torch's cache and cannot be fetched.
    """
    models, name = _torchvision(name)
    known = models.get_model_weights(name)
    tags = ["DEFAULT", *(weights.name for weights in known)]
    weights = getattr(known, among(f"torchvision:{name} has no weights", tag, tags))
    try:
        model: nn.Module = models.get_model(name, weights=weights)
    except OSError as error:
        raise OSError(
            f"torchvision:{name}@{tag}: cannot fetch {weights.url}: {error}; put the file into "
            "the folder checkpoints of torch.hub.get_dir()"
        ) from error
    made = weights.transforms()
    size = made.crop_size[0] if getattr(made, "crop_size", None) else None
    mean, std = (getattr(made, field, None) for field in ("mean", "std"))
    prepared = Preprocessing(mean and tuple(mean), std and tuple(std), size)
    return model, prepared, f"{weights.name} of torchvision"


def build_timm(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a timm model without weights.

    Raises:
        ImportError: timm is missing or does not fit this torch.
        ValueError: no such model.
    """
    timm, name = _timm(name)
    model: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_channels
    )
    return model


def load_timm(name: str, tag: str) -> tuple[nn.Module, Preprocessing, str]:
    """A timm model with its pretrained weights; the tag is "pretrained", or one of timm's own.

    Returns:
        The network, how its images are prepared, and the name of the weights.

    Raises:
        ImportError: timm is missing or does not fit this torch.
        ValueError: no such model.
        OSError: the weights are not in the cache and cannot be fetched.
    """
    timm, name = _timm(name)
    if tag.lower() not in ("pretrained", "default"):
        name = f"{name}.{tag}"
    model: nn.Module = timm.create_model(name, pretrained=True)
    config: dict[str, Any] = timm.data.resolve_data_config({}, model=model)
    prepared = Preprocessing(tuple(config["mean"]), tuple(config["std"]), config["input_size"][-1])
    return model, prepared, f"pretrained weights of timm ({name})"


def take_out_classifier(model: nn.Module, missing: Sequence[str]) -> bool:
    """Make a network of torchvision or timm return features, where weights are missing that are
    all of its classifier and no others; whether they are.

    Args:
        model: Changed in place.
        missing: Names of the weights that a file lacks.
    """
    if callable(reset := getattr(model, "reset_classifier", None)):  # timm
        reset(0)
        return not set(missing) & set(model.state_dict())
    name = missing[0].partition(".")[0]
    with_weights = [child for child, part in model.named_children() if part.state_dict()]
    head = getattr(model, name)
    if name != with_weights[-1] or {f"{name}.{key}" for key in head.state_dict()} != set(missing):
        return False
    setattr(model, name, nn.Identity())
    return True


def _torchvision(name: str) -> tuple[Any, str]:
    models = package("torchvision", of="vision").models
    known = models.list_models(module=models)
    return models, among("torchvision has no classifier", name, known)


def _timm(name: str) -> tuple[Any, str]:
    timm = package("timm", of="timm")
    if not timm.is_model(name):  # which knows names with a tag of weights, too
        architecture, dot, tag = name.partition(".")
        name = among("timm has no classifier", architecture, timm.list_models()) + dot + tag
    return timm, name


def package(name: str, *, of: str) -> ModuleType:
    """A package that networks come from.

    Raises:
        ImportError: it is missing or does not fit this torch.
    """
    try:
        return extra(name, of=of, purpose=f"{name}:NAME")
    except ImportError:
        raise
    except Exception as error:  # a torchvision built for another torch fails in many ways
        raise ImportError(f"{name} is installed but does not fit this torch: {error}") from error
