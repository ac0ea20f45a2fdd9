// Small kernels that show what the runner finds: right ones, and ones with a planted fault.
#pragma once

#include <cstdint>

namespace repsim_fast {

// sums[b] = sum of values[b * 256 .. b * 256 + 256), by warp shuffles, shared memory and a barrier.
void launch_block_sums(const float* values, int64_t blocks, float* sums, void* stream);

// One word of the portability layer each, over one warp: see probe_kernels.cu.
void launch_async_copy(const float* from, float* to, void* stream);               // (128,)
void launch_async_copy_without_wait(const float* from, float* to, void* stream);  // (128,)
void launch_early_async_copy(const float* from, float* to, void* stream);         // (128,)

// Only half of the block reaches the barrier.
void launch_divergent_barrier(void* stream);
// Uses more shared memory than its launch asks for.
void launch_greedy_shared_memory(void* stream);

// out[0] = 1, by way of the last of so many bytes of shared memory (at least 1).
void launch_large_shared_memory(int64_t bytes, int32_t* out, void* stream);
// A fault outside of that kernel: its limit is lowered behind the back of `launch`.
void lower_shared_limit(int64_t bytes);

}  // namespace repsim_fast
