"""Blocks of alike layers in a map of similarities, found without knowing where they might be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repsim_fast._core.checks import check_seed

from .grids import Array, as_array

__all__ = ["Blocks", "find_blocks"]

# Layers on either side of a border: a single layer has no pair within its block.
_LEAST = 2
# Rounds of fitting the surrogates' freedom, each of so many maps; more change it by a few percent.
_ROUNDS, _TRIALS = 4, 40
_FREEDOM = (2, 4000)  # at 4,000 the surrogates are their mean to within 0.02
# What a map strays by at least: a stationary one is divided by it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Blocks:
    """Contiguous blocks of layers, and how sure each border between them is.

    Attributes:
        borders: Positions of the first layer after each border, ascending.
        p_values: Of each border: how often decay with distance alone has as sharp a border
            anywhere in the map.
        p_value: Of the sharpest place in the map, whether it counts as a border or not; 1 where
            similarity drops by ``least`` nowhere.
        layers: Number of layers.
    """

    borders: tuple[int, ...]
    p_values: tuple[float, ...]
    p_value: float
    layers: int

    @property
    def ranges(self) -> tuple[range, ...]:
        """The positions of each block's layers; one block where there is no border."""
        ends = (0, *self.borders, self.layers)
        return tuple(map(range, ends[:-1], ends[1:]))


def find_blocks(
    grid: Array, *, level: float = 0.05, least: float = 0.02, surrogates: int = 199, seed: int = 0
) -> Blocks:
    """Borders at which similarity drops at once, tested against decay with distance.

    At a place b between two layers and in a window of w layers on both sides, at each distance d
    the mean of pairs left and right of b, minus that of pairs across it, averaged over d < w:

        c(b, w) = mean_d [ (within left + within right) / 2 - across ]

    Similarity that falls with distance has 0 on average, also where it falls faster and faster;
    a sudden drop does not. Surrogates are correlations of stationary Gaussian features: their mean
    at each distance is the map's, and they have so few samples that they stray from it as much as
    the map does. Each c is divided by the deviation of its map from its means, then by the
    spread of that over the surrogates; a place has its largest over
    w; p values count surrogates whose largest anywhere is at least that. Borders nearer to a
    sharper one than half its window are taken for part of it.

    Args:
        grid: (layers, layers) similarities of a network's layers, in order of execution; at least
            4 of them. An asymmetric map counts with its transpose.
        level: Borders have at most this p value.
        least: Similarity by which it drops at a border, c(b, w), at least: what is smaller makes
            no blocks, however unlike chance. Rounding and few images roughen a map, which the
            surrogates' smooth straying has no measure for.
        surrogates: Maps drawn; p values are multiples of 1 / (surrogates + 1).
        seed: Of the surrogates.

    Returns:
        The blocks. Of maps of features with decay alone, at most one in ten has a border at level
        0.05, whatever their number of layers and kind of decay
        (``python_tests/analysis/test_blocks.py``).

    Raises:
        ValueError: A map that is not square, too small, or not known everywhere; no surrogates.

    Example:
        >>> import numpy as np
        >>> stage = np.repeat([0, 1, 2], 5)
        >>> apart = np.abs(np.subtract.outer(np.arange(15), np.arange(15)))
        >>> find_blocks(0.6 * 0.8**apart + 0.4 * np.equal.outer(stage, stage)).borders
        (5, 10)

    References:
        Kornblith et al., "Similarity of neural network representations revisited", section 6.3,
        2019, and Nguyen et al., "Do wide and deep networks learn the same things?", 2021, for the
        blocks; Foote, "Automatic audio segmentation using a measure of audio novelty", 2000, for
        contrasts along the diagonal.
    """
    values = _checked(grid)
    if surrogates < 1:
        raise ValueError(f"surrogates: expected at least 1, got {surrogates}")
    drawn = _surrogates(values, surrogates, np.random.default_rng(check_seed(seed)))
    places, contrasts = _contrasts(values[None])
    _, theirs = _contrasts(drawn)
    # Each in units of its own map's deviation, which one map tells roughly only.
    own, theirs = contrasts / _deviation(values[None])[:, None], theirs / _deviation(drawn)[:, None]
    spread = theirs.std(0)
    scale = np.where(spread > 0, spread, np.inf)
    sharp = ((own - theirs.mean(0)) / scale)[0]
    largest = ((theirs - theirs.mean(0)) / scale).max(1)
    window: dict[int, int] = {}
    sharpest: dict[int, float] = {}
    for (b, w), value, contrast in zip(places, sharp, contrasts[0], strict=True):
        if contrast >= least and value > sharpest.get(b, -np.inf):
            sharpest[b], window[b] = float(value), w
    p = {b: (1 + int((largest >= value).sum())) / (1 + surrogates) for b, value in sharpest.items()}
    chosen: list[int] = []
    for b in sorted(sharpest, key=lambda b: -sharpest[b]):
        if p[b] <= level and all(abs(b - c) >= max(_LEAST, window[c] // 2) for c in chosen):
            chosen.append(b)
    chosen.sort()
    return Blocks(
        tuple(chosen), tuple(p[b] for b in chosen), min(p.values(), default=1.0), len(values)
    )


def _checked(grid: Array) -> Array:
    grid = as_array(grid)
    if grid.ndim != 2 or grid.shape[0] != grid.shape[1]:
        raise ValueError(f"grid: expected as many rows as columns, got shape {grid.shape}")
    if len(grid) < 2 * _LEAST:
        raise ValueError(f"grid: expected at least {2 * _LEAST} layers, got {len(grid)}")
    both: Array = (grid + grid.T) / 2
    if not np.isfinite(both).all():
        raise ValueError(
            "grid: expected known similarities, "
            f"{int((~np.isfinite(both)).sum())} cells have others"
        )
    return both


def _contrasts(maps: Array) -> tuple[list[tuple[int, int]], Array]:
    """Places and windows (b, w), and c(b, w) of each map: (maps, layers, layers) -> (maps, all)."""
    count, layers, _ = maps.shape
    zero = np.zeros((count, 1))
    # Sums along each diagonal: pair i of diagonal d is that of layers i and i + d.
    sums = [np.concatenate([zero, np.diagonal(maps, d, 1, 2).cumsum(1)], 1) for d in range(layers)]
    places, contrasts = [], []
    for b in range(_LEAST, layers - _LEAST + 1):
        for w in range(_LEAST, min(b, layers - b) + 1):
            total = np.zeros(count)
            for d in range(1, w):
                s = sums[d]
                within = s[:, b - d] - s[:, b - w] + s[:, b + w - d] - s[:, b]
                total += within / (2 * (w - d)) - (s[:, b] - s[:, b - d]) / d
            places.append((b, w))
            contrasts.append(total / (w - 1))
    return places, np.stack(contrasts, 1)


def _surrogates(grid: Array, count: int, generator: np.random.Generator) -> Array:
    """Maps (count, layers, layers) with the grid's mean at each distance, and its deviation."""
    root = _root(_decay(grid))
    wanted = _deviation(grid[None])
    freedom = 50
    for _ in range(_ROUNDS):
        ratios = _deviation(_correlations(root, freedom, _TRIALS, generator)) / wanted
        # The deviation falls with the root of the freedom.
        freedom = int(np.clip(round(freedom * np.median(ratios) ** 2), *_FREEDOM))
    return _correlations(root, freedom, count, generator)


def _decay(grid: Array) -> Array:
    """The stationary map: the mean at each distance everywhere."""
    layers = len(grid)
    means = np.array([1.0, *(np.diagonal(grid, d).mean() for d in range(1, layers))])
    rows, columns = np.indices(grid.shape)
    stationary: Array = means[np.abs(rows - columns)]
    return stationary


def _root(stationary: Array) -> Array:
    """R with R R^T the nearest correlation matrix in the sense of clipped eigenvalues."""
    values, vectors = np.linalg.eigh(stationary)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    scaled: Array = root / np.linalg.norm(root, axis=1, keepdims=True)
    return scaled


def _correlations(root: Array, freedom: int, count: int, generator: np.random.Generator) -> Array:
    """Uncentred correlations of layers, each map from so many Gaussian samples."""
    layers = len(root)
    if freedom < layers:
        features = generator.standard_normal((count, freedom, layers)) @ root.T
        products = features.transpose(0, 2, 1) @ features
    else:  # Bartlett's decomposition, whose cost does not grow with the samples
        factor = np.tril(generator.standard_normal((count, layers, layers)), -1)
        chi = np.sqrt(generator.chisquare(freedom - np.arange(layers), (count, layers)))
        factor[:, np.arange(layers), np.arange(layers)] = chi
        mixed = root @ factor
        products = mixed @ mixed.transpose(0, 2, 1)
    norms = np.sqrt(np.diagonal(products, 0, 1, 2))
    correlations: Array = products / (norms[:, :, None] * norms[:, None, :])
    return correlations


def _deviation(maps: Array) -> Array:
    """How far each map strays from its mean at each distance, root of mean square, (maps,)."""
    layers = maps.shape[-1]
    strays = [
        own - own.mean(1, keepdims=True)
        for own in (np.diagonal(maps, d, 1, 2) for d in range(1, layers - 1))
    ]
    size: Array = np.sqrt(np.square(np.concatenate(strays, 1)).mean(1))
    return size + _ROUNDING
