// What the SVD kernels share: reductions over a block, and reading one matrix of a batch.
#pragma once

#include <cstdint>
#include <limits>

#include "cuda/portability/portability.h"
#include "cuda/svd/batched_svd.cuh"
#include "math/householder.h"

namespace repsim_fast {

constexpr int kMaximumWarps = 32;

// At the start of every kernel's shared memory; the arrays of T follow.
struct BlockScratch {
  double warps[2][kMaximumWarps];
};

template <typename T>
__device__ inline T warp_maximum(T value) {
  REPSIM_UNROLL
  for (unsigned mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// Reductions in all threads of the block, to the same bits; all threads take part. `combine` gets
// the partial results of the warps in order.
template <typename T, typename Combine>
__device__ inline T combine_warps(T warp_result, double* scratch, Combine combine) {
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = warp_result;
  __syncthreads();
  T result = static_cast<T>(scratch[0]);
  for (unsigned warp = 1; warp < blockDim.x / kWarpSize; ++warp) {
    result = combine(result, static_cast<T>(scratch[warp]));
  }
  __syncthreads();
  return result;
}
template <typename T>
__device__ inline T block_sum(T value, BlockScratch& scratch) {
  return combine_warps(warp_sum(value), scratch.warps[0], [](T a, T b) { return a + b; });
}
template <typename T>
__device__ inline T block_maximum(T value, BlockScratch& scratch) {
  return combine_warps(warp_maximum(value), scratch.warps[0],
                       [](T a, T b) { return a > b ? a : b; });
}
// Two sums for the barriers of one.
template <typename T>
__device__ inline void block_sums(T& first, T& second, BlockScratch& scratch) {
  const unsigned warp = threadIdx.x / kWarpSize;
  first = warp_sum(first);
  second = warp_sum(second);
  if (threadIdx.x % kWarpSize == 0) {
    scratch.warps[0][warp] = first;
    scratch.warps[1][warp] = second;
  }
  __syncthreads();
  first = second = 0;
  for (unsigned w = 0; w < blockDim.x / kWarpSize; ++w) {
    first += static_cast<T>(scratch.warps[0][w]);
    second += static_cast<T>(scratch.warps[1][w]);
  }
  __syncthreads();
}

// The counted part of a matrix; turned, so that rows >= columns, by `tall`.
template <typename T>
struct DeviceMatrix {
  const T* data;
  int rows, columns;
  int64_t row_stride, column_stride;
  bool turned;

  __device__ T operator()(int i, int j) const { return data[i * row_stride + j * column_stride]; }
};

template <typename T>
__device__ inline DeviceMatrix<T> matrix_of(const SvdSource& source, int64_t b) {
  const int64_t rows = source.row_counts == nullptr ? source.rows : source.row_counts[b];
  const int64_t columns =
      source.column_counts == nullptr ? source.columns : source.column_counts[b];
  return {static_cast<const T*>(source.a) + b * source.batch_stride,
          static_cast<int>(rows),
          static_cast<int>(columns),
          source.row_stride,
          source.column_stride,
          false};
}
template <typename T>
__device__ inline DeviceMatrix<T> tall(const DeviceMatrix<T>& a) {
  if (a.rows >= a.columns) return a;
  return {a.data, a.columns, a.rows, a.column_stride, a.row_stride, true};
}

// Calls body(i, j) for every entry once, by all threads, neighbours in memory side by side.
template <typename T, typename Body>
__device__ inline void for_each_entry(const DeviceMatrix<T>& a, const Body& body) {
  const bool by_rows = a.column_stride <= a.row_stride;
  const int length = by_rows ? a.columns : a.rows, entries = a.rows * a.columns;
  for (int e = static_cast<int>(threadIdx.x); e < entries; e += static_cast<int>(blockDim.x)) {
    const int line = e / length, place = e % length;
    body(by_rows ? line : place, by_rows ? place : line);
  }
}

// Reads the matrix to at(i, j), scaled by the returned power of two; 0 stands for a matrix with NaN
// or infinity. A barrier must follow before other threads' entries are used.
template <typename T, typename At>
__device__ inline T read_balanced(const DeviceMatrix<T>& a, const At& at, BlockScratch& scratch) {
  T largest = 0, invalid = 0;
  for_each_entry(a, [&](int i, int j) {
    const T x = a(i, j), size = x < T{0} ? -x : x;
    at(i, j) = x;
    largest = size > largest ? size : largest;
    invalid += x - x;  // NaN for NaN and for infinity
  });
  largest = block_maximum(largest, scratch);
  if (block_sum(invalid, scratch) != T{0}) return T{0};
  const T scale = balancing_scale(largest);
  for_each_entry(a, [&](int i, int j) { at(i, j) *= scale; });
  return scale;
}

// Blocks of a launch over matrices: enough for every card; each takes every so many.
constexpr int64_t kMostMatrixBlocks = int64_t{1} << 16;

}  // namespace repsim_fast
