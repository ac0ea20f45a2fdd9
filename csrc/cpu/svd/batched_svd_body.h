// One instruction set's version of the SVD kernels. batched_svd_kernels.cpp includes this file once
// for each level, inside a namespace and under the matching target pragma, with
// REPSIM_VECTOR_BYTES set; so neither this file nor its parts have an include guard.
//
// The order matters: each part uses the ones before it.
// clang-format off
#include "cpu/svd/batched_svd_body_lanes.h"
#include "cpu/svd/batched_svd_body_load.h"
#include "cpu/svd/batched_svd_body_sturm.h"
#include "cpu/svd/batched_svd_body_alone.h"
#include "cpu/svd/batched_svd_body_together.h"
#include "cpu/svd/batched_svd_body_jacobi.h"
// clang-format on

template <typename T>
inline constexpr SvdKernels<T> kSvdKernels = {
    .lanes = kLanes<T>,
    .values_together_workspace = &values_together_workspace<T>,
    .values_alone_workspace = &values_alone_workspace<T>,
    .svd_together_workspace = &svd_together_workspace<T>,
    .values_together = &values_together<T>,
    .values_alone = &values_alone<T>,
    .svd_together = &svd_together<T>,
};
