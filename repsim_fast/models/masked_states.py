"""Weights under masks, as files of pruned networks have them, made those of the network itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

# Of `repsim_fast.pruning`, and of torch.nn.utils.prune: the weight underneath and its mask.
_FORMS = (
    (re.compile(r"^(.*?)parametrizations\.(\w+)\.original$"), "{0}parametrizations.{1}.0.keep"),
    (re.compile(r"^(.*?)(\w+)_orig$"), "{0}{1}_mask"),
)


def without_masks(state: Mapping[str, Tensor], wanted: Collection[str]) -> Mapping[str, Tensor]:
    """The state dict with masked weights as the network uses them, under their usual names.

    As it is for a network whose own names, ``wanted``, have masks of that form.
    """
    found = dict(state)
    for underneath, mask_name in _FORMS:
        if any(underneath.match(name) for name in wanted):
            continue
        for name, weight in state.items():
            if (parts := underneath.match(name)) is None:
                continue
            beside = mask_name.format(*parts.groups())
            mask = state.get(beside)
            if mask is not None and mask.shape == weight.shape:
                del found[name], found[beside]
                found["".join(parts.groups())] = torch.where(mask != 0, weight * mask, 0.0)
    return found
