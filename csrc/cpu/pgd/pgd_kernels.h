// Inner loops of attack steps and random starts on the CPU, over a part of one row.
//
// Arrays are contiguous; `out` may be `adv`. A null gradient means no move.
#pragma once

#include <cstdint>

#include "common/pgd_problem.h"
#include "math/projection.h"
#include "math/random_start.h"

namespace repsim_fast {

// Bounds of a part of a row: numbers, or with `arrays` one for each entry.
template <typename T>
struct Box {
  T low, high;
  const T* lows;
  const T* highs;
  bool arrays;
};

// A gradient's sum of squares, and whether entries are to be made finite() before use: they may be
// NaN or infinite, or the sum is so far from 1 that it was taken with care.
template <typename T>
struct GradientSum {
  SquareSum<T> squares;
  bool unsafe = false;
};

// A coordinate that an L1 step moves: |gradient| >= least, by size.
template <typename T>
struct SparseMove {
  T least, size;
};

template <typename T>
struct PgdKernels {
  // out = linf_entry(...)
  void (*linf)(const T* adv, const T* gradient, const T* x, int64_t n, T size, T eps,
               const Box<T>& box, T* out);

  GradientSum<T> (*gradient_sum)(const T* gradient, int64_t n);
  // out = adv + direction, clipped to the box if `clipped`; the sum of squares of out - x.
  double (*l2_move)(const T* adv, const T* gradient, const T* x, int64_t n, Direction<T> direction,
                    bool unsafe, bool clipped, const Box<T>& box, T* out);
  // out = l2_entry(...)
  void (*l2_shrink)(const T* x, int64_t n, T factor, const Box<T>& box, T* out);

  // sizes = |gradient|, 0 where the box lets the entry not move that way.
  void (*l1_sizes)(const T* adv, const T* gradient, int64_t n, bool descend, const Box<T>& box,
                   T* sizes);
  // Entries of values above `high`; those in [low, high] are packed into `between`, which has room
  // for n + kPackSlack. Returns {above, between}.
  struct Counts {
    int64_t above, between;
  };
  Counts (*pack_between)(const T* values, int64_t n, T low, T high, T* between);
  // out = adv moved; lengths = |out - x|, rooms = the box's room on that side; their sums.
  struct Moved {
    ShrinkSums sums;  // at the threshold 0
    T largest;        // of the lengths
  };
  Moved (*l1_move)(const T* adv, const T* gradient, const T* sizes, const T* x, int64_t n,
                   SparseMove<T> move, const Box<T>& box, T* out, T* lengths, T* rooms);
  // Sums of n entries at a threshold, and those with lengths > threshold, in order. Both have zeros
  // after their end, up to a whole vector (kPackSlack entries).
  struct Shrunk {
    ShrinkSums sums;
    int64_t longer;
  };
  Shrunk (*l1_sums)(const T* lengths, const T* rooms, int64_t n, T threshold, T* longer_lengths,
                    T* longer_rooms);
  // out = l1_entry(...)
  void (*l1_shrink)(const T* x, int64_t n, T threshold, T threshold_rest, const Box<T>& box,
                    T* out);

  // noise of entries [kRandomBlock * block, ...) of a row: kRandomBlock numbers.
  void (*noise)(Norm norm, RandomStream stream, uint32_t row, int64_t block, float* noise);
  // Sum of squares (kL2) or of sizes (kL1) of the noise.
  double (*noise_sum)(Norm norm, const float* noise, int64_t n);
  // out = x + noise * factor, clipped to the box
  void (*place)(const float* noise, const T* x, int64_t n, T factor, const Box<T>& box, T* out);
};

// A packed array may be written up to this many entries past its end.
constexpr int64_t kPackSlack = 16;

// The kernels for this processor (see simd_level.h).
template <typename T>
const PgdKernels<T>& pgd_kernels();

}  // namespace repsim_fast
