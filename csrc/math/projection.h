// Attack steps and projections, row by row (entry by entry: projection_entries.h), on host and
// device.
//
// x is a clean image, adv the iterate, u = adv - x the perturbation of radius at most eps in some
// norm, [low, high] the box of valid pixels. NaN in adv stays NaN in its own entry.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "math/host_device.h"

// Functions of one entry: on the host also of a vector of entries, lane by lane; hence they have no
// branches, and are inlined whatever the vectors' instruction set.
#if defined(__CUDACC__)
#define REPSIM_ENTRY __host__ __device__ __forceinline__
#else
#define REPSIM_ENTRY inline __attribute__((always_inline))
#endif

namespace repsim_fast {

template <typename T>
struct Largest;
template <>
struct Largest<float> {
  static constexpr float value = FLT_MAX;
};
template <>
struct Largest<double> {
  static constexpr double value = DBL_MAX;
};

#include "math/projection_entries.h"

// A double as a float, divided by 2^exponent, that of its row's largest entry: no direction is lost
// to float's smaller range. Anything but zero keeps its sign.
REPSIM_HOST_DEVICE inline float narrow(double gradient, int exponent) {
  const auto narrowed = static_cast<float>(std::ldexp(gradient, -exponent));
  if (narrowed != 0 || gradient == 0) return narrowed;
  return gradient < 0 ? -FLT_TRUE_MIN : FLT_TRUE_MIN;
}

// ---- L2: moves along gradient / |gradient|, whatever the gradient's scale

// size * gradient / |gradient| is (gradient * scale) * factor: scale, a power of two, brings the
// norm near 1 without rounding, so that neither product over- or underflows.
template <typename T>
struct Direction {
  T scale, factor;
};

// Sum of squares of any finite entries, free of over- and underflow. The squares of floats fit into
// a double as they are. Doubles go to three sums by their size, the outer two scaled by powers of
// two (Blue 1978, "A portable Fortran program to find the Euclidean norm of a vector").
template <typename T>
struct SquareSum;

template <>
struct SquareSum<float> {
  double sum = 0;
  static SquareSum of(double squares) { return {squares}; }
  REPSIM_HOST_DEVICE void add(float value) {
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  REPSIM_HOST_DEVICE void add(const SquareSum& other) { sum += other.sum; }

  REPSIM_HOST_DEVICE Direction<float> direction(double size) const {
    if (!(sum > 0)) return {1, 0};
    int exponent = std::ilogb(sum) / 2;
    exponent = exponent < -126 ? -126 : exponent > 126 ? 126 : exponent;
    const double scale = std::ldexp(1.0, -exponent);
    return {static_cast<float>(scale), static_cast<float>(size / (std::sqrt(sum) * scale))};
  }
};

template <>
struct SquareSum<double> {
  // Squares between the limits, and 2^60 of them, neither over- nor underflow; nor do those of the
  // other entries times their scale.
  static constexpr double kBig = 0x1p480, kSmall = 0x1p-480;
  static constexpr double kBigScale = 0x1p-600, kSmallScale = 0x1p600;
  double big = 0, middle = 0, small = 0;
  static SquareSum of(double squares) { return {0, squares, 0}; }

  REPSIM_HOST_DEVICE void add(double value) {
    const double size = value < 0 ? -value : value;
    if (size > kBig) {
      big += (size * kBigScale) * (size * kBigScale);
    } else if (size < kSmall) {
      small += (size * kSmallScale) * (size * kSmallScale);
    } else {
      middle += size * size;
    }
  }
  REPSIM_HOST_DEVICE void add(const SquareSum& other) {
    big += other.big;
    middle += other.middle;
    small += other.small;
  }

  // Of two neighbouring sums the smaller one still counts; the third is below rounding.
  REPSIM_HOST_DEVICE Direction<double> direction(double size) const {
    if (big > 0) {
      return {kBigScale, size / std::sqrt(big + (middle * kBigScale) * kBigScale)};
    }
    if (middle > 0) {
      const double norm = std::sqrt(middle + (small / kSmallScale) / kSmallScale);
      const double scale = std::ldexp(1.0, -std::ilogb(norm));
      return {scale, size / (norm * scale)};
    }
    return {kSmallScale, small > 0 ? size / std::sqrt(small) : 0.0};
  }
};

// Sums over a row at one threshold t, r = |u| - t.
struct ShrinkSums {
  double total = 0;   // of shrink(|u|, c, t): the L1 norm that t leaves
  int64_t above = 0;  // entries with 0 < r <= c: they shrink when t grows
  int64_t below = 0;  // entries with 0 <= r < c: they grow when t falls
  REPSIM_HOST_DEVICE void add(const ShrinkSums& other) {
    total += other.total;
    above += other.above;
    below += other.below;
  }
};

// The threshold of the projection on the L1 ball cut with the box (Croce and Hein 2021, "Mind the
// box", proposition 2.1): x + sign(u) min(max(|u| - t, 0), c), c the room, with t = 0 if that lies
// in the ball, else the root of
//   phi(t) = sum_i min(max(|u_i| - t, 0), c_i) = eps.
// phi falls and is piecewise linear with 2d knots. Newton's method inside a bracket lands on the
// root's own piece, where it is exact, after some six O(d) passes: nothing is sorted.
//
// Use: evaluate phi at at() and hand the sums to update() until that returns true, then value().
template <typename T>
class ThresholdSearch {
 public:
  // largest: a threshold that leaves nothing, the largest |u|. at() starts at 0.
  REPSIM_HOST_DEVICE ThresholdSearch(double eps, double largest)
      : eps_(eps), lower_(0), upper_(largest) {}

  REPSIM_HOST_DEVICE T at() const { return at_; }
  REPSIM_HOST_DEVICE double value() const { return value_; }
  // The root is not below this: entries |u| <= lower() no longer count.
  REPSIM_HOST_DEVICE T lower() const { return static_cast<T>(lower_); }

  REPSIM_HOST_DEVICE bool update(const ShrinkSums& sums) {
    const double here = static_cast<double>(at_), excess = sums.total - eps_;
    if (!(excess > 0) && here == 0) return finish(0);
    if (excess > 0) {
      lower_ = here;
    } else {
      upper_ = here;
      upper_seen_ = true;
    }
    const int64_t moving = excess > 0 ? sums.above : sums.below;
    if (moving > 0) {
      const double newton = here + excess / static_cast<double>(moving);
      const double rounding =
          value_ * kRounding + eps_ * kSumRounding / static_cast<double>(moving);
      const double change = newton > value_ ? newton - value_ : value_ - newton;
      if (change <= rounding) return finish(newton);
      if (++passes_ < kNewtonPasses && newton > lower_ && newton <= upper_ && try_at(newton)) {
        return false;
      }
    } else {
      ++passes_;
    }
    // Fails when nothing representable is left between the ends.
    return !try_at(lower_ + (upper_ - lower_) / 2) || passes_ >= kMaximumPasses;
  }

 private:
  // A prediction that differs from the last one by less than T's rounding of the point, or than
  // that of the sum, lies on the same piece of phi.
  static constexpr double kRounding = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;
  static constexpr double kSumRounding = sizeof(T) == 4 ? 0x1p-23 : 0x1p-48;
  // Far more than rows need; from then on bisection, which ends on any input.
  static constexpr int kNewtonPasses = 24;
  static constexpr int kMaximumPasses = 120;

  REPSIM_HOST_DEVICE bool try_at(double value) {
    value_ = value;
    at_ = static_cast<T>(value);
    const double here = static_cast<double>(at_);
    return here > lower_ && (here < upper_ || (here == upper_ && !upper_seen_));
  }

  REPSIM_HOST_DEVICE bool finish(double value) {
    value_ = value;
    return true;
  }

  double eps_, lower_, upper_, value_ = 0;
  T at_ = 0;
  bool upper_seen_ = false;
  int passes_ = 0;
};

}  // namespace repsim_fast
