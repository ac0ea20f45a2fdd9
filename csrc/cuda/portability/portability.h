// The words that every CUDA kernel of this project is written in.
//
//   indices            threadIdx, blockIdx, blockDim, gridDim
//   barriers           __syncthreads(), __syncwarp()
//   shuffles           __shfl_xor_sync(kFullWarp, value, mask) and its kind; warp_sum(value)
//   shared memory      auto& shared = shared_memory<Struct>();   one struct a kernel
//   whole vectors       store_16(to, vector)
//   async copies       copy_async_16(to, from, bytes), commit_copies(), wait_copies<N>();
//                      whole rectangles at once: kernels/portability/bulk_copies.h
//   tile multiply      load_matrices(registers, row), multiply_tile<Operand>(d, a, b);
//                      by four warps together: kernels/portability/warpgroup_products.h
//   types              Half, BFloat16, Tf32, to_math(value), convert_to<Type>(value)
//   launch             launch("name", kernel, LaunchShape{...}, arguments...)
//
// Under nvcc these are CUDA. Under a plain C++ compiler the same source runs on the CPU, in the
// runner of csrc/tests (csrc/README.md): so every kernel is tested, and checked for races, without
// a GPU. A kernel that needs another word adds it to both sides.
#pragma once

#include <cstddef>
#include <cstdint>

namespace repsim_fast {

constexpr unsigned kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

// A float rounded to the 10 mantissa bits that the matrix units read; stored in 32 bits.
struct Tf32 {
  float value;
};

}  // namespace repsim_fast

#if defined(__CUDACC__)
#include "cuda/portability/device/portability.h"  // IWYU pragma: export
#else
#include "cuda/portability/runner/portability.h"  // IWYU pragma: export
#endif

namespace repsim_fast {

// Sum over the warp, the same bits in every lane: each step adds the same two partial sums.
template <typename T>
__device__ inline T warp_sum(T value) {
  REPSIM_UNROLL
  for (unsigned mask = kWarpSize / 2; mask > 0; mask /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, mask);
  }
  return value;
}

}  // namespace repsim_fast
