// One-sided Jacobi (Hestenes 1958): columns are rotated in pairs until all are orthogonal; their
// norms are then the singular values. Rotation and stopping rule as in de Rijk 1989 and Drmac and
// Veselic 2008 (LAPACK Working Note 169).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "math/host_device.h"

namespace repsim_fast {

// On the triangle of a pivoted QR, 5 to 9 sweeps do up to 128 columns, 16 at the worst of all
// trials; LAPACK's gesvj gives up after as many as here.
constexpr int kMaximumSweeps = 30;

// Columns whose cosine is at most this count as orthogonal. Plain sums over `rows` terms see no
// smaller ones, and where the columns only lead to a QR factorisation none matters.
template <typename T>
REPSIM_HOST_DEVICE inline T orthogonality_tolerance(int64_t rows) {
  return std::sqrt(static_cast<T>(rows)) * std::numeric_limits<T>::epsilon();
}

// Where the columns are the result and sums are pairwise: costs about one sweep more.
template <typename T>
constexpr T kStrictTolerance = 2 * std::numeric_limits<T>::epsilon();

// (p, q) -> (c p - s q, s p + c q)
template <typename T>
struct Rotation {
  T c, s;
};

// Makes p and q orthogonal, by the smaller of the two angles; inner = p.q, not zero.
template <typename T>
REPSIM_HOST_DEVICE inline Rotation<T> jacobi_rotation(T p_square, T q_square, T inner) {
  // From here on sqrt(1 + cotangent^2) is |cotangent|, whose square may overflow.
  constexpr T kLargeCotangent = T{2} / std::numeric_limits<T>::epsilon();
  const T cotangent = (q_square - p_square) / (T{2} * inner);
  const T size = cotangent < T{0} ? -cotangent : cotangent;
  const T root = size > kLargeCotangent ? size : std::sqrt(T{1} + cotangent * cotangent);
  const T tangent = (cotangent < T{0} ? T{-1} : T{1}) / (size + root);
  const T c = T{1} / std::sqrt(T{1} + tangent * tangent);
  return {c, c * tangent};
}

}  // namespace repsim_fast
