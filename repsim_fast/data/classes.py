"""Classes by name: labels are their numbers, which differ where sets list them in other orders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def are_named(classes: Sequence[str]) -> bool:
    """Whether classes have names, and are not counted in place of them."""
    return [*classes] != [str(number) for number in range(len(classes))]


def numbers_in(classes: Sequence[str], wanted: Sequence[str]) -> Tensor | None:
    """The number that each class has among those wanted, by its name; None where one has none, or
    a name is that of several."""
    number = {name: i for i, name in enumerate(wanted)}
    once = len(number) == len(wanted) and len({*classes}) == len(classes)
    if not once or not {*classes} <= number.keys():
        return None
    return torch.tensor([number[name] for name in classes], dtype=torch.int64)


def difference(classes: Sequence[str], wanted: Sequence[str]) -> str:
    """In which class two lists that are not the same differ, in words."""
    for i, (one, other) in enumerate(zip(classes, wanted, strict=False)):
        if one != other:
            return f"class {i} is {one!r} rather than {other!r}"
    return f"{len(classes)} rather than {len(wanted)}"
