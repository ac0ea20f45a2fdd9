"""The stage of each layer by the layers' names, which are too many to be read on a figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

__all__ = ["names_without_containers", "stages_by_name"]

Path = tuple[str, ...]

_NEARLY_ALL = 0.75  # more than the larger half of an encoder and a decoder, or of two blocks


def stages_by_name(names: Sequence[str]) -> tuple[str, ...] | None:
    """A label for each layer: its module of the highest level that parts the network.

    A module that holds most layers is no stage but its children are, and neither is one without a
    number that holds blocks with numbers, as "encoder" does. Layers in no module that holds several
    are "stem" before the first stage and "head" after the last. Labels are the shortest endings
    that tell the stages apart.

    Args:
        names: Of layers, in order of execution, such as "stage1.0.conv1".

    Returns:
        (layers,) labels; None where names tell no two stages.

    Example:
        >>> stages_by_name(["conv1", "layer1.0.conv1", "layer1.0.bn1", "layer2.0.conv1",
        ...                 "layer2.1.conv1", "fc"])
        ('stem', 'layer1', 'layer1', 'layer2', 'layer2', 'head')
        >>> stages_by_name(["bert.embeddings.norm", "bert.encoder.layer.0.key",
        ...                 "bert.encoder.layer.0.dense", "bert.encoder.layer.1.key",
        ...                 "bert.encoder.layer.1.dense", "classifier"])
        ('stem', 'layer.0', 'layer.0', 'layer.1', 'layer.1', 'head')
        >>> stages_by_name(["0", "1", "2"])
        >>> stages_by_name(["attention.1", "mlp.1", "attention.2", "mlp.2"])
    """
    paths = [tuple(name.split(".")) for name in names]
    labels = _parted(paths, 0)
    counts = {label: labels.count(label) for label in labels}
    stages = [label for label in counts if counts[label] > 1]
    runs = [label for label, _ in groupby(labels)]
    if len(stages) < 2 or any(runs.count(label) > 1 for label in stages):
        return None  # what comes again and again, as attention in each block, is no stage
    first = min(labels.index(label) for label in stages)
    last = max(len(labels) - 1 - labels[::-1].index(label) for label in stages)
    shown = _shown(stages)
    found: list[str] = []
    for number, label in enumerate(labels):
        if counts[label] > 1:
            found.append(shown[label])
        else:
            outside = "stem" if number < first else "head" if number > last else ""
            found.append(outside or found[-1])
    return tuple(found)


def names_without_containers(names: Sequence[str]) -> tuple[str, ...]:
    """The names without the modules that hold nearly all layers, where they are different still.

    Args:
        names: Of layers, such as "bert.encoder.layer.0.output.dense".

    Example:
        >>> names_without_containers(["bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler",
        ...                           "bert.encoder.layer.2", "bert.encoder.layer.3"])
        ('layer.0', 'layer.1', 'pooler', 'layer.2', 'layer.3')
    """
    paths = [tuple(name.split(".")) for name in names]
    container: Path = ()
    while True:
        inside = [p for p in paths if p[: len(container)] == container and len(p) > len(container)]
        following = [p[: len(container) + 1] for p in inside]
        largest = max(following, key=following.count, default=())
        children = {
            p[len(largest)] for p in inside if largest and p[:-1][: len(largest)] == largest
        }
        # A number keeps the word before it: "layer.0", not "0".
        if following.count(largest) <= _NEARLY_ALL * len(paths) or all(map(str.isdigit, children)):
            break
        container = largest
    short = [".".join(path[_shared(path[:-1], container) :]) for path in paths]
    return tuple(short if len(set(short)) == len(set(names)) else names)


def _shared(path: Path, container: Path) -> int:
    """With how many components of the container the path begins."""
    same = [a == b for a, b in zip(path, container, strict=False)]
    return [*same, False].index(False)


def _parted(paths: Sequence[Path], level: int) -> list[Path]:
    """The beginning of each path that is its stage; ``level`` components are known to be none."""
    labels: list[Path] = []
    for label, run in groupby(paths, key=lambda path: path[: level + 1]):
        held = list(run)
        own = [label] * len(held)
        # Of two blocks one may be the larger; what is no block holds nearly all.
        most = len(held) > (_NEARLY_ALL if _numbered(label) else 0.5) * len(paths)
        if any(len(path) > level + 1 for path in held) and (most or not _numbered(label)):
            deeper = _parted(held, level + 1)
            stages = {d for d in deeper if deeper.count(d) > 1 and d != label}
            if len(stages if most else set(filter(_numbered, stages))) > 1:
                own = deeper
        labels += own
    return labels


def _numbered(label: Path) -> bool:
    return any(map(str.isdigit, label[-1]))


def _shown(stages: Sequence[Path]) -> dict[Path, str]:
    """For each stage the shortest ending that no other has, of one length for all of a module."""
    shown: dict[Path, str] = {}
    for parent in dict.fromkeys(stage[:-1] for stage in stages):
        own = [stage for stage in stages if stage[:-1] == parent]
        others = [stage for stage in stages if stage[:-1] != parent]
        for ending in zip(*map(_endings, own), strict=True):
            taken = {text for stage in others for text in _endings(stage)}
            if len(set(ending)) == len(own) and not taken.intersection(ending):
                break
        shown |= dict(zip(own, ending, strict=True))
    return shown


def _endings(stage: Path) -> Iterable[str]:
    """From the shortest to all: the number with its word, the last component, more of them."""
    last = re.sub(r"^.*_(?=[^\W\d_]+_?\d+$)", "", stage[-1])
    alone = stage[-1].isdigit() and len(stage) > 1
    yield ".".join(stage[-2:]) if alone else last
    for length in range(1 + alone, len(stage) + 1):
        yield ".".join(stage[-length:])
