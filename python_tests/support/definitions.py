"""Every measure by its definition: float64, NumPy, written out, sharing no code with the library.

Slow and plain on purpose: other factorisations, loops over samples and neighbours, no batches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.spatial
import scipy.stats

Matrix = np.ndarray


def centred(x: Matrix) -> Matrix:
    return x - x.mean(axis=0)


def correlations(x: Matrix, y: Matrix) -> Matrix:
    """Square roots of the eigenvalues of Sxx⁻¹ Sxy Syy⁻¹ Syx (Hotelling)."""
    x, y = centred(x), centred(y)
    sxx, syy, sxy = x.T @ x, y.T @ y, x.T @ y
    product = np.linalg.solve(sxx, sxy) @ np.linalg.solve(syy, sxy.T)
    squares = np.sort(np.linalg.eigvals(product).real)[::-1]
    return np.sqrt(np.clip(squares[: min(x.shape[1], y.shape[1])], 0, None))


def cca(x: Matrix, y: Matrix, summary: str = "mean") -> float:
    rho = correlations(x, y)
    return float(rho.mean() if summary == "mean" else (rho**2).mean())


def principal(x: Matrix, variance: float | None, components: int | None) -> Matrix:
    """The first principal components, as scores of samples."""
    x = centred(x)
    values, vectors = np.linalg.eigh(x.T @ x)
    values, vectors = values[::-1], vectors[:, ::-1]
    if components is None:
        held = np.cumsum(values)  # whose end is all, where values.sum() may round otherwise
        components = 1 + int(np.argmax(held >= (variance or 0.99) * held[-1]))
    return x @ vectors[:, :components]


def svcca(
    x: Matrix,
    y: Matrix,
    variance: float | None = None,
    components: int | None = None,
    summary: str = "mean",
) -> float:
    x, y = principal(x, variance, components), principal(y, variance, components)
    return cca(x, y, summary)


def pwcca(x: Matrix, y: Matrix, side: str = "x") -> float:
    if side == "smaller":
        side = "x" if x.shape[1] <= y.shape[1] else "y"
    if side == "mean":
        return (pwcca(x, y, "x") + pwcca(x, y, "y")) / 2
    if side == "y":
        return pwcca(y, x, "x")
    x, y = centred(x), centred(y)
    # Directions w with Sxx⁻¹ Sxy Syy⁻¹ Syx w = ρ² w as a symmetric problem.
    sxx, syy, sxy = x.T @ x, y.T @ y, x.T @ y
    squares, w = scipy.linalg.eigh(sxy @ np.linalg.solve(syy, sxy.T), sxx)
    order = np.argsort(squares)[::-1][: min(x.shape[1], y.shape[1])]
    rho = np.sqrt(np.clip(squares[order], 0, None))
    variates = x @ w[:, order]
    variates /= np.linalg.norm(variates, axis=0)
    alpha = np.array([sum(abs(h @ feature) for feature in x.T) for h in variates.T])
    return float((alpha * rho).sum() / alpha.sum())


def nuclear(matrix: Matrix) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def procrustes_similarity(x: Matrix, y: Matrix) -> float:
    x, y = centred(x), centred(y)
    return nuclear(x.T @ y) / (np.linalg.norm(x) * np.linalg.norm(y))


def best_rotation(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """x rotated onto y, both padded to the same width."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(m, ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    rotation, _ = scipy.linalg.orthogonal_procrustes(x, y)
    return x @ rotation, y


def procrustes_distance(x: Matrix, y: Matrix) -> float:
    x, y = centred(x), centred(y)
    aligned, y = best_rotation(x / np.linalg.norm(x), y / np.linalg.norm(y))
    return float(np.linalg.norm(aligned - y) ** 2)


def angular_procrustes_distance(x: Matrix, y: Matrix) -> float:
    aligned, y = best_rotation(centred(x), centred(y))
    cosine = (aligned * y).sum() / (np.linalg.norm(aligned) * np.linalg.norm(y))
    return float(np.arccos(min(cosine, 1.0)))


def bures_distance(x: Matrix, y: Matrix) -> float:
    """Bures distance of the Grams, by matrix square roots."""
    k, other = (centred(m) @ centred(m).T for m in (x, y))
    values, vectors = np.linalg.eigh(k)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    squares = np.linalg.eigvalsh(root @ other @ root)
    fidelity = np.sqrt(squares[squares > 1e-13 * squares.max()]).sum()  # rounding has a root too
    return float(np.sqrt(np.trace(k) + np.trace(other) - 2 * fidelity))


def shape_distance(x: Matrix, y: Matrix, alpha: float = 1.0) -> float:
    whitened = []
    for m in (centred(x), centred(y)):
        root = np.linalg.pinv(scipy.linalg.sqrtm(m.T @ m).real, rcond=1e-6, hermitian=True)
        whitened.append(m @ (alpha * np.eye(m.shape[1]) + (1 - alpha) * root))
    aligned, other = best_rotation(*whitened)
    cosine = (aligned * other).sum() / (np.linalg.norm(aligned) * np.linalg.norm(other))
    return float(np.arccos(min(cosine, 1.0)))


def hsic(k: Matrix, m: Matrix, estimator: str) -> float:
    """Biased: tr(KHMH)/(n-1)². Unbiased: Song et al. 2012, eq. 5, with zero diagonals."""
    n = len(k)
    if estimator == "biased":
        h = np.eye(n) - 1 / n
        return float(np.trace(k @ h @ m @ h)) / (n - 1) ** 2
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float(total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def cka_of_kernels(k: Matrix, m: Matrix, estimator: str) -> float:
    own = np.sqrt(hsic(k, k, estimator) * hsic(m, m, estimator))
    return hsic(k, m, estimator) / own


def cka(x: Matrix, y: Matrix, estimator: str = "unbiased") -> float:
    return cka_of_kernels(x @ x.T, y @ y.T, estimator)


def rbf(x: Matrix, bandwidth: float) -> Matrix:
    squared = scipy.spatial.distance.cdist(x, x, "sqeuclidean")
    return np.exp(-squared / (2 * bandwidth**2 * np.median(squared)))


def cka_rbf(x: Matrix, y: Matrix, bandwidth: float = 0.5, estimator: str = "unbiased") -> float:
    return cka_of_kernels(rbf(x, bandwidth), rbf(y, bandwidth), estimator)


def cka_sampled_features(x: Matrix, y: Matrix, population: int | None = None) -> float:
    """HSIC₁ of the kernels of single features, one pair of features after the other."""

    def of_pairs(a: Matrix, b: Matrix) -> Matrix:
        of_a, of_b = ([np.outer(u, u) for u in m.T] for m in (a, b))
        return np.array([[hsic(k, other, "unbiased") for other in of_b] for k in of_a])

    def own(a: Matrix) -> float:
        p = a.shape[1]
        table = of_pairs(a, a)
        apart = (table.sum() - np.trace(table)) / (p * (p - 1))
        if population is None:
            return apart
        return ((population - 1) * apart + np.trace(table) / p) / population

    return float(of_pairs(x, y).mean() / np.sqrt(own(x) * own(y)))


def rv_coefficient(x: Matrix, y: Matrix) -> float:
    n = len(x)
    sxx, syy, sxy = (centred(a).T @ centred(b) / (n - 1) for a, b in ((x, x), (y, y), (x, y)))
    return float(np.trace(sxy @ sxy.T) / np.sqrt(np.trace(sxx @ sxx) * np.trace(syy @ syy)))


def linear_regression(x: Matrix, y: Matrix) -> float:
    """Least squares of every feature of x on y with an intercept; total R²."""
    design = np.column_stack([np.ones(len(y)), y])
    fitted = design @ np.linalg.lstsq(design, x, rcond=None)[0]
    return float(1 - ((x - fitted) ** 2).sum() / (centred(x) ** 2).sum())


def splits(n: int, folds: int, seed: int) -> list[tuple[Matrix, Matrix]]:
    """Samples fitted and samples held out: in a random order, every folds-th to the same fold."""
    import torch

    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    held_out = [np.sort(order[f::folds]) for f in range(folds)]
    return [(np.setdiff1d(np.arange(n), held), held) for held in held_out]


def variates(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """Directions of canonical variates in each set of features, most correlated first."""
    x, y = centred(x), centred(y)
    sxx, syy, sxy = x.T @ x, y.T @ y, x.T @ y
    squares, a = scipy.linalg.eigh(sxy @ np.linalg.solve(syy, sxy.T), sxx)
    a = a[:, np.argsort(squares)[::-1]][:, : min(x.shape[1], y.shape[1])]
    return a, np.linalg.solve(syy, sxy.T @ a)


def cross_validated_cca(
    x: Matrix, y: Matrix, folds: int = 5, seed: int = 0, weighted: bool = False, reduce=None
) -> float:
    total = 0.0
    for fitted, held in splits(len(x), folds, seed):
        axes = [np.eye(m.shape[1]) if reduce is None else reduce(m[fitted]) for m in (x, y)]
        a, b = (m @ axis for m, axis in zip((x, y), axes, strict=True))
        of_a, of_b = variates(a[fitted], b[fitted])
        found = [
            np.corrcoef(a[held] @ u, b[held] @ v)[0, 1] for u, v in zip(of_a.T, of_b.T, strict=True)
        ]
        weights = np.ones(len(found))
        if weighted:
            h = centred(a[fitted]) @ of_a
            h /= np.linalg.norm(h, axis=0)
            weights = np.abs(h.T @ centred(x[fitted])).sum(axis=1)
        total += len(held) / len(x) * float(weights @ found / weights.sum())
    return total


def cross_validated_pwcca(x: Matrix, y: Matrix, folds: int = 5, seed: int = 0) -> float:
    return cross_validated_cca(x, y, folds, seed, weighted=True)


def cross_validated_svcca(
    x: Matrix,
    y: Matrix,
    variance: float | None = None,
    components: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> float:
    def axes(fitted: Matrix) -> Matrix:
        scores = principal(fitted, variance, components)
        return np.linalg.lstsq(centred(fitted), scores, rcond=None)[0]

    return cross_validated_cca(x, y, folds, seed, reduce=axes)


def predictivity(x: Matrix, y: Matrix, folds: int, seed: int, fit) -> float:
    errors, total = 0.0, 0.0
    for fitted, held in splits(len(x), folds, seed):
        mean_x, mean_y = x[fitted].mean(axis=0), y[fitted].mean(axis=0)
        coefficients = fit(x[fitted], y[fitted])
        predicted = mean_x + (y[held] - mean_y) @ coefficients
        errors += ((x[held] - predicted) ** 2).sum()
        total += ((x[held] - mean_x) ** 2).sum()
    return float(1 - errors / total)


def linear_predictivity(x: Matrix, y: Matrix, folds: int = 5, seed: int = 0) -> float:
    def fit(x: Matrix, y: Matrix) -> Matrix:
        return np.linalg.lstsq(centred(y), centred(x), rcond=None)[0]

    return predictivity(x, y, folds, seed, fit)


def ridge_coefficients(x: Matrix, y: Matrix, penalty: float) -> Matrix:
    x, y = centred(x), centred(y)
    return np.linalg.solve(y.T @ y + penalty * np.eye(y.shape[1]), y.T @ x)


def ridge_predictivity(
    x: Matrix, y: Matrix, ridge: float | None = None, folds: int = 5, seed: int = 0
) -> float:
    """The ridge of the smallest error when every sample is left out in turn and all fitted anew."""

    def fit(x: Matrix, y: Matrix) -> Matrix:
        size = (centred(y) ** 2).sum()
        chosen = ridge
        if chosen is None:
            candidates = [10 ** (-6 + k / 2) for k in range(15)]
            errors = []
            for candidate in candidates:
                error = 0.0
                for i in range(len(x)):
                    a, b = np.delete(x, i, axis=0), np.delete(y, i, axis=0)
                    coefficients = ridge_coefficients(a, b, candidate * size)
                    predicted = a.mean(axis=0) + (y[i] - b.mean(axis=0)) @ coefficients
                    error += ((x[i] - predicted) ** 2).sum()
                errors.append(error)
            chosen = candidates[int(np.argmin(errors))]
        return ridge_coefficients(x, y, chosen * size)

    return predictivity(x, y, folds, seed, fit)


def eigenspace_overlap(x: Matrix, y: Matrix) -> float:
    u = np.linalg.svd(x, full_matrices=False)[0][:, : np.linalg.matrix_rank(x)]
    v = np.linalg.svd(y, full_matrices=False)[0][:, : np.linalg.matrix_rank(y)]
    return float(np.linalg.norm(u.T @ v) ** 2 / max(x.shape[1], y.shape[1]))


def gulp_distance(x: Matrix, y: Matrix, ridge: float = 1e-2) -> float:
    n = len(x)
    x, y = (np.sqrt(n) * centred(m) / np.linalg.norm(centred(m)) for m in (x, y))
    s, t, c = x.T @ x / n, y.T @ y / n, x.T @ y / n
    s_inverse = np.linalg.inv(s + ridge * np.eye(len(s)))
    t_inverse = np.linalg.inv(t + ridge * np.eye(len(t)))
    squared = (
        np.trace(s_inverse @ s @ s_inverse @ s)
        + np.trace(t_inverse @ t @ t_inverse @ t)
        - 2 * np.trace(s_inverse @ c @ t_inverse @ c.T)
    )
    return float(np.sqrt(max(squared, 0)))


def covariance_of_distances(n: int) -> Matrix:
    """Of squared distances of unrelated samples, up to a factor (Diedrichsen et al. 2021): squares
    of the inner products of the contrasts of pairs of samples, in the order of pdist."""
    contrasts = np.array([np.eye(n)[i] - np.eye(n)[j] for i in range(n) for j in range(i + 1, n)])
    return (contrasts @ contrasts.T) ** 2


def rsa(x: Matrix, y: Matrix, rdm: str = "correlation", comparison: str = "spearman") -> float:
    a, b = (scipy.spatial.distance.pdist(m, rdm) for m in (x, y))
    m = len(a)
    if comparison == "spearman":
        return float(scipy.stats.spearmanr(a, b).statistic)
    if comparison == "rho_a":
        ranks = scipy.stats.rankdata(a) @ scipy.stats.rankdata(b)
        return float(12 * ranks / (m**3 - m) - 3 * (m + 1) / (m - 1))
    if comparison == "tau_a":
        total = sum(float(np.sign(a[i] - a[:i]) @ np.sign(b[i] - b[:i])) for i in range(m))
        return total / (m * (m - 1) / 2)
    if comparison == "pearson":
        return float(np.corrcoef(a, b)[0, 1])
    if comparison == "cosine":
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))
    if comparison == "whitened_pearson":
        a, b = a - a.mean(), b - b.mean()
    of_a, of_b = np.linalg.solve(covariance_of_distances(len(x)), np.stack([a, b], axis=1)).T
    return float(a @ of_b / np.sqrt((a @ of_a) * (b @ of_b)))


def distance_correlation(x: Matrix, y: Matrix) -> float:
    a, b = (scipy.spatial.distance.cdist(m, m) for m in (x, y))
    a, b = (d - d.mean(0) - d.mean(1)[:, None] + d.mean() for d in (a, b))
    return float(np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())))


def bias_corrected_distance_correlation(x: Matrix, y: Matrix) -> float:
    """As Székely and Rizzo write it: A*, with its diagonal apart, and n(n - 3)/2 degrees."""
    n = len(x)

    def starred(m: Matrix) -> Matrix:
        d = scipy.spatial.distance.cdist(m, m)
        means, mean = d.sum(axis=1) / n, d.mean()
        centred = d - means[:, None] - means[None, :] + mean
        centred = n / (n - 1) * (centred - d / n)
        np.fill_diagonal(centred, n / (n - 1) * (means - mean))
        return centred

    def product(a: Matrix, b: Matrix) -> float:
        total = (a * b).sum()
        return float(total - n / (n - 2) * np.diag(a) @ np.diag(b))

    a, b = starred(x), starred(y)
    return product(a, b) / np.sqrt(product(a, a) * product(b, b))


def angular_cka_distance(x: Matrix, y: Matrix) -> float:
    return float(np.arccos(min(1.0, cka(x, y, "biased"))))


def rsm_norm_difference(x: Matrix, y: Matrix) -> float:
    a, b = (scipy.spatial.distance.cdist(m, m) for m in (x, y))
    return float(np.sqrt(((a - b) ** 2).sum()))


def nearest(x: Matrix, k: int, metric: str) -> list[list[int]]:
    distances = scipy.spatial.distance.cdist(x, x, metric)
    order = []
    for i, row in enumerate(distances):
        others = [j for j in np.argsort(row, kind="stable") if j != i]
        order.append([int(j) for j in others[:k]])
    return order


def over_neighbours(
    x: Matrix, y: Matrix, k: int, metric: str, of: Callable[[list[int], list[int]], float]
) -> float:
    both = zip(nearest(x, k, metric), nearest(y, k, metric), strict=True)
    return float(np.mean([of(a, b) for a, b in both]))


def mutual_knn(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    return over_neighbours(x, y, k, metric, lambda a, b: len(set(a) & set(b)) / k)


def jaccard(a: list[int], b: list[int]) -> float:
    return len(set(a) & set(b)) / len(set(a) | set(b))


def rank(a: list[int], b: list[int]) -> float:
    shared = set(a) & set(b)
    total = 0.0
    for j in shared:
        r, s = a.index(j) + 1, b.index(j) + 1
        total += 2 / ((1 + abs(r - s)) * (r + s))
    return total / sum(1 / m for m in range(1, len(shared) + 1)) if shared else 0.0


def jaccard_similarity(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    return over_neighbours(x, y, k, metric, jaccard)


def rank_similarity(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    return over_neighbours(x, y, k, metric, rank)


def joint_rank_jaccard(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    return over_neighbours(x, y, k, metric, lambda a, b: jaccard(a, b) * rank(a, b))


def cycle_knn(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    of_x, of_y = nearest(x, k, metric), nearest(y, k, metric)
    return float(np.mean([any(i in of_x[j] for j in of_y[i]) for i in range(len(x))]))


def longest_common(a: list[int], b: list[int]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            both = table[i][j] + 1 if left == right else 0
            table[i + 1][j + 1] = max(both, table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def lcs_knn(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    return over_neighbours(x, y, k, metric, lambda a, b: longest_common(a, b) / k)


def edits(a: list[int], b: list[int]) -> int:
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i, left in enumerate(a, start=1):
        for j, right in enumerate(b, start=1):
            replaced = table[i - 1, j - 1] + (left != right)
            table[i, j] = min(replaced, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[len(a), len(b)]


def edit_distance_knn(x: Matrix, y: Matrix, k: int = 10, metric: str = "cosine") -> float:
    return over_neighbours(x, y, k, metric, lambda a, b: 1 - edits(a, b) / k)


def cknna(x: Matrix, y: Matrix, k: int = 10) -> float:
    kernels = [1 - scipy.spatial.distance.cdist(m, m, "cosine") for m in (x, y)]
    kernels = [kernel - kernel.mean(axis=1, keepdims=True) for kernel in kernels]
    lists = [nearest(m, k, "cosine") for m in (x, y)]

    def align(a: int, b: int) -> float:
        return sum(
            kernels[a][i, j] * kernels[b][i, j]
            for i in range(len(x))
            for j in set(lists[a][i]) & set(lists[b][i])
        )

    return float(align(0, 1) / np.sqrt(align(0, 0) * align(1, 1)))


def cosine(a: Matrix, b: Matrix) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def second_order_cosine(x: Matrix, y: Matrix, k: int = 10) -> float:
    values = []
    neighbours = zip(nearest(x, k, "cosine"), nearest(y, k, "cosine"), strict=True)
    for i, (a, b) in enumerate(neighbours):
        union = sorted(set(a) | set(b))
        ours = np.array([cosine(x[i], x[j]) for j in union])
        theirs = np.array([cosine(y[i], y[j]) for j in union])
        values.append(cosine(ours, theirs))
    return float(np.mean(values))


def feature_correlations(x: Matrix, y: Matrix) -> Matrix:
    return np.array([[np.corrcoef(a, b)[0, 1] for b in y.T] for a in x.T])


def hard_correlation_match(x: Matrix, y: Matrix) -> float:
    table = feature_correlations(x, y)
    return float(table[scipy.optimize.linear_sum_assignment(-table)].mean())


def soft_correlation_match(x: Matrix, y: Matrix) -> float:
    table = feature_correlations(x, y)
    return float((table.max(axis=1).mean() + table.max(axis=0).mean()) / 2)


def permutation_procrustes_distance(x: Matrix, y: Matrix) -> float:
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(m, ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    costs = np.array([[((a - b) ** 2).sum() for b in y.T] for a in x.T])
    return float(np.sqrt(costs[scipy.optimize.linear_sum_assignment(costs)].sum()))


def aligned_cosine(x: Matrix, y: Matrix) -> float:
    aligned, y = best_rotation(x, y)
    return float(np.mean([cosine(a, b) for a, b in zip(aligned, y, strict=True)]))


def soft_matching_distance(x: Matrix, y: Matrix, standardise: bool = False) -> float:
    """By assignment of as many copies of each feature as make both sides equal."""
    if standardise:
        x, y = (centred(m) / np.linalg.norm(centred(m), axis=0) for m in (x, y))
    p, q = x.shape[1], y.shape[1]
    size = np.lcm(p, q)
    x, y = np.repeat(x, size // p, axis=1), np.repeat(y, size // q, axis=1)
    costs = scipy.spatial.distance.cdist(x.T, y.T, "sqeuclidean")
    return float(np.sqrt(costs[scipy.optimize.linear_sum_assignment(costs)].mean()))


def magnitude_difference(x: Matrix, y: Matrix) -> float:
    return float(abs(np.linalg.norm(x.mean(axis=0)) - np.linalg.norm(y.mean(axis=0))))


def concentricity_difference(x: Matrix, y: Matrix) -> float:
    values = [np.mean([cosine(row, m.mean(axis=0)) for row in m]) for m in (x, y)]
    return float(abs(values[0] - values[1]))


def uniformity_difference(x: Matrix, y: Matrix, t: float = 2.0) -> float:
    values = [
        np.log(np.exp(-t * scipy.spatial.distance.cdist(m, m, "sqeuclidean")).mean())
        for m in (x, y)
    ]
    return float(abs(values[0] - values[1]))


def intrinsic_multiscale_distance(x: Matrix, y: Matrix, k: int = 5) -> float:
    traces = []
    times = 10 ** np.linspace(-1, 1, 256)
    for m in (x, y):
        graph = np.zeros((len(m), len(m)))
        for i, neighbours in enumerate(nearest(m, k, "euclidean")):
            for j in neighbours:
                graph[i, j] = graph[j, i] = 1
        degree = graph.sum(axis=1)
        laplacian = np.eye(len(m)) - graph / np.sqrt(np.outer(degree, degree))
        eigenvalues = np.linalg.eigvalsh(laplacian)
        traces.append(np.array([np.exp(-t * eigenvalues).mean() for t in times]))
    return float(max(np.exp(-2 * (times + 1 / times)) * np.abs(traces[0] - traces[1])))


def of_few_features() -> list[str]:
    """Measures that have a value for any features; another estimates what those of a population
    have in common, which a few that are independent have not."""
    from repsim_fast.similarity import measure_names

    return [name for name in measure_names() if name != "cka_sampled_features"]


def all_definitions() -> dict[str, Callable[..., float]]:
    """Definitions by the name of the measure."""
    from repsim_fast.similarity import measure_names

    return {name: globals()[name] for name in measure_names()}
