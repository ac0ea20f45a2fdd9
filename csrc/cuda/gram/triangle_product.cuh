// The inner product of a Gram tile, one step of the features at a time: plain multiply-adds, or
// the matrix units. Both read the same staged operands and differ in who holds which entry.
#pragma once

#include "cuda/gram/centered_gram.cuh"
#include "cuda/gram/warp_tile.cuh"
#include "cuda/portability/portability.h"

namespace repsim_fast {

// A staged row is one step of one sample's features. 16 bytes of padding put eight neighbouring
// rows' equal columns into different banks.
constexpr int kStagedRowBytes = static_cast<int>(kFeatureStepBytes) + 16;

template <int kTile>
struct alignas(16) StagedRows {
  unsigned char bytes[kTile * kStagedRowBytes];

  __device__ const unsigned char* row(int r) const { return bytes + r * kStagedRowBytes; }
  __device__ unsigned char* row(int r) { return bytes + r * kStagedRowBytes; }
};

// Multiply-adds in T: a thread holds entries (i kThreadRows + ty, j kThreadColumns + tx), spread so
// that a warp reads neighbouring rows.
template <typename T, int kTileSide>
struct MultiplyAdd {
  using Accumulator = T;
  static constexpr int kTile = kTileSide;
  static constexpr int kThreads = 2 * kTile;
  static constexpr int kMinimumBlocks = kTile == 128 ? 2 : 4;  // of a multiprocessor
  static constexpr int kThreadColumns = 16;
  static constexpr int kThreadRows = kThreads / kThreadColumns;
  static constexpr int kRows = kTile / kThreadRows;
  static constexpr int kColumns = kTile / kThreadColumns;
  static constexpr int kPerVector = 16 / static_cast<int>(sizeof(T));

  struct alignas(16) Vector {
    T value[kPerVector];
  };

  T sum[kRows][kColumns] = {};

  __device__ void accumulate(const StagedRows<kTile>& a, const StagedRows<kTile>& b) {
    const int ty = static_cast<int>(threadIdx.x) / kThreadColumns;
    const int tx = static_cast<int>(threadIdx.x) % kThreadColumns;
    REPSIM_UNROLL_BY(1)  // one vector of operands at a time fits the registers
    for (int byte = 0; byte < static_cast<int>(kFeatureStepBytes); byte += 16) {
      Vector left[kRows];
      REPSIM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        left[i] = *reinterpret_cast<const Vector*>(a.row(i * kThreadRows + ty) + byte);
      }
      REPSIM_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const auto right = *reinterpret_cast<const Vector*>(b.row(j * kThreadColumns + tx) + byte);
        REPSIM_UNROLL
        for (int k = 0; k < kPerVector; ++k) {
          REPSIM_UNROLL
          for (int i = 0; i < kRows; ++i) sum[i][j] += left[i].value[k] * right.value[k];
        }
      }
    }
  }

  template <typename Visit>
  __device__ void for_each_entry(Visit visit) const {
    const int ty = static_cast<int>(threadIdx.x) / kThreadColumns;
    const int tx = static_cast<int>(threadIdx.x) % kThreadColumns;
    REPSIM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      REPSIM_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        visit(i * kThreadRows + ty, j * kThreadColumns + tx, sum[i][j]);
      }
    }
  }
};

// Matrix units: the tile is shared out in rectangles of kWarpRows x 32 entries, one a warp.
template <typename Operand, int kTileSide>
struct MatrixUnit {
  using Accumulator = float;
  static constexpr int kTile = kTileSide;
  static constexpr int kThreads = 2 * kTile;
  static constexpr int kMinimumBlocks = kTile == 128 ? 2 : 4;
  static constexpr int kWarpColumns = 32;
  static constexpr int kWarpsAcross = kTile / kWarpColumns;
  static constexpr int kWarpRows = kTile * kWarpsAcross * static_cast<int>(kWarpSize) / kThreads;

  WarpTile<Operand, kWarpRows, kWarpColumns> entries;

  __device__ static int first_row() {
    return static_cast<int>(threadIdx.x / kWarpSize) / kWarpsAcross * kWarpRows;
  }
  __device__ static int first_column() {
    return static_cast<int>(threadIdx.x / kWarpSize) % kWarpsAcross * kWarpColumns;
  }

  __device__ void accumulate(const StagedRows<kTile>& a, const StagedRows<kTile>& b) {
    entries.template accumulate<static_cast<int>(kFeatureStepBytes), kStagedRowBytes>(
        a.row(first_row()), b.row(first_column()));
  }

  template <typename Visit>
  __device__ void for_each_entry(Visit visit) const {
    entries.for_each_entry([&](int row, int column, float value) {
      visit(first_row() + row, first_column() + column, value);
    });
  }
};

}  // namespace repsim_fast
