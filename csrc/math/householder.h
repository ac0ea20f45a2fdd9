// Householder reflectors, and the power of two that a matrix is scaled by before they are used.
#pragma once

#include <cmath>
#include <limits>

#include "math/host_device.h"

namespace repsim_fast {

// A sum of squares up to this has lost digits to underflow, and the vector behind it counts as
// zero. In a matrix whose largest entry is about 1 that moves singular values by at most 1e-15 in
// float and 1e-146 in double: nothing beside the rounding of a single entry.
template <typename T>
constexpr T kNegligibleSquare = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();

// H = I - tau u u^T with u = (1, scale * tail) maps (first, tail) to (beta, 0).
template <typename T>
struct Reflector {
  T tau, beta, scale;
};

// Golub and Van Loan, Matrix Computations, 5.1.3, with the signs of LAPACK's larfg.
template <typename T>
REPSIM_HOST_DEVICE inline Reflector<T> make_reflector(T first, T tail_square) {
  if (tail_square <= kNegligibleSquare<T>) return {T{0}, first, T{0}};
  const T norm = std::sqrt(first * first + tail_square);
  const T beta = first > T{0} ? -norm : norm;
  return {(beta - first) / beta, beta, T{1} / (first - beta)};
}

// The power of two that brings `largest` (finite, >= 0) into [1/2, 1), as far as it and its inverse
// are normal numbers: a matrix of denormals stays as small as epsilon, which is large enough.
template <typename T>
REPSIM_HOST_DEVICE inline T balancing_scale(T largest) {
  constexpr int kMostExponent = std::numeric_limits<T>::max_exponent - 2;
  int exponent = 0;
  std::frexp(largest, &exponent);
  if (exponent > kMostExponent) exponent = kMostExponent;
  if (exponent < -kMostExponent) exponent = -kMostExponent;
  return std::ldexp(T{1}, -exponent);
}

}  // namespace repsim_fast
