// Centring of a Gram matrix, entry by entry, on host and device.
#pragma once

#include "math/host_device.h"

namespace repsim_fast {

// A centred entry is K_ij - o_i - o_j, with one offset a sample. Given the sums r_i of the rows of
// K and their total t:

// Double centring H K H = K_ij - r_i/n - r_j/n + t/n^2.
REPSIM_HOST_DEVICE inline double double_centring_offset(double row, double total, double n) {
  return row / n - total / (2.0 * n * n);
}

// U-centring (Szekely and Rizzo 2014): K_ij - r_i/(n-2) - r_j/(n-2) + t/((n-1)(n-2)) off the
// diagonal, sums without the diagonal; needs n > 2, HSIC_1 needs n > 3.
REPSIM_HOST_DEVICE inline double u_centring_offset(double row, double total, double n) {
  return row / (n - 2.0) - total / (2.0 * (n - 1.0) * (n - 2.0));
}

REPSIM_HOST_DEVICE inline double double_centred(double k, double row_i, double row_j, double total,
                                                double n) {
  return k - double_centring_offset(row_i, total, n) - double_centring_offset(row_j, total, n);
}

REPSIM_HOST_DEVICE inline double u_centred(double k, double row_i, double row_j, double total,
                                           double n) {
  return k - u_centring_offset(row_i, total, n) - u_centring_offset(row_j, total, n);
}

}  // namespace repsim_fast
