// The versions of the kernel study that are not the package's own kernels (README.md beside this).
#pragma once

#include <cstdint>

#include "cuda/gram/centered_gram.cuh"

namespace repsim_fast::study {

// Version 2: as the single pass of the package, strips copied through registers.
void launch_gram_through_registers(const SinglePassArguments& arguments, void* stream);

// Version 4: likewise, strips by Hopper's copy engine; and whether this device, and the code that
// was compiled for it, can run it.
void launch_gram_bulk_copies(const SinglePassArguments& arguments, void* stream);
bool bulk_copies_available();

// Version 5: fragments straight from global memory, n <= 64, one tile of 64: gram (splits, 64, 64).
// For bfloat16 operands.
void launch_gram_fragments(const SinglePassArguments& arguments, void* stream);

// Version 6: strips in shared memory, centred on their way to the matrix units. n <= 128, tiles of
// 64: gram (splits, 3, 64, 64). For bfloat16 operands.
void launch_gram_strip_fragments(const SinglePassArguments& arguments, void* stream);

// Version 7: products by warpgroups, n <= 256, tiles of 64: gram (splits, 10, 64, 64). For bfloat16
// operands and features of at most 32 bits. With `centre` the columns are shifted by a mean of some
// rows instead of all: the finish has to centre, kDouble or kUnbiased.
void launch_gram_warpgroups(const SinglePassArguments& arguments, void* stream);
bool warpgroups_available();  // on this device, to the code that was compiled for it

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
