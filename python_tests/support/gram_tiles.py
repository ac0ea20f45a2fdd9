"""Features and lower triangles of tiles, as the launchers of the CUDA Gram take and leave them."""

from __future__ import annotations

import itertools
from types import ModuleType

import torch
from torch import Tensor

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# Which operand types the features of a dtype can be rounded to, and those of a single pass.
OPERANDS = [
    ("float64", "float64"),
    *itertools.product(("float32", "float16", "bfloat16"), ("float32", "tf32", "bfloat16")),
]
SINGLE_PASS = [
    *(("float32", operand) for operand in ("float32", "tf32", "bfloat16")),
    ("float16", "bfloat16"),
    ("bfloat16", "bfloat16"),
]

# Largest relative error (norms) of a whole Gram: rounding of the operands, and accumulation.
GRAM_ERROR = {"float64": 1e-14, "float32": 1e-6, "tf32": 1e-3, "bfloat16": 6e-3}


def random_features(n: int, p: int, mean: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(n * 1000 + p)
    return torch.randn(n, p, generator=generator, dtype=torch.float64) + mean


def poisoned(*shape: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Memory whose every entry must be written."""
    return torch.full(shape, torch.nan, dtype=dtype, device=device)


def on_device(runner: ModuleType, x: Tensor) -> Tensor:
    """The same strides in a copy of the same storage, in the launchers' memory."""
    if x.device.type == runner.device.type:
        return x
    moved = torch.empty(0, dtype=x.dtype, device=runner.device)
    storage = x.untyped_storage().cuda()
    return moved.set_(storage, x.storage_offset(), x.size(), x.stride())


def aligned(x: Tensor) -> Tensor:
    """The same features with rows that start at 16 bytes, and NaN between them."""
    n, p = x.shape
    storage = poisoned(n, -(-p // 8) * 8 + 8, dtype=x.dtype)
    storage[:, :p] = x
    return storage[:, :p]


def lower_triangle(tiles: Tensor, n: int) -> Tensor:
    """What square tiles (count, side, side) hold, as one matrix (n, n); upper part zero."""
    side = tiles.shape[1]
    rows = -(-n // side)
    gram = tiles.new_zeros(rows * side, rows * side)
    for i, j in torch.tril_indices(rows, rows).T.tolist():
        square = tiles[i * (i + 1) // 2 + j]
        gram[i * side : (i + 1) * side, j * side : (j + 1) * side] = square
    return gram[:n, :n].tril()


def single_pass(
    runner: ModuleType,
    x: Tensor,
    operand: str,
    splits: int,
    *,
    centre: bool,
    study: ModuleType | None = None,
    version: int = 3,
) -> Tensor:
    """Lower triangle of the Gram by one pass over x; upper part zero. By the package's launcher,
    or by a version of the kernel study; those from 5 on have tiles of 64."""
    n, p = x.shape
    x = on_device(runner, aligned(x))
    operand_type = getattr(runner.ElementType, operand)
    side = runner.single_pass_tile(n, operand_type) if version < 5 else 64
    tiles = poisoned(splits, 10, side, side, dtype=torch.float32, device=runner.device)
    arguments = {
        "x": x.data_ptr(),
        "x_type": getattr(runner.ElementType, str(x.dtype).removeprefix("torch.")),
        **{"n": n, "p": p, "row_stride": x.stride(0)},
        "centre": centre,
        "operand_type": operand_type,
        "tile": side,
        "splits": splits,
        "gram": tiles.data_ptr(),
    }
    if study is None:
        runner.single_pass_product(**arguments)
    else:
        study.gram_version(version=version, **arguments)
    return lower_triangle(tiles[0].cpu(), n)
