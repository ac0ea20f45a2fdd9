"""The compiled operators, documented; plain-torch twins of them are in `ops.reference`."""

from repsim_fast.ops.centering import CENTERINGS, MIN_SAMPLES, Centering
from repsim_fast.ops.directions import Scalar
from repsim_fast.ops.extension import build_info
from repsim_fast.ops.gram.centered_gram import (
    Precision,
    centered_gram,
    products_in,
    resolve_precision,
)
from repsim_fast.ops.gram.cross_gram import cross_gram
from repsim_fast.ops.norm.batch_norm_relu import batch_norm_relu
from repsim_fast.ops.pgd.arguments import NORMS, ORDERS, Bounds, Norm, Order
from repsim_fast.ops.pgd.pgd_l1_step import (
    pgd_l1_step,
    pgd_l1_step_,
    project_l1_box,
    project_l1_box_,
)
from repsim_fast.ops.pgd.pgd_l2_step import (
    pgd_l2_step,
    pgd_l2_step_,
    project_l2_box,
    project_l2_box_,
)
from repsim_fast.ops.pgd.pgd_linf_step import (
    pgd_linf_step,
    pgd_linf_step_,
    project_linf_box,
    project_linf_box_,
)
from repsim_fast.ops.pgd.random_start import random_start, random_start_
from repsim_fast.ops.svd.batched_eigh import batched_eigh
from repsim_fast.ops.svd.batched_nuclear_norm import batched_nuclear_norm
from repsim_fast.ops.svd.batched_svd import batched_svd
from repsim_fast.ops.svd.batched_svdvals import batched_svdvals

__all__ = [
    "CENTERINGS",
    "MIN_SAMPLES",
    "NORMS",
    "ORDERS",
    "Bounds",
    "Centering",
    "Norm",
    "Order",
    "Precision",
    "Scalar",
    "batch_norm_relu",
    "batched_eigh",
    "batched_nuclear_norm",
    "batched_svd",
    "batched_svdvals",
    "build_info",
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
