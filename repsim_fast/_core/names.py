"""Names of what users choose from, without what they stand for.

The command's help and completion list them and import nothing else of the rooms whose they are;
those hold their registers against these lists (``check_same``) or read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

MEASURES = (
    # similarities, then distances, each in alphabetical order
    "aligned_cosine",
    "bias_corrected_distance_correlation",
    "cca",
    "cka",
    "cka_rbf",
    "cka_sampled_features",
    "cknna",
    "cross_validated_cca",
    "cross_validated_pwcca",
    "cross_validated_svcca",
    "cycle_knn",
    "distance_correlation",
    "edit_distance_knn",
    "eigenspace_overlap",
    "hard_correlation_match",
    "jaccard_similarity",
    "joint_rank_jaccard",
    "lcs_knn",
    "linear_predictivity",
    "linear_regression",
    "mutual_knn",
    "procrustes_similarity",
    "pwcca",
    "rank_similarity",
    "ridge_predictivity",
    "rsa",
    "rv_coefficient",
    "second_order_cosine",
    "soft_correlation_match",
    "svcca",
    "angular_cka_distance",
    "angular_procrustes_distance",
    "bures_distance",
    "concentricity_difference",
    "gulp_distance",
    "intrinsic_multiscale_distance",
    "magnitude_difference",
    "permutation_procrustes_distance",
    "procrustes_distance",
    "rsm_norm_difference",
    "shape_distance",
    "soft_matching_distance",
    "uniformity_difference",
)
NETWORKS = (
    # capitals stand for a number or a name of the user's choice
    "resnet-digits",
    "resnet-D",
    "preactresnet-18",
    "preactresnet-18-wW",
    "wrn-D-K",
    "vgg-16",
    "vgg-16-wW",
    "cnn-small",
    "cnn-small-wW",
    "cnn-large",
    "cnn-large-wW",
    "torchvision:NAME",
    "timm:NAME",
)
METHODS = (
    "standard",
    "pgd",
    "trades",
    "mart",
    "fgsm",
    "rs-fgsm",
    "n-fgsm",
    "free",
    "gradalign",
    "noise",
    "smoothing",
    "ibp",
    "crown-ibp",
)
RECIPES = (
    "pgd-rice2020",
    "trades-zhang2019",
    "mart-wang2020",
    "rs-fgsm-wong2020",
    "n-fgsm-dejorge2022",
    "gradalign-andriushchenko2020",
    "standard-leavitt2020",
)
SCHEDULES = ("constant", "cosine", "cyclic", "step")
OPTIMIZERS = ("sgd", "adam", "adamw", "sam")
FrozenPart = Literal["statistics", "affine", "both"]
FROZEN_PARTS: tuple[FrozenPart, ...] = get_args(FrozenPart)


def check_same(names: Iterable[str], register: Iterable[str]) -> None:
    """Raises RuntimeError unless a register has exactly the names of its list, in their order.

    Example:
        >>> check_same(("one", "two"), {"one": 1, "two": 2})
        >>> check_same(("one", "two"), {"one": 1, "three": 3})
        Traceback (most recent call last):
        RuntimeError: names: expected those of _core/names.py, one, two; got one, three
    """
    if (wanted := [*names]) != (got := [*register]):
        raise RuntimeError(
            f"names: expected those of _core/names.py, {', '.join(wanted)}; got {', '.join(got)}"
        )
