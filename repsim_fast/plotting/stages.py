"""The stage of each layer by the layers' names, which are too many to be read on a figure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

__all__ = ["stages_by_name"]


def stages_by_name(names: Sequence[str]) -> tuple[str, ...] | None:
    """A label for each layer: its module of the highest level that parts the network.

    A module that holds most layers is no stage but its children are. Layers in no module that holds
    several are "stem" before the first stage and "head" after the last.

    Args:
        names: Of layers, in order of execution, such as "stage1.0.conv1".

    Returns:
        (layers,) labels; None where names tell no two stages.

    Example:
        >>> stages_by_name(["conv1", "layer1.0.conv1", "layer1.0.bn1", "layer2.0.conv1",
        ...                 "layer2.1.conv1", "fc"])
        ('stem', 'layer1', 'layer1', 'layer2', 'layer2', 'head')
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
    found: list[str] = []
    for number, label in enumerate(labels):
        if counts[label] > 1:
            found.append(_shown(label))
        else:
            outside = "stem" if number < first else "head" if number > last else ""
            found.append(outside or found[-1])
    return tuple(found)


def _parted(paths: Sequence[tuple[str, ...]], level: int) -> list[tuple[str, ...]]:
    """The beginning of each path that is its stage; ``level`` components are known to be none."""
    labels: list[tuple[str, ...]] = []
    for label, run in groupby(paths, key=lambda path: path[: level + 1]):
        held = list(run)
        inner = [path for path in held if len(path) > level + 1]
        # More than half: the container of all blocks, not one of them.
        if 2 * len(held) > len(paths) and len({path[: level + 2] for path in inner}) > 1:
            deeper = _parted(held, level + 1)
            labels += deeper if any(deeper.count(d) > 1 for d in deeper) else [label] * len(held)
        else:
            labels += [label] * len(held)
    return labels


def _shown(label: tuple[str, ...]) -> str:
    """The last component, with the one before where it is a number alone."""
    return ".".join(label[-2:] if label[-1].isdigit() else label[-1:])
