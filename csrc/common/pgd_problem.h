// One attack step as raw rows, for CPU and CUDA kernels alike; no torch.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace repsim_fast {

enum class Norm { kLinf, kL2, kL1 };

// A number for all samples, or one for each.
template <typename T>
struct PerSample {
  T value;
  const T* values;  // (n,), or null

  REPSIM_HOST_DEVICE T operator[](int64_t sample) const { return values ? values[sample] : value; }
};

// An end of the box: a number, or a pattern along the entries of a row. One value per channel of
// (C, H, W) rows has period C and runs of H W; of (H, W, C) rows, runs of 1; a whole image has the
// period d and runs of 1.
template <typename T>
struct Bound {
  T value;
  const T* values;  // (period,), or null
  int64_t period, run;

  REPSIM_HOST_DEVICE T operator[](int64_t entry) const {
    return values ? values[entry / run % period] : value;
  }
};

// Rows of d entries; sample i of every matrix starts at i d.
template <typename T>
struct StepProblem {
  int64_t n, d;
  const T* adv;       // (n, d); may be out
  const T* gradient;  // (n, d), or null: only project
  const T* x;         // (n, d)
  T* out;             // (n, d)
  PerSample<T> size;  // negative: descend
  PerSample<T> eps;
  Bound<T> low, high;

  // Whether no value depends on the sample or the entry.
  bool alike() const { return !size.values && !eps.values && !low.values && !high.values; }
};

}  // namespace repsim_fast
