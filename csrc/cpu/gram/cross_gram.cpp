// Products xᵀ y of two feature matrices with the same samples, on the CPU.
//
// A panel of the tile kernels holds 32 features of a block of samples, which is how 32 neighbouring
// columns of a row-major matrix lie in memory already: packing is a copy. Tasks are ranges of
// features of x; each packs what it needs of both sides, block of samples by block of samples.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/gram/tile_kernels.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Panels of y that are used in turn for one panel of x: half of an L2 cache of 1 MiB.
constexpr int64_t kTogether = (int64_t{512} << 10) / (kPanel * kDepth * sizeof(float));

// Tiles that are accumulated at once, in bytes: they are gone through for every block of samples,
// so they should stay in an L3 cache.
constexpr int64_t kTilesBytes = int64_t{16} << 20;

// Features [32 panel, 32 panel + 32) of samples [first, first + depth), zero behind the last one.
template <typename T>
void pack(const T* x,  // (n, p) row-major
          int64_t p, int64_t panel, int64_t first, int64_t depth, T* packed) {
  const int64_t start = panel * kPanel;
  const int64_t count = std::min(kPanel, p - start);
  for (int64_t k = 0; k < depth; ++k) {
    const T* row = x + (first + k) * p + start;
    T* out = packed + k * kPanel;
    if (count == kPanel) {
      std::copy_n(row, kPanel, out);
    } else {
      std::fill(std::copy_n(row, count, out), out + kPanel, T{0});
    }
  }
}

// A tile into rows [row, row + kPanel) and columns [column, ...) of out; with `mirrored` also where
// rows and columns change places. Of a tile on the diagonal the lower half counts.
template <typename T>
void write_tile(const T* tile, int64_t row, int64_t column, int64_t p, int64_t q, bool mirrored,
                T* out) {  // (p, q)
  const int64_t rows = std::min(kPanel, p - row), columns = std::min(kPanel, q - column);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t count = mirrored && row == column ? i + 1 : columns;
    std::copy_n(tile + i * kPanel, count, out + (row + i) * q + column);
  }
  if (!mirrored) return;
  for (int64_t j = 0; j < columns; ++j) {
    T* to = out + (column + j) * q + row;
    for (int64_t i = row == column ? j + 1 : 0; i < rows; ++i) to[i] = tile[i * kPanel + j];
  }
}

// Rows of tiles [first_panel, last_panel) of xᵀ y into out; where x is y those up to the diagonal,
// and their mirror images.
template <typename T>
void multiply_rows(const T* x,  // (n, p)
                   const T* y,  // (n, q)
                   int64_t n, int64_t p, int64_t q, int64_t first_panel, int64_t last_panel,
                   T* out) {  // (p, q)
  const bool symmetric = x == y && p == q;
  const int64_t rows = last_panel - first_panel;
  const int64_t columns = symmetric ? last_panel : ceil_div(q, kPanel);
  const auto used = [&](int64_t i) { return symmetric ? first_panel + i + 1 : columns; };
  const auto left = scratch<T>(rows * kPanel * kDepth);
  const auto right = scratch<T>(std::min(columns, kTogether) * kPanel * kDepth);
  const auto tiles = scratch<T>(rows * columns * kTile);
  std::fill_n(tiles.get(), rows * columns * kTile, T{0});
  for (int64_t sample = 0; sample < n; sample += kDepth) {
    const int64_t depth = std::min(kDepth, n - sample);
    for (int64_t i = 0; i < rows; ++i) {
      pack(x, p, first_panel + i, sample, depth, left.get() + i * kPanel * kDepth);
    }
    for (int64_t group = 0; group < columns; group += kTogether) {
      const int64_t together = std::min(kTogether, columns - group);
      for (int64_t j = 0; j < together; ++j) {
        pack(y, q, group + j, sample, depth, right.get() + j * kPanel * kDepth);
      }
      Staging<T> nothing_next;
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t features = std::min(kPanel, p - (first_panel + i) * kPanel);
        for (int64_t j = 0; j < std::min(together, used(i) - group); ++j) {
          tile_kernels<T>().multiply(left.get() + i * kPanel * kDepth,
                                     right.get() + j * kPanel * kDepth, depth, features,
                                     symmetric && group + j == first_panel + i,
                                     tiles.get() + (i * columns + group + j) * kTile, nothing_next);
        }
      }
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < used(i); ++j) {
      write_tile(tiles.get() + (i * columns + j) * kTile, (first_panel + i) * kPanel, j * kPanel, p,
                 q, symmetric, out);
    }
  }
}

template <typename T>
void cross_gram_typed(const Tensor& x, const Tensor& y, Tensor& out) {
  const int64_t n = x.size(0), p = x.size(1), q = y.size(1);
  const T* left = static_cast<const T*>(x.const_data_ptr());
  const T* right = static_cast<const T*>(y.const_data_ptr());
  const bool symmetric = left == right && p == q;
  const int64_t panels = ceil_div(p, kPanel);
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t tasks =
      std::clamp<int64_t>(n * p * q / kMinTaskProducts, 1, std::min<int64_t>(threads, panels));
  const int64_t row_bytes = ceil_div(q, kPanel) * kTile * static_cast<int64_t>(sizeof(T));
  const int64_t together = std::max<int64_t>(1, kTilesBytes / row_bytes);
  // Equal numbers of tiles: rows of a triangle grow.
  const auto begin = [&](int64_t task) {
    const double share = static_cast<double>(task) / static_cast<double>(tasks);
    const double rows = static_cast<double>(panels) * (symmetric ? std::sqrt(share) : share);
    return static_cast<int64_t>(std::lround(rows));
  };
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    const int64_t end = begin(last);
    for (int64_t start = begin(first); start < end; start += together) {
      multiply_rows(left, right, n, p, q, start, std::min(end, start + together),
                    static_cast<T*>(out.mutable_data_ptr()));
    }
  });
}

Tensor cross_gram(const Tensor& x,    // (n, p)
                  const Tensor& y) {  // (n, q)
  STD_TORCH_CHECK(x.dim() == 2 && y.dim() == 2, "x, y: expected matrices, got ", x.dim(), " and ",
                  y.dim(), " dimensions");
  STD_TORCH_CHECK(x.size(0) == y.size(0), "y: expected ", x.size(0), " samples as x, got ",
                  y.size(0));
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), "y: expected the dtype of x");
  const Tensor rows = torch::stable::contiguous(x), columns = torch::stable::contiguous(y);
  const std::vector<int64_t> shape = {x.size(1), y.size(1)};
  Tensor out = torch::stable::new_empty(x, shape);
  if (x.size(1) == 0 || y.size(1) == 0) return out;
  switch (x.scalar_type()) {
    case ScalarType::Double:
      cross_gram_typed<double>(rows, columns, out);
      break;
    case ScalarType::Float:
      cross_gram_typed<float>(rows, columns, out);
      break;
    default:
      STD_TORCH_CHECK(false, "x: expected float64 or float32");
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU, m) { m.impl("cross_gram", TORCH_BOX(&cross_gram)); }

}  // namespace repsim_fast
