// Centring of a Gram matrix, entry by entry, on host and device.
#pragma once

#if defined(__CUDACC__)
#define REPSIM_HOST_DEVICE __host__ __device__
#else
#define REPSIM_HOST_DEVICE
#endif

namespace repsim_fast {

// Double centring H K H: K_ij - r_i/n - r_j/n + t/n^2, r the row sums and t the total of K.
REPSIM_HOST_DEVICE inline double double_centred(double k, double row_i, double row_j, double total,
                                                double n) {
  return k - (row_i + row_j) / n + total / (n * n);
}

// U-centring (Szekely and Rizzo 2014): K_ij - r_i/(n-2) - r_j/(n-2) + t/((n-1)(n-2)) off
// the diagonal, r and t the sums without the diagonal; needs n > 2, HSIC_1 needs n > 3.
REPSIM_HOST_DEVICE inline double u_centred(double k, double row_i, double row_j, double total,
                                           double n) {
  return k - (row_i + row_j) / (n - 2.0) + total / ((n - 1.0) * (n - 2.0));
}

}  // namespace repsim_fast
