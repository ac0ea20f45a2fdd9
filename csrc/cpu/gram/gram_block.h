// A block of features of all samples, on its way from the feature matrix to products: what one
// thread of a centred Gram works with (centered_gram.cpp).
#pragma once

#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/gram/int16_tile_kernels.h"
#include "cpu/gram/tile_kernels.h"

namespace repsim_fast {

// Samples whose means are taken, at most, and the distance between them: they come from all over,
// for neighbours may be alike, and where there are enough are those that Staging has fetched.
constexpr int64_t kShiftSamples = 16;
constexpr int64_t shift_step(int64_t n) {
  if (n <= kShiftSamples) return 1;
  constexpr int64_t kTogether = Staging<float>::kTogether;
  return std::max(kTogether, n / kShiftSamples / kTogether * kTogether);
}
constexpr int64_t shift_samples(int64_t n) {
  return std::min(kShiftSamples, ceil_div(n, shift_step(n)));
}

// A block as it is read, and the shift that is to be taken from it: the middle one of three means
// of some samples.
//
// Any shift of a feature is taken out by centring the Gram; what is shifted first only decides how
// much of the precision is spent on it. Means of some of kShiftSamples samples do: should two of
// three be off the mean of all n by d, then the variance is at least d^2 (kShiftSamples / 2) / n.
// The middle one is not moved by a single sample that is 1e5 times as large as the others. A mean
// would be, and products of what it leaves of the others, r^2 times theirs, would leave float32
// nothing of the Gram's entries off the diagonal, which the debiased HSIC consists of.
template <typename T, int64_t kDepth, int64_t kUnit>
class Source {
 public:
  explicit Source(int64_t n) : n_(n) {}

  // Features [first, first + depth) of x (n, p) with unit feature stride, followed by zeros up to a
  // multiple of kUnit; of x itself if no conversion is needed.
  template <typename In>
  void read(const In* x, int64_t row_stride, int64_t first, int64_t depth, bool with_shift) {
    depth_ = ceil_div(depth, kUnit) * kUnit;
    rows_ = nullptr;
    if constexpr (std::is_same_v<In, T>) {
      if (depth == depth_) rows_ = x + first;
    }
    stride_ = row_stride;
    if (rows_ == nullptr) convert(x + first, row_stride, depth);
    if (with_shift) {
      tile_kernels<T>().middle_mean(rows_, shift_step(n_) * stride_, shift_samples(n_), depth_,
                                    shift_);
    } else {
      std::fill_n(shift_, depth_, T{0});
    }
  }

  const T* rows() const { return rows_; }
  int64_t stride() const { return stride_; }
  int64_t depth() const { return depth_; }
  const T* shift() const { return shift_; }

 private:
  template <typename In>
  void convert(const In* x, int64_t row_stride, int64_t depth) {
    if (!converted_) converted_ = scratch<T>(n_ * kDepth);
    for (int64_t r = 0; r < n_; ++r) {
      T* row = converted_.get() + r * kDepth;
      const In* from = x + r * row_stride;
      if constexpr (std::is_same_v<In, torch::headeronly::Half>) {
        tile_kernels<T>().from_half(reinterpret_cast<const uint16_t*>(from), depth, row);
      } else {
        for (int64_t k = 0; k < depth; ++k) row[k] = static_cast<T>(from[k]);
      }
      std::fill(row + depth, row + depth_, T{0});
    }
    rows_ = converted_.get();
    stride_ = kDepth;
  }

  int64_t n_, stride_ = 0, depth_ = 0;
  const T* rows_ = nullptr;
  Scratch<T> converted_;  // made when first needed
  alignas(64) T shift_[kDepth];
};

// Products of T. A block is staged, then packed into panels.
template <typename T>
class Block {
 public:
  using Element = T;
  static constexpr int64_t kDepth = repsim_fast::kDepth, kUnit = kDepthUnit;

  explicit Block(int64_t n)
      : panels_(ceil_div(n, kPanel)),
        n_(n),
        source_(n),
        staged_(scratch<T>(panels_ * kPanel * kDepth)),
        packed_(scratch<T>(panels_ * kPanel * kDepth)) {
    // Rows that only fill the last panel.
    std::fill_n(staged_.get() + n * kDepth, (panels_ * kPanel - n) * kDepth, T{0});
  }

  // Begins to stage features [first, first + depth) of x (n, p) with unit feature stride. The
  // products of the block before do it, as far as they come.
  template <typename In>
  void begin(const In* x, int64_t row_stride, int64_t first, int64_t depth, bool shift) {
    source_.read(x, row_stride, first, depth, shift);
    coming_ = Staging<T>(source_.rows(), source_.stride(), n_, source_.depth(), source_.shift(),
                         staged_.get());
  }

  // Packs what was begun; from here on `multiply` multiplies it.
  void pack() {
    tile_kernels<T>().stage(coming_);
    depth_ = source_.depth();
    for (int64_t panel = 0; panel < panels_; ++panel) {
      const int64_t start = panel * kPanel * kDepth;
      tile_kernels<T>().pack(staged_.get() + start, kDepth, depth_, packed_.get() + start);
    }
  }

  // tile += panel i times panel j transposed.
  void multiply(int64_t i, int64_t j, T* tile) {
    tile_kernels<T>().multiply(packed_.get() + i * kPanel * kDepth,
                               packed_.get() + j * kPanel * kDepth, depth_,
                               std::min(kPanel, n_ - i * kPanel), i == j, tile, coming_);
  }

 private:
  int64_t panels_, n_, depth_ = 0;
  Source<T, kDepth, kUnit> source_;
  Scratch<T> staged_;  // (n padded to panels, kDepth)
  Scratch<T> packed_;  // panels
  Staging<T> coming_;
};

// Products of 16-bit integers. A block goes straight into panels, beside those of the block before.
class Int16Block {
 public:
  using Element = float;
  static constexpr int64_t kDepth = kInt16Depth, kUnit = kInt16DepthUnit;

  explicit Int16Block(int64_t n)
      : n_(n), source_(n), current_(ceil_div(n, kPanel)), next_(ceil_div(n, kPanel)) {}

  template <typename In>
  void begin(const In* x, int64_t row_stride, int64_t first, int64_t depth, bool shift) {
    source_.read(x, row_stride, first, depth, shift);
    coming_ = Int16Packing(source_.rows(), source_.stride(), n_, source_.depth(), source_.shift(),
                           next_.words.get(), next_.units.get());
  }

  void pack() {
    kernels_.pack(coming_);
    depth_ = source_.depth();
    std::swap(current_, next_);
  }

  void multiply(int64_t i, int64_t j, float* tile) {
    kernels_.multiply(current_.panel(i), current_.units.get() + i * kPanel, current_.panel(j),
                      current_.units.get() + j * kPanel, depth_, std::min(kPanel, n_ - i * kPanel),
                      i == j, tile, coming_);
  }

 private:
  struct Panels {
    explicit Panels(int64_t count)
        : words(scratch<uint32_t>(count * kPanelWords)), units(scratch<float>(count * kPanel)) {}
    const uint32_t* panel(int64_t i) const { return words.get() + i * kPanelWords; }
    Scratch<uint32_t> words;
    Scratch<float> units;  // of each row's integers
  };

  const Int16TileKernels& kernels_ = *int16_tile_kernels();
  int64_t n_, depth_ = 0;
  Source<float, kDepth, kUnit> source_;
  Panels current_, next_;
  Int16Packing coming_;
};

}  // namespace repsim_fast
