// Inner loops of a batch norm with a ReLU after it on the CPU, over rows of channels that lie next
// to each other.
#pragma once

#include <cstdint>

namespace repsim_fast {

// A bfloat16's bits.
struct Bfloat16 {
  uint16_t bits;
};

// y = max(0, (x - mean) scale + shift) of one channel; a NaN stays one.
//
// All arrays have an entry for each channel.
struct Rectified {
  const float* mean;
  const float* scale;
  const float* shift;
};

template <typename T>
struct BatchNormReluKernels {
  // mean and squares become the mean of each channel and the sum of squared deviations from it.
  void (*moments)(const T* x, int64_t rows, int64_t channels, double* mean, double* squares);
  void (*forward)(const T* x, int64_t rows, int64_t channels, const Rectified& norm, T* y);
  // Of the gradient where y > 0: its sum, and that of its products with x - mean.
  void (*sums)(const T* grad, const T* x, int64_t rows, int64_t channels, const Rectified& norm,
               double* sum, double* product);
  // out = scale * grad where y > 0, plus (x - mean) slope + offset
  void (*backward)(const T* grad, const T* x, int64_t rows, int64_t channels, const Rectified& norm,
                   const float* slope, const float* offset, T* out);
};

// The kernels for this processor (see simd_level.h).
template <typename T>
const BatchNormReluKernels<T>& batch_norm_relu_kernels();

}  // namespace repsim_fast
