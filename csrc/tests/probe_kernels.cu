#include "cuda/portability/portability.h"
#include "tests/probe_kernels.cuh"

namespace repsim_fast {
namespace {

constexpr unsigned kSumThreads = 256;

struct SumShared {
  float warp_sums[kSumThreads / kWarpSize];
};

__global__ void __launch_bounds__(kSumThreads) block_sums_kernel(const float* values, float* sums) {
  auto& shared = shared_memory<SumShared>();
  const float sum = warp_sum(values[int64_t{blockIdx.x} * kSumThreads + threadIdx.x]);
  if (threadIdx.x % kWarpSize == 0) shared.warp_sums[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (const float warp : shared.warp_sums) total += warp;
    sums[blockIdx.x] = total;
  }
}

struct CopyShared {
  alignas(16) float values[128];
};

// Each lane copies four values and writes its neighbour's.
enum class CopyFault { kNone, kNoWait, kEarlyReuse };

template <CopyFault kFault>
__global__ void async_copy_kernel(const float* from, float* to) {
  auto& shared = shared_memory<CopyShared>();
  const int mine = static_cast<int>(threadIdx.x) * 4, other = (mine + 4) % 128;
  copy_async_16(shared.values + mine, from + mine, 16);
  commit_copies();
  if (kFault != CopyFault::kNoWait) wait_copies<0>();
  __syncthreads();
  // A second copy into the buffer that the neighbour still has to read.
  if (kFault == CopyFault::kEarlyReuse) copy_async_16(shared.values + mine, from + mine, 16);
  commit_copies();
  __syncwarp();
  for (int i = 0; i < 4; ++i) to[other + i] = shared.values[other + i];
  wait_copies<0>();
}

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < kWarpSize) __syncthreads();
}

__global__ void greedy_shared_memory_kernel() { shared_memory<CopyShared>().values[0] = 0; }

__global__ void large_shared_memory_kernel(int64_t bytes, int32_t* out) {
  auto* memory = &shared_memory<unsigned char>();
  if (threadIdx.x == 0) memory[bytes - 1] = 1;
  __syncthreads();
  if (threadIdx.x == kWarpSize) out[0] = memory[bytes - 1];
}

template <CopyFault kFault>
void launch_copy(const float* from, float* to, void* stream) {
  launch(
      "async_copy", async_copy_kernel<kFault>,
      {.grid = dim3(1), .threads = kWarpSize, .shared_bytes = sizeof(CopyShared), .stream = stream},
      from, to);
}

}  // namespace

void launch_block_sums(const float* values, int64_t blocks, float* sums, void* stream) {
  if (blocks == 0) return;
  launch("block_sums", block_sums_kernel,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .threads = kSumThreads,
          .shared_bytes = sizeof(SumShared),
          .stream = stream},
         values, sums);
}

void launch_async_copy(const float* from, float* to, void* stream) {
  launch_copy<CopyFault::kNone>(from, to, stream);
}

void launch_async_copy_without_wait(const float* from, float* to, void* stream) {
  launch_copy<CopyFault::kNoWait>(from, to, stream);
}

void launch_early_async_copy(const float* from, float* to, void* stream) {
  launch_copy<CopyFault::kEarlyReuse>(from, to, stream);
}

void launch_divergent_barrier(void* stream) {
  launch("divergent_barrier", divergent_barrier_kernel,
         {.grid = dim3(1), .threads = 2 * kWarpSize, .shared_bytes = 0, .stream = stream});
}

void launch_greedy_shared_memory(void* stream) {
  launch("greedy_shared_memory", greedy_shared_memory_kernel,
         {.grid = dim3(1), .threads = kWarpSize, .shared_bytes = 16, .stream = stream});
}

void launch_large_shared_memory(int64_t bytes, int32_t* out, void* stream) {
  launch("large_shared_memory", large_shared_memory_kernel,
         {.grid = dim3(1),
          .threads = 2 * kWarpSize,
          .shared_bytes = static_cast<size_t>(bytes),
          .stream = stream},
         bytes, out);
}

void lower_shared_limit(int64_t bytes) {
  set_shared_limit("large_shared_memory", reinterpret_cast<const void*>(large_shared_memory_kernel),
                   static_cast<size_t>(bytes));
}

}  // namespace repsim_fast
