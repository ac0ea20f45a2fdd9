// Singular values of a bidiagonal matrix by bisection on Sturm counts.
//
// B with diagonal d and superdiagonal e has the singular values of the symmetric tridiagonal T
// (Golub and Kahan 1965) with zero diagonal and d_1, e_1, d_2, ..., d_n beside it, whose
// eigenvalues are +-sigma. The leading minors of x I - T obey p_{i+1} = x p_i - t_i^2 p_{i-1};
// their sign changes count the eigenvalues above x (Wilkinson 1965, 5.37). Rounding amounts to
// relative changes of x and of the t_i^2 by epsilon, so a count is right for a bidiagonal matrix
// that differs by epsilon sigma_max: the method is backward stable, takes a fixed number of steps,
// and cannot fail.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "math/host_device.h"

namespace repsim_fast {

// With the values scaled into [0, 1], bisection stops at intervals of 2^-kSturmBits, half of
// epsilon, and takes their middle.
template <typename T>
constexpr int kSturmBits = std::numeric_limits<T>::digits;

// Squares t_i^2 are raised to this (t_i = epsilon / 32), so that no minor loses its predecessors'
// signs by a product with zero.
template <typename T>
constexpr T kLeastSturmSquare =
    std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon() / 1024;

// Minors are rescaled after this many steps. Meanwhile the larger of two successive ones grows by
// no more than 16, and shrinks, with x >= 2^-kSturmBits, by no more than 1e-42 in float: never to
// zero.
constexpr int kSturmRescale = 4;

// An exact factor, a power of two, that brings the larger of |a| and |b| into [1, 2).
template <typename T>
REPSIM_HOST_DEVICE inline T rescaling_factor(T a, T b) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr int kMantissa = std::numeric_limits<T>::digits - 1;
  constexpr Bits kExponent = (~Bits{0} >> (kMantissa + 1)) << kMantissa;
  Bits a_bits, b_bits;
  std::memcpy(&a_bits, &a, sizeof(T));
  std::memcpy(&b_bits, &b, sizeof(T));
  a_bits &= kExponent;
  b_bits &= kExponent;
  const Bits factor_bits =
      (kExponent - (Bits{1} << kMantissa)) - (a_bits > b_bits ? a_bits : b_bits);
  T factor;
  std::memcpy(&factor, &factor_bits, sizeof(T));
  return factor;
}

// Number of singular values above x > 0; squares: d_1^2, e_1^2, d_2^2, ..., d_n^2.
template <typename T>
REPSIM_HOST_DEVICE inline int values_above(T x, const T* squares,  // (2n - 1,)
                                           int n) {
  T before = 1, minor = x;
  int changes = 0;
  const int steps = 2 * n - 1;
  for (int i = 0; i < steps; ++i) {
    const T next = x * minor - squares[i] * before;
    changes += (next < T{0}) != (minor < T{0}) ? 1 : 0;
    before = minor;
    minor = next;
    if (i % kSturmRescale == kSturmRescale - 1) {
      const T factor = rescaling_factor(before, minor);
      before *= factor;
      minor *= factor;
    }
  }
  return changes;
}

// The singular value with `rank` larger ones, of a bidiagonal matrix with norm <= 1.
template <typename T>
REPSIM_HOST_DEVICE inline T singular_value(int rank, const T* squares,  // (2n - 1,)
                                           int n) {
  T low = 0, high = 1;
  for (int step = 0; step < kSturmBits<T>; ++step) {
    const T middle = (low + high) / 2;
    if (values_above(middle, squares, n) > rank) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low == T{0} ? T{0} : (low + high) / 2;
}

}  // namespace repsim_fast
