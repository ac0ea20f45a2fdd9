// The centred Gram of features that lie in memory: what the operator calls, and whoever cannot
// afford an operator's call.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "common/centering.h"

namespace repsim_fast {

struct Features {
  const void* data;  // (n, p) with unit feature stride
  torch::headeronly::ScalarType type;
  int64_t row_stride, n, p;
};

// Writes the Gram to out, double for double features and float for all others: (n, n), or the
// packed_size(n, centering) entries of the packed one.
void centered_gram_of(const Features& x, Centering centering, bool packed, Precision precision,
                      void* out);

}  // namespace repsim_fast
