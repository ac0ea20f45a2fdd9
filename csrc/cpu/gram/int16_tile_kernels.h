// Products of 16-bit integers, for precision="bfloat16" on the CPU: twice as many a cycle as of
// floats, with a tenth of bfloat16's rounding. Rows are packed while others are multiplied.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/gram/tile_kernels.h"

namespace repsim_fast {

// Features of a block of 16-bit integers: two panels of 256 take 32 KiB of the L1 cache and leave
// room for what is packed meanwhile. Depths are multiples of the unit.
constexpr int64_t kInt16Depth = 256, kInt16DepthUnit = 32;
constexpr int64_t kPanelWords = kPanel * kInt16Depth / 2;

// Rows of one block of features on their way into panels of integers, less a shift. As Staging, the
// products of the block before pack a few rows with each block of sums. A row's unit depends on all
// of its features; so while rows are packed, the norms of those that follow them are found.
class Int16Packing {
 public:
  static constexpr int64_t kTogether = 4;  // rows that are packed together

  Int16Packing() = default;  // nothing to pack
  // x - shift, x (rows, depth) with rows x_stride apart and shift (depth), goes into as many panels
  // as hold the rows, and the rows' units to units. What fills the last panel becomes 0.
  Int16Packing(const float* x, int64_t x_stride, int64_t rows, int64_t depth, const float* shift,
               uint32_t* panels, float* units)
      : x_(x),
        stride_(x_stride),
        rows_(rows),
        depth_(depth),
        shift_(shift),
        panels_(panels),
        units_(units),
        end_(ceil_div(rows, kPanel) * kPanel) {}

  struct Step {
    const float* rows[kTogether];  // to pack
    const float* next[kTogether];  // whose norms to find
    int64_t ahead;                 // from there to rows to fetch into the cache meanwhile; 0: none
    int64_t depth;                 // 0: nothing to do
    const float* shift;
    uint32_t* to;               // place of the first pair of the first row
    float per_unit[kTogether];  // of the rows to pack
  };

  // The first step packs nothing: its rows' norms are not known yet.
  Step take() {
    Step step;
    for (int64_t r = 0; r < kTogether; ++r) {
      step.rows[r] = row(next_ - kTogether + r);
      step.next[r] = row(next_ + r);
      step.per_unit[r] = per_unit_[r];
    }
    const int64_t first = std::max<int64_t>(next_ - kTogether, 0);
    step.depth = done() ? 0 : depth_;
    step.ahead = rows_ * stride_ > kCached ? kTogether * stride_ : 0;
    step.shift = shift_;
    step.to = panels_ + first / kPanel * kPanelWords + first % kPanel;
    if (!done()) next_ += kTogether;
    return step;
  }

  // What the last step found of its next rows: their units and the inverse.
  void found(const float* units, const float* per_unit) {
    const int64_t first = next_ - kTogether;
    if (first < end_) std::copy_n(units, kTogether, units_ + first);
    std::copy_n(per_unit, kTogether, per_unit_);
  }

  bool done() const { return next_ > end_; }

 private:
  // Elements, 4 MiB, that a layer leaves in the caches. From there the processor's own prefetching
  // is enough, and ours only costs; from farther away it pays.
  static constexpr int64_t kCached = int64_t{1} << 20;

  // Missing rows are the shift, of which nothing is left.
  const float* row(int64_t r) const { return r >= 0 && r < rows_ ? x_ + r * stride_ : shift_; }

  const float* x_ = nullptr;
  int64_t stride_ = 0, rows_ = 0, depth_ = 0;
  const float* shift_ = nullptr;
  uint32_t* panels_ = nullptr;
  float* units_ = nullptr;
  int64_t end_ = -1, next_ = 0;
  float per_unit_[kTogether] = {};
};

// Products of 16-bit integers, exact in 32 bits: a panel element is two features of one row, each
// in units of that row, in one 32-bit word. A row's unit makes its norm over the block 32700. Their
// rounding is about 1e-4 of the row's root mean square, a tenth of bfloat16's.
struct Int16TileKernels {
  // Packs what is left.
  void (*pack)(Int16Packing& rest);
  // units[r] is what the integers of row r count, r < kPanel; depth is a multiple of
  // kInt16DepthUnit, and that of `next` not larger.
  void (*multiply)(const uint32_t* a, const float* a_units, const uint32_t* b, const float* b_units,
                   int64_t depth, int64_t rows, bool diagonal, float* tile, Int16Packing& next);
};

// Null where the processor has no dot product of 16-bit integers.
const Int16TileKernels* int16_tile_kernels();

}  // namespace repsim_fast
