// Words for Hopper's products by warpgroups (sm_90a): four warps together multiply rows of bfloat16
// straight from shared memory, while their threads do something else.
//
//   swizzled(row, byte)       where a byte of a row lies in a matrix of 128-byte rows in shared
//                             memory that starts at a multiple of 1024 bytes: 64 operands a row
//   share_with_units()        by every thread that wrote to such a matrix; then a barrier
//   begin_products()          by all threads of the warpgroup, before the first multiply_rows of a
//                             group
//   multiply_rows(d, a, b)    d (64, N) += a (64 rows) b (N rows)^T over 32 bytes of each row, N =
//                             64 or 128; a, b: a row whose number is a multiple of 8, plus 0, 32,
//                             64 or 96 bytes
//   commit_products()         closes a group of products
//   wait_products<kPending>() until all but the kPending newest groups are done: before that d
//                             must not be touched, nor a and b be written
//   warpgroup_products_available()  on the host: whether this device has them
//
// d: lane l of warp w holds rows 16 w + l / 4 + {0, 8}, columns 8 j + 2 (l % 4) + {0, 1} in
// d[4 j + {0, 2} + {0, 1}].
#pragma once

#include "cuda/portability/portability.h"

namespace repsim_fast {

constexpr int kWarpgroupSize = 4 * static_cast<int>(kWarpSize);
constexpr int kUnitRowBytes = 128;

// Eight neighbouring rows keep equal columns in different banks: 16-byte pieces change places.
constexpr int swizzled(int row, int byte) { return row * kUnitRowBytes + (byte ^ row % 8 * 16); }

}  // namespace repsim_fast

#if defined(__CUDACC__)
#include "kernels/portability/device/warpgroup_products.h"  // IWYU pragma: export
#else
#include "kernels/portability/runner/warpgroup_products.h"  // IWYU pragma: export
#endif
