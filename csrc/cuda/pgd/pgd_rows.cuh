// What the kernels of attack steps share: packs of entries, bounds, sums over a block, grids.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/pgd_problem.h"
#include "cuda/portability/portability.h"
#include "math/projection.h"

namespace repsim_fast {

// Rows beyond this share blocks: enough for every card, and few enough to be cheap to start.
constexpr int64_t kMaximumGridRows = 1024;

constexpr int64_t ceil_quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Neighbouring entries that one access moves: 16 bytes, or one entry where rows are not aligned.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T entry[kWidth];
};

template <int kWidth, typename T>
__device__ inline Pack<T, kWidth> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}

template <int kWidth, typename T>
__device__ inline void store_pack(T* to, const Pack<T, kWidth>& pack) {
  if constexpr (sizeof(pack) == 16) {
    store_16(to, pack);
  } else {
    *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
  }
}

// f(std::integral_constant<int, width>): the widest packs that every row can be read in.
template <typename T, typename F>
void with_pack_width(const StepProblem<T>& problem, F f) {
  constexpr int kWidth = 16 / sizeof(T);
  const auto aligned = [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  };
  if (problem.d % kWidth == 0 && aligned(problem.adv) && aligned(problem.gradient) &&
      aligned(problem.x) && aligned(problem.out)) {
    f(std::integral_constant<int, kWidth>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

// The bound of an entry. Rows with bounds of their own have fewer than 2^32 entries (checked by the
// operators): 32-bit division is several times faster.
template <typename T>
__device__ inline T bound_at(const Bound<T>& bound, int64_t entry) {
  if (bound.values == nullptr) return bound.value;
  const uint32_t run = static_cast<uint32_t>(entry) / static_cast<uint32_t>(bound.run);
  return bound.values[run % static_cast<uint32_t>(bound.period)];
}

template <int kWidth, typename T>
__device__ inline Pack<T, kWidth> bounds_at(const Bound<T>& bound, int64_t entry) {
  Pack<T, kWidth> pack;
  const bool one_value = bound.values == nullptr || bound.run % kWidth == 0;
  const T first = bound_at(bound, entry);
  REPSIM_UNROLL
  for (int k = 0; k < kWidth; ++k) {
    pack.entry[k] = one_value || k == 0 ? first : bound_at(bound, entry + k);
  }
  return pack;
}

// ---- sums over a block, the same bits in every thread and on every run

__device__ inline void warp_add(double& sum) { sum = warp_sum(sum); }
__device__ inline void warp_add(SquareSum<float>& sum) { sum.sum = warp_sum(sum.sum); }
__device__ inline void warp_add(SquareSum<double>& sum) {
  sum.big = warp_sum(sum.big);
  sum.middle = warp_sum(sum.middle);
  sum.small = warp_sum(sum.small);
}
__device__ inline void warp_add(ShrinkSums& sums) {
  sums.total = warp_sum(sums.total);
  sums.above = warp_sum(sums.above);
  sums.below = warp_sum(sums.below);
}

__device__ inline void add_to(double& sum, double other) { sum += other; }
template <typename Sum>
__device__ inline void add_to(Sum& sum, const Sum& other) {
  sum.add(other);
}

constexpr int kMaximumWarps = 32;

// The sum over all threads of the block. All of them call it; `slots` may be used again right away.
template <typename Sum>
__device__ inline Sum block_sum(Sum sum, Sum (&slots)[kMaximumWarps]) {
  const unsigned warps = blockDim.x / kWarpSize;
  warp_add(sum);
  if (threadIdx.x % kWarpSize == 0) slots[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  Sum total{};
  for (unsigned warp = 0; warp < warps; ++warp) add_to(total, slots[warp]);
  __syncthreads();
  return total;
}

// The largest value >= 0 of all threads of the block, likewise.
template <typename T>
__device__ inline T block_max(T value, T (&slots)[kMaximumWarps]) {
  REPSIM_UNROLL
  for (unsigned mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, value, mask);
    value = other > value ? other : value;
  }
  if (threadIdx.x % kWarpSize == 0) slots[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T largest = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarpSize; ++warp) {
    largest = slots[warp] > largest ? slots[warp] : largest;
  }
  __syncthreads();
  return largest;
}

}  // namespace repsim_fast
