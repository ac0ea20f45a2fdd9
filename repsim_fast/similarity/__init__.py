"""Measures of similarity between representations (n_samples, n_features).

Each measure is a function of two matrices (tensors or NumPy arrays) or prepared representations.
`grid` computes any of them for all pairs of many representations, `jackknife`, `bootstrap` and
`permutation_test` say how far to trust the values, `measures_table` lists them with their
properties.
"""

from repsim_fast.similarity.base.measure import (
    Info,
    Measure,
    get_measure,
    measure_info,
    measure_names,
    measures_table,
)
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError, prepare
from repsim_fast.similarity.base.store import FeatureStore
from repsim_fast.similarity.chance import Calibration, calibrate, calibrated, chance_level
from repsim_fast.similarity.grid import grid
from repsim_fast.similarity.inference import (
    PermutationTest,
    Resampled,
    bootstrap,
    jackknife,
    permutation_test,
)
from repsim_fast.similarity.measures.angular_cka import angular_cka_distance
from repsim_fast.similarity.measures.cca import canonical_correlations, cca
from repsim_fast.similarity.measures.cka import cka
from repsim_fast.similarity.measures.cka_rbf import cka_rbf
from repsim_fast.similarity.measures.cross_validated_cca import (
    cross_validated_cca,
    cross_validated_pwcca,
    cross_validated_svcca,
)
from repsim_fast.similarity.measures.matching import (
    aligned_cosine,
    hard_correlation_match,
    permutation_procrustes_distance,
    soft_correlation_match,
    soft_matching_distance,
)
from repsim_fast.similarity.measures.multiscale import intrinsic_multiscale_distance
from repsim_fast.similarity.measures.neighbour_variants import (
    cknna,
    cycle_knn,
    edit_distance_knn,
    lcs_knn,
)
from repsim_fast.similarity.measures.neighbours import (
    jaccard_similarity,
    joint_rank_jaccard,
    mutual_knn,
    rank_similarity,
    second_order_cosine,
)
from repsim_fast.similarity.measures.predictivity import (
    linear_predictivity,
    ridge_predictivity,
)
from repsim_fast.similarity.measures.procrustes import (
    angular_procrustes_distance,
    bures_distance,
    procrustes_distance,
    procrustes_similarity,
    shape_distance,
)
from repsim_fast.similarity.measures.pwcca import pwcca
from repsim_fast.similarity.measures.regression import (
    eigenspace_overlap,
    gulp_distance,
    linear_regression,
)
from repsim_fast.similarity.measures.rsa import (
    bias_corrected_distance_correlation,
    distance_correlation,
    rsa,
    rsm_norm_difference,
)
from repsim_fast.similarity.measures.rv_coefficient import rv_coefficient
from repsim_fast.similarity.measures.sampled_features import cka_sampled_features
from repsim_fast.similarity.measures.statistics import (
    concentricity_difference,
    magnitude_difference,
    uniformity_difference,
)
from repsim_fast.similarity.measures.svcca import svcca
from repsim_fast.similarity.streaming.minibatch import CKAEstimate, MinibatchCKA

__all__ = [
    "CKAEstimate",
    "Calibration",
    "FeatureStore",
    "Info",
    "Measure",
    "MinibatchCKA",
    "PermutationTest",
    "Prepared",
    "Resampled",
    "UndefinedError",
    "aligned_cosine",
    "angular_cka_distance",
    "angular_procrustes_distance",
    "bias_corrected_distance_correlation",
    "bootstrap",
    "bures_distance",
    "calibrate",
    "calibrated",
    "canonical_correlations",
    "cca",
    "chance_level",
    "cka",
    "cka_rbf",
    "cka_sampled_features",
    "cknna",
    "concentricity_difference",
    "cross_validated_cca",
    "cross_validated_pwcca",
    "cross_validated_svcca",
    "cycle_knn",
    "distance_correlation",
    "edit_distance_knn",
    "eigenspace_overlap",
    "get_measure",
    "grid",
    "gulp_distance",
    "hard_correlation_match",
    "intrinsic_multiscale_distance",
    "jaccard_similarity",
    "jackknife",
    "joint_rank_jaccard",
    "lcs_knn",
    "linear_predictivity",
    "linear_regression",
    "magnitude_difference",
    "measure_info",
    "measure_names",
    "measures_table",
    "mutual_knn",
    "permutation_procrustes_distance",
    "permutation_test",
    "prepare",
    "procrustes_distance",
    "procrustes_similarity",
    "pwcca",
    "rank_similarity",
    "ridge_predictivity",
    "rsa",
    "rsm_norm_difference",
    "rv_coefficient",
    "second_order_cosine",
    "shape_distance",
    "soft_correlation_match",
    "soft_matching_distance",
    "svcca",
    "uniformity_difference",
]
