// The versions of the kernel study that are not the package's own kernels (README.md beside this).
#pragma once

#include <cstdint>

#include "cuda/gram/centered_gram.cuh"

namespace repsim_fast::study {

// Version 2: as the single pass of the package, strips copied through registers. For bfloat16
// operands.
void launch_gram_through_registers(const SinglePassArguments& arguments, void* stream);

// Version 5: fragments straight from global memory, n <= 64, one tile of 64: gram (splits, 64, 64).
// For bfloat16 operands.
void launch_gram_fragments(const SinglePassArguments& arguments, void* stream);

// Version 6: strips in shared memory, centred on their way to the matrix units. n <= 128, tiles of
// 64: gram (splits, 3, 64, 64). For bfloat16 operands.
void launch_gram_strip_fragments(const SinglePassArguments& arguments, void* stream);

// out = adv + size * sign(gradient), into the ball around x and the box [0, 1]. Versions 2, 3, 5.
struct LinfArguments {
  int version;
  int64_t count;  // a multiple of 4; all pointers 16-byte aligned
  const float *adv, *gradient, *x;
  float* out;  // may be adv
  float size, eps;
};
void launch_linf_version(const LinfArguments& arguments, void* stream);

}  // namespace repsim_fast::study
