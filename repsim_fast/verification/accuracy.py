"""Share of a data set that is verified: right, and so on every image of its ball."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from repsim_fast._core.borrow import borrow, call, model_dtype
from repsim_fast._core.checks import check_choice, check_number
from repsim_fast._core.files import replacing
from repsim_fast._core.headers import listed, parsed, record, text, truth
from repsim_fast._core.kept_memory import kept_memory
from repsim_fast._core.locks import only_writer
from repsim_fast._core.model_state import device_of, unwrap, usable_device
from repsim_fast.analysis.estimates import wilson_interval
from repsim_fast.data.digests import digests
from repsim_fast.data.labelled import LabelledImages, labelled
from repsim_fast.data.labels import check_fit, classes_of
from repsim_fast.data.samples import Samples

from .bounds import Method, margin_bounds
from .graph import Traced, fingerprint, trace
from .intervals import Bounds

_FILE = record({"settings": text(), "right": listed(truth), "verified": listed(truth)})


@dataclass(frozen=True)
class VerifiedAccuracy:
    """Accuracies in [0, 1] over ``n`` images.

    Attributes:
        clean: Share of images that are right.
        verified: Share that is right and proven to be on every image of its ball.
        low: Lower end of the 95 % Wilson interval of ``verified``.
        high: Its upper end.
        n: Images.
    """

    clean: float
    verified: float
    low: float
    high: float
    n: int


def verified_accuracy(
    model: nn.Module,
    data: Any,
    eps: float,
    *,
    method: Method = "crown-ibp",
    bounds: Bounds | None = (0.0, 1.0),
    batch_size: int = 32,
    chunk: int = 256,
    device: torch.device | str | None = None,
    progress: bool = False,
    resume: str | os.PathLike[str] | None = None,
) -> VerifiedAccuracy:
    """Share of images that no perturbation within an Linf ball can turn into another class.

    A lower limit of robust accuracy, as an attack's is an upper limit. The model runs in eval mode
    and comes back as it was.

    Args:
        model: As in ``output_bounds``, on images (N, ...).
        data: ``repsim_fast.data.ImageData``, a pair of tensors (images, labels), or a
            ``DataLoader`` or other iterable of such pairs with a length, in a fixed order.
        eps: Radius, in units of the images.
        method: "ibp", "crown-ibp" or "crown".
        bounds: As in ``output_bounds``.
        batch_size: Images at a time, where ``data`` does not come in batches.
        chunk: Neurons at a time whose bounds CROWN computes.
        device: Where to compute; default: where the model is.
        progress: Show a progress bar.
        resume: A JSON file that keeps what is known of each image after each batch; one that
            exists is gone on with, where weights, images (of batches the first) and settings are
            the same.

    Raises:
        ValueError: As ``output_bounds``; labels that are no classes of the model, of which there
            are two at least; a file of another model, other images or settings.
        TypeError: As ``output_bounds``; no module, weights in another dtype, a batch size that is
            not whole.
        RuntimeError: The device does not exist.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(model.weight)
        >>> images = torch.tensor([[0.9, 0.1], [0.55, 0.45]])
        >>> found = verified_accuracy(model, (images, torch.tensor([0, 0])), 0.1)
        >>> found.clean, found.verified
        (1.0, 0.5)
    """
    check_choice("method", method, get_args(Method))
    check_number("eps", eps)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module, got {type(model).__name__}")
    dtype = model_dtype(model, torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"model must have weights in torch.float32 or torch.float64, got {dtype}: bounds allow "
            "for the rounding of these alone; model.float() is verified as such"
        )
    held = labelled(data)
    where = device_of(model) if device is None else usable_device(device)
    how: dict[str, Any] = {"method": method, "bounds": bounds}
    path = None if resume is None else Path(resume)
    total = len(held.labels) if isinstance(held, Samples) else None
    with contextlib.ExitStack() as stack:
        if path is not None:
            stack.enter_context(only_writer(path))
        stack.enter_context(borrow(model, device=where, seed=0))
        traced = trace(unwrap(model))
        about = {"eps": float(eps), "data": _described(held), "model": fingerprint(traced)}
        settings = json.dumps({**how, **about}, default=Tensor.tolist)  # of bounds
        right, verified = _known(path, settings)
        stack.enter_context(kept_memory(where))
        stack.enter_context(held.reading(where))
        stack.enter_context(torch.no_grad())
        bar = stack.enter_context(_bar(total, progress))
        n = 0
        for x, labels in held.batches(batch_size, where):
            if n + len(labels) > len(right):
                new = slice(len(right) - n, None)
                images = x[new].to(model_dtype(model, x.dtype))
                answers, proven = _verify(traced, images, labels[new], eps, chunk, **how)
                right += answers
                verified += proven
                if path is not None:
                    _keep(path, settings, right, verified)
            n += len(labels)
            bar.update(len(labels))
    if n == 0:
        raise ValueError("data must hold at least one image, got none")
    if n < len(right):
        raise ValueError(f"resume: {str(path)!r} has {len(right):,} images, data have {n:,}")
    share = sum(verified) / n
    return VerifiedAccuracy(sum(right) / n, share, *wilson_interval(share, n), n)


def _described(data: LabelledImages) -> str:
    """What tells data from others: every number of images in memory, of batches of the first."""
    if isinstance(data, Samples):
        return f"{data.description}, images {_digest(digests(data.images))}"
    cpu = torch.device("cpu")
    with data.reading(cpu):
        first = next(iter(data.batches(1, cpu)), None)
    return f"{data.description}, first batch {_digest(*(first or ()))}"


def _digest(*parts: Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _verify(
    traced: Traced, x: Tensor, labels: Tensor, eps: float, chunk: int, **how: Any
) -> tuple[list[bool], list[bool]]:
    """Of each image whether it is right, and whether that is proven of its ball."""
    logits = call(traced.model, x)
    check_fit("data", labels, logits.shape[1])
    y = classes_of(labels)
    right = (logits.argmax(1) == y) & ~logits.isnan().any(1)
    proven = torch.zeros_like(right)
    if bool(right.any()):
        margins = margin_bounds(traced, x[right], y[right], eps, chunk=chunk, **how)
        others = torch.ones_like(margins, dtype=torch.bool).scatter_(
            1, y[right].unsqueeze(1), False
        )
        # A NaN is no proof.
        proven[right] = ((margins > 0) | ~others).all(1)
    return right.tolist(), proven.tolist()


def _known(path: Path | None, settings: str) -> tuple[list[bool], list[bool]]:
    """What an earlier run found."""
    if path is None or not path.exists():
        return [], []
    found = parsed(path.read_bytes(), _FILE, str(path))
    if found["settings"] != settings:
        raise ValueError(
            f"resume: {str(path)!r} is of {found['settings']}, not of {settings}; name another file"
        )
    if len(found["right"]) != len(found["verified"]):
        raise ValueError(f"resume: {str(path)!r} has lists of two lengths")
    return found["right"], found["verified"]


def _keep(path: Path, settings: str, right: list[bool], verified: list[bool]) -> None:
    with replacing(path) as temporary:
        content = {"settings": settings, "right": right, "verified": verified}
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _bar(total: int | None, shown: bool) -> Any:
    return tqdm(total=total, desc="verify", unit="img", disable=not shown, leave=False)
