// Register-blocked products of packed panels: the inner loops of every Gram on the CPU.
//
// A panel holds kPanel rows of the (already centred) feature matrix, transposed: element (k, r) of
// the panel is feature k of row r, so that one vector load fetches the same feature of many rows.
// The same packed panel serves as left and as right operand; hence each row is packed once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace repsim_fast {

constexpr int64_t kPanel = 32;  // rows of a panel; a tile of the Gram is kPanel x kPanel
constexpr int64_t kTile = kPanel * kPanel;  // elements of a tile

// Depths (features a block) are multiples of this, so that packing transposes whole squares.
constexpr int64_t kDepthUnit = 16;

// Samples or features a block: two panels of 192 floats (96 doubles) fill 48 KiB, the L1 cache of
// current processors.
template <typename T>
constexpr int64_t kDepth = 192 * static_cast<int64_t>(sizeof(float)) / sizeof(T);

// A task must be worth a thread's start (some microseconds).
constexpr int64_t kMinTaskProducts = int64_t{1} << 18;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Uninitialised: every element is written before it is read.
template <typename T>
std::unique_ptr<T[]> scratch(int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<size_t>(count));
}

// What the products of one block of features fetch into the L2 cache for the next block, a few rows
// with each block of sums: the multiplier is busy then and the memory is not.
class NextRows {
 public:
  NextRows() = default;  // nothing to fetch
  NextRows(const void* first, int64_t row_bytes, int64_t rows, int64_t depth_bytes)
      : at_(static_cast<const char*>(first)),
        row_bytes_(row_bytes),
        left_(rows),
        lines_((depth_bytes + kLineBytes - 1) / kLineBytes) {}

  // Rows that one block of sums fetches, line by line.
  struct Some {
    const char* at;
    int64_t row_bytes, rows, lines;

    void prefetch_line(int64_t line) const {
      if (line >= lines) return;
      for (int64_t r = 0; r < rows; ++r) {
        __builtin_prefetch(at + r * row_bytes + line * kLineBytes, 0, 2);
      }
    }
  };

  Some take() {
    const int64_t rows = left_ < kTaken ? left_ : kTaken;
    const Some some{at_, row_bytes_, rows, lines_};
    at_ += rows * row_bytes_;
    left_ -= rows;
    return some;
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  static constexpr int64_t kTaken = 4;
  const char* at_ = nullptr;
  int64_t row_bytes_ = 0, left_ = 0, lines_ = 0;
};

template <typename T>
struct TileKernels {
  // sum[k] += x[r, k] over r < count, for k < depth.
  void (*add_rows)(const T* x, int64_t x_stride, int64_t count, int64_t depth, double* sum);
  // panel[k * kPanel + r] = rows[r * row_stride + k] - mean[k], r < kPanel, k < depth.
  void (*pack)(const T* rows, int64_t row_stride, const T* mean, int64_t depth, T* panel);
  // tile[i * kPanel + j] += sum_k a[k, i] * b[k, j]. With `diagonal`, entries with j > i may be
  // left unspecified: a and b are the same panel and only the lower triangle is read.
  void (*multiply)(const T* a, const T* b, int64_t depth, bool diagonal, T* tile, NextRows& next);
  // row_sum[i] += sum_j tile[i, j]; column_sum[j] += sum_i tile[i, j]. Sums of T in double.
  void (*add_sums)(const T* tile, double* row_sum, double* column_sum);
  // out[j] = (row[j] - row_offset - column_offset[j]) * weight, j < count; double inside.
  void (*write_centred)(const T* row, double row_offset, const double* column_offset, double weight,
                        int64_t count, T* out);
};

// bfloat16 products: a panel element is a pair of neighbouring features of one row, rounded to
// nearest even, in one 32-bit word; depth counts features and is even.
struct Bf16TileKernels {
  void (*pack)(const float* rows, int64_t row_stride, const float* mean, int64_t depth,
               uint32_t* panel);
  void (*multiply)(const uint32_t* a, const uint32_t* b, int64_t depth, bool diagonal, float* tile,
                   NextRows& next);
};

// The kernels for this processor (see simd_level.h).
template <typename T>
const TileKernels<T>& tile_kernels();

// Null where the processor has no bfloat16 dot product.
const Bf16TileKernels* bf16_tile_kernels();

// Rounds to bfloat16 precision (nearest even), keeping float storage.
void round_to_bf16(float* values, int64_t count);

}  // namespace repsim_fast
