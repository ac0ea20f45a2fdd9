// Inner loops of a batch norm with a ReLU after it on the CPU, over rows of channels that lie next
// to each other.
#pragma once

#include <cstdint>

namespace repsim_fast {

// A bfloat16's bits.
struct Bfloat16 {
  uint16_t bits;
};

// A matrix of rows of channels is walked from its first entry to its last in strips of so many
// vectors, whose lanes begin anew with the first channel once a period: so many entries that strips
// and rows end together, or all of them, where these are fewer. What there is for each channel,
// kernels take and give for each lane of a period. Of float a strip's lanes are its entries in
// order, of bfloat16 those of a vector are every other entry: a load of two vectors' entries needs
// no shuffle then.
constexpr int kStripVectors = 4;

// The entry of a strip, or of a period, that a lane has.
template <typename T>
constexpr int64_t entry_of_lane(int64_t lanes, int64_t lane) {
  constexpr int64_t kVectors = sizeof(float) / sizeof(T);
  const int64_t entries = kVectors * lanes, within = lane % entries;
  return lane - within + within % lanes * kVectors + within / lanes;
}

// y = max(0, (x - mean) scale + shift) of one lane; a NaN stays one.
struct Rectified {
  const float* mean;
  const float* scale;
  const float* shift;
};

// The first of count entries is the first channel's.
template <typename T>
struct BatchNormReluKernels {
  int lanes;  // of a vector
  // Adds x - pivot to sum and its square to squares.
  void (*deviations)(const T* x, int64_t count, int64_t period, const float* pivot, double* sum,
                     double* squares);
  void (*forward)(const T* x, int64_t count, int64_t period, const Rectified& norm, T* y);
  // Of the gradient where y > 0: adds it to sum, and its product with x - mean to product.
  void (*sums)(const T* grad, const T* x, int64_t count, int64_t period, const Rectified& norm,
               double* sum, double* product);
  // out = scale * grad where y > 0, plus (x - mean) slope + offset
  void (*backward)(const T* grad, const T* x, int64_t count, int64_t period, const Rectified& norm,
                   const float* slope, const float* offset, T* out);
};

// The kernels for this processor (see simd_level.h).
template <typename T>
const BatchNormReluKernels<T>& batch_norm_relu_kernels();

}  // namespace repsim_fast
