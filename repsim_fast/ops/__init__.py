"""The compiled operators, documented; plain-torch twins of them are in `ops.reference`."""

from repsim_fast.ops import _registrations  # noqa: F401  (tells torch about the operators)
from repsim_fast.ops.cross import cross_gram
from repsim_fast.ops.eigh import batched_eigh
from repsim_fast.ops.gram import (
    CENTERINGS,
    MIN_SAMPLES,
    Centering,
    GramWriter,
    Precision,
    centered_gram,
    products_in,
    resolve_precision,
)
from repsim_fast.ops.pgd import (
    pgd_l1_step,
    pgd_l1_step_,
    pgd_l2_step,
    pgd_l2_step_,
    pgd_linf_step,
    pgd_linf_step_,
    project_l1_box,
    project_l1_box_,
    project_l2_box,
    project_l2_box_,
    project_linf_box,
    project_linf_box_,
    random_start,
    random_start_,
)
from repsim_fast.ops.svd import batched_nuclear_norm, batched_svd, batched_svdvals

__all__ = [
    "CENTERINGS",
    "MIN_SAMPLES",
    "Centering",
    "GramWriter",
    "Precision",
    "batched_eigh",
    "batched_nuclear_norm",
    "batched_svd",
    "batched_svdvals",
    "centered_gram",
    "cross_gram",
    "pgd_l1_step",
    "pgd_l1_step_",
    "pgd_l2_step",
    "pgd_l2_step_",
    "pgd_linf_step",
    "pgd_linf_step_",
    "products_in",
    "project_l1_box",
    "project_l1_box_",
    "project_l2_box",
    "project_l2_box_",
    "project_linf_box",
    "project_linf_box_",
    "random_start",
    "random_start_",
    "resolve_precision",
]
