// Lower triangles numbered row by row: (0,0) (1,0) (1,1) (2,0) ..., on host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace repsim_fast {

// Entries of rows 0 .. rows - 1; also the number of entry (rows, 0).
REPSIM_HOST_DEVICE inline int64_t triangle_size(int64_t rows) { return rows * (rows + 1) / 2; }

REPSIM_HOST_DEVICE inline int64_t triangle_index(int64_t row, int64_t column) {
  return triangle_size(row) + column;
}

struct TrianglePosition {
  int64_t row, column;
};

// Inverse of triangle_index. The square root is exact to a row up to 2^52 entries; the loops
// settle the rest.
REPSIM_HOST_DEVICE inline TrianglePosition triangle_position(int64_t index) {
  auto row = static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(index) + 1.0) - 1.0) / 2.0);
  while (triangle_size(row) > index) --row;
  while (triangle_size(row + 1) <= index) ++row;
  return {row, index - triangle_size(row)};
}

}  // namespace repsim_fast
