// Words for Hopper's bulk copies (sm_90): one thread asks for a rectangle of a matrix, the copy
// engine brings it to shared memory and counts its bytes on a barrier there.
//
//   TensorMap              a matrix and the rectangle to copy; a __grid_constant__ parameter
//   make_tensor_map(layout)         on the host
//   copies_in_bulk(kernel)          on the host: whether the kernel may be launched on this device
//   CopyBarrier            in shared memory; one thread announces the copies of each phase
//   init_barrier(barrier)           by one thread, then __syncthreads()
//   expect_bytes(barrier, bytes)    by one thread: announces all copies of a phase
//   copy_rectangle(to, map, row, column, barrier)    by the same thread, after that
//   wait_phase(barrier, parity)     by every thread that reads: until phase 0, 1, 0, ... is over
//
// What lies outside of the matrix arrives as zeros and counts as bytes.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "cuda/portability/portability.h"

namespace repsim_fast {

// A row-major matrix in global memory, and the rectangle that every copy brings, stored in shared
// memory without gaps between its rows.
struct RectangleLayout {
  const void* matrix;     // 16-byte aligned
  int64_t element_bytes;  // 2 or 4
  int64_t rows, columns;
  int64_t row_bytes;  // from one row to the next, a multiple of 16
  int64_t box_rows, box_columns;
};

// What the copy engine can read; the driver's own answer would only be "invalid value".
inline void check_layout(const RectangleLayout& layout) {
  constexpr int64_t kLargestBox = 256, kLargestSize = int64_t{1} << 32;
  const auto fits = [](int64_t value, int64_t limit) { return 0 < value && value <= limit; };
  const bool aligned = reinterpret_cast<uintptr_t>(layout.matrix) % 16 == 0 &&
                       layout.row_bytes % 16 == 0 &&
                       layout.box_columns * layout.element_bytes % 16 == 0;
  if (!aligned || !fits(layout.box_rows, kLargestBox) || !fits(layout.box_columns, kLargestBox) ||
      !fits(layout.rows, kLargestSize) || !fits(layout.columns, kLargestSize) ||
      (layout.element_bytes != 2 && layout.element_bytes != 4)) {
    throw std::invalid_argument(
        "bulk copies need 16-byte aligned rows and rectangles of 1 to 256 rows and columns");
  }
}

}  // namespace repsim_fast

#if defined(__CUDACC__)
#include "kernels/portability/device/bulk_copies.h"  // IWYU pragma: export
#else
#include "kernels/portability/runner/bulk_copies.h"  // IWYU pragma: export
#endif
