// Register-blocked products of packed panels: the inner loops of every Gram on the CPU.
//
// A panel holds kPanel rows of the feature matrix, transposed: element (k, r) of the panel is
// feature k of row r, so that one vector load fetches the same feature of many rows.
// The same packed panel serves as left and as right operand; hence each row is packed once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace repsim_fast {

constexpr int64_t kPanel = 32;  // rows of a panel; a tile of the Gram is kPanel x kPanel
constexpr int64_t kTile = kPanel * kPanel;  // elements of a tile

// Depths (features a block) are multiples of this, so that packing transposes whole squares.
constexpr int64_t kDepthUnit = 16;

// Samples or features a block. Two panels of floats fill 24 KiB: of an L1 cache of 32 they leave
// the rest to the rows that are read meanwhile. There 192 take 4 to 6 % longer (AVX2, Zen 3, Grams
// of 128 to 3,000 samples); doubles gain nothing from fewer.
constexpr int64_t kDepth = 96;

// A task must be worth a thread's start (some microseconds).
constexpr int64_t kMinTaskProducts = int64_t{1} << 18;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of one call: on cache lines, so that no vector lies on two of them.
struct ScratchDelete {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};
template <typename T>
using Scratch = std::unique_ptr<T[], ScratchDelete>;

// Uninitialised: every element is written before it is read.
template <typename T>
Scratch<T> scratch(int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  return Scratch<T>(static_cast<T*>(::operator new(bytes, std::align_val_t{64})));
}

// Rows of one block of features on their way to a place where they lie close together, less a
// shift. The products of the block before copy a few rows with each block of sums: the multiplier
// is busy then and the memory is not.
template <typename T>
class Staging {
 public:
  static constexpr int64_t kTogether = 4;  // rows that are copied together
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));  // features a cache line

  Staging() = default;  // nothing to copy
  // x - shift, x (rows, depth) with rows x_stride apart and shift (depth), goes to `to` with rows
  // kDepth apart; depth is a multiple of kDepthUnit.
  Staging(const T* x, int64_t x_stride, int64_t rows, int64_t depth, const T* shift, T* to)
      : from_(x),
        fetch_(x + kAhead * x_stride),
        stride_(x_stride),
        rows_(rows),
        fetches_(rows - kAhead),
        depth_(depth),
        shift_(shift),
        to_(to) {}

  // Rows to copy, line by line, and as many to fetch into the cache meanwhile; also the block that
  // follows in the first of them.
  struct Rows {
    const T* from;
    const T* fetch;
    int64_t stride, count, depth;
    const T* shift;
    T* to;
  };

  Rows take() {
    const int64_t count = rows_ < kTogether ? rows_ : kTogether;
    const Rows rows{
        from_, fetches_ > 0 ? fetch_ : from_, stride_, count, count > 0 ? depth_ : 0, shift_, to_};
    from_ += count * stride_;
    to_ += count * kDepth;
    rows_ -= count;
    fetch_ += kTogether * stride_;
    fetches_ -= kTogether;
    return rows;
  }

  bool done() const { return rows_ == 0; }

 private:
  // Fetching runs this many rows ahead of copying. Rows lie far apart, where hardware prefetching
  // starts anew in each.
  static constexpr int64_t kAhead = 8;

  const T* from_ = nullptr;
  const T* fetch_ = nullptr;
  int64_t stride_ = 0, rows_ = 0, fetches_ = 0, depth_ = 0;
  const T* shift_ = nullptr;
  T* to_ = nullptr;
};

template <typename T>
struct TileKernels {
  // Copies what is left.
  void (*stage)(Staging<T>& rest);
  // out[i] = x[i], given as the bits of float16 numbers; i < count.
  void (*from_half)(const uint16_t* x, int64_t count, T* out);
  // middle[k] = middle one of the means of x[r * row_stride + k] over r = 0, 3, ..., r = 1, 4, ...
  // and r = 2, 5, ... < count, of fewer rows than three the mean; k < depth, a multiple of
  // kDepthUnit.
  void (*middle_mean)(const T* x, int64_t row_stride, int64_t count, int64_t depth, T* middle);
  // panel[k * kPanel + r] = rows[r * row_stride + k], r < kPanel, k < depth.
  void (*pack)(const T* rows, int64_t row_stride, int64_t depth, T* panel);
  // tile[i * kPanel + j] += sum_k a[k, i] * b[k, j], i < rows; later rows may be left out. With
  // `diagonal`, entries with j > i may be left unspecified: a and b are the same panel and only the
  // lower triangle is read.
  void (*multiply)(const T* a, const T* b, int64_t depth, int64_t rows, bool diagonal, T* tile,
                   Staging<T>& next);
  // row_sum[i] += sum_j tile[i, j]; column_sum[j] += sum_i tile[i, j], in double; the two
  // may be the same.
  void (*add_sums)(const T* tile, double* row_sum, double* column_sum);
  // out[j] = (row[j] - row_offset - column_offset[j]) * weight, j < count; double inside. Whole
  // vectors of row and column_offset are read: count may end within a tile's row, not they.
  void (*write_centred)(const T* row, double row_offset, const double* column_offset, double weight,
                        int64_t count, T* out);
};

// The kernels for this processor (see simd_level.h).
template <typename T>
const TileKernels<T>& tile_kernels();

}  // namespace repsim_fast
