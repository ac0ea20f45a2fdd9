// Centred Gram matrix on the CPU.
//
// The features are read once, in blocks of some features by all samples. While one block is
// multiplied the next is read, less the mean of some samples (gram_block.h); packed into panels, it
// updates the lower triangle of tiles (tile_kernels.h). Tasks split the features (each with its own
// partial Gram) and, for many samples, the rows of the Gram. A last pass adds the partial Grams,
// centres and writes the result.
#include "cpu/gram/centered_gram.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numbers>
#include <string>
#include <type_traits>
#include <vector>

#include "common/gram_operator.h"
#include "cpu/gram/amx_block.h"
#include "cpu/gram/gram_block.h"
#include "cpu/gram/tile_kernels.h"
#include "math/centering.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Partial Grams of all tasks together stay under this, so that scratch does not grow with threads.
constexpr int64_t kPartialBytes = int64_t{64} << 20;

constexpr int64_t round_up(int64_t a, int64_t unit) { return ceil_div(a, unit) * unit; }

// Index of tile (i, j), j <= i, in the packed triangle of tiles.
constexpr int64_t tile_index(int64_t i, int64_t j) { return i * (i + 1) / 2 + j; }

// How the work is shared: `slices` ranges of features by `bands` ranges of Gram rows.
struct Split {
  int64_t slices, bands;
};

template <typename Block>
Split split_work(int64_t n, int64_t p) {
  using T = typename Block::Element;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t triangle = ceil_div(n, kPanel) * (ceil_div(n, kPanel) + 1) / 2 * kTile;
  const int64_t tasks = std::clamp<int64_t>(triangle * p / kMinTaskProducts, 1, threads);
  const int64_t affordable = kPartialBytes / (triangle * static_cast<int64_t>(sizeof(T)));
  const int64_t slices =
      std::clamp<int64_t>(std::min(affordable, ceil_div(p, Block::kDepth)), 1, tasks);
  return {slices, std::min(tasks / slices, ceil_div(n, kPanel))};
}

// First panel row of band b of `bands` with equal numbers of tiles: the triangle up to row r has
// about r^2/2 tiles.
int64_t band_start(int64_t panels, int64_t b, int64_t bands) {
  return std::llround(static_cast<double>(panels) *
                      std::sqrt(static_cast<double>(b) / static_cast<double>(bands)));
}

// First feature of slice s; slices start at multiples of the unit.
int64_t slice_start(int64_t p, int64_t s, int64_t slices, int64_t unit) {
  return std::min(p, round_up(p * s / slices, unit));
}

// Partial Grams of all slices, as triangles of tiles: partial s, tile t at (s * tiles + t) * kTile.
template <typename Block, typename In>
Scratch<typename Block::Element> products(const In* x, int64_t row_stride, int64_t n, int64_t p,
                                          bool shift, const Split& split) {
  using T = typename Block::Element;
  const int64_t panels = ceil_div(n, kPanel);
  const int64_t tiles = panels * (panels + 1) / 2;
  auto gram = scratch<T>(split.slices * tiles * kTile);
  torch::stable::parallel_for(
      0, split.slices * split.bands, 1, [&](int64_t first_task, int64_t last_task) {
        Block block(n);
        for (int64_t task = first_task; task < last_task; ++task) {
          const int64_t slice = task / split.bands, band = task % split.bands;
          const int64_t first_row = band_start(panels, band, split.bands);
          const int64_t last_row = band_start(panels, band + 1, split.bands);
          T* partial = gram.get() + slice * tiles * kTile;
          std::fill(partial + tile_index(first_row, 0) * kTile,
                    partial + tile_index(last_row, 0) * kTile, T{0});
          const int64_t last_feature = slice_start(p, slice + 1, split.slices, Block::kUnit);
          int64_t feature = slice_start(p, slice, split.slices, Block::kUnit);
          // Blocks of equal depth, not full ones and a remainder; none is deeper than the one
          // before, whose products read it.
          const auto next_depth = [&] {
            const int64_t left = last_feature - feature;
            const int64_t blocks = ceil_div(left, Block::kDepth);
            return std::min(left, round_up(ceil_div(left, blocks), Block::kUnit));
          };
          int64_t depth = feature < last_feature ? next_depth() : 0;
          if (depth > 0) block.begin(x, row_stride, feature, depth, shift);
          while (depth > 0) {
            block.pack();
            feature += depth;
            depth = feature < last_feature ? next_depth() : 0;
            if (depth > 0) block.begin(x, row_stride, feature, depth, shift);
            for (int64_t i = first_row; i < last_row; ++i) {
              for (int64_t j = 0; j <= i; ++j) {
                block.multiply(i, j, partial + tile_index(i, j) * kTile);
              }
            }
          }
        }
      });
  return gram;
}

// Adds the slices' partial Grams into the first one, always in the same order.
template <typename T>
void add_slices(T* gram, int64_t tiles, int64_t slices) {
  if (slices == 1) return;
  torch::stable::parallel_for(0, tiles, 16, [&](int64_t first, int64_t last) {
    for (int64_t s = 1; s < slices; ++s) {
      const T* partial = gram + s * tiles * kTile;
      for (int64_t e = first * kTile; e < last * kTile; ++e) gram[e] += partial[e];
    }
  });
}

// Row sums of the symmetric Gram, with or without its diagonal, padded to whole panels. A tile has
// entries of its rows, and by symmetry of the rows that its columns are. Entries above the diagonal
// become zero.
template <typename T>
std::vector<double> row_sums(T* gram, int64_t n, bool with_diagonal) {
  const int64_t panels = ceil_div(n, kPanel);
  std::vector<double> sums(static_cast<size_t>(panels * kPanel), 0.0);
  for (int64_t i = 0; i < panels; ++i) {
    double* sum = sums.data() + i * kPanel;
    T* diagonal = gram + tile_index(i, i) * kTile;
    for (int64_t r = 0; r < kPanel; ++r) {
      std::fill(diagonal + r * kPanel + r + 1, diagonal + (r + 1) * kPanel, T{0});
    }
    for (int64_t j = 0; j <= i; ++j) {
      tile_kernels<T>().add_sums(gram + tile_index(i, j) * kTile, sum, sums.data() + j * kPanel);
    }
    for (int64_t r = 0; r < kPanel; ++r) {  // counted as its row's and as its column's
      sum[r] -= static_cast<double>(diagonal[r * kPanel + r]) * (with_diagonal ? 1.0 : 2.0);
    }
  }
  return sums;
}

// What centring takes from entry (i, j): offset[i] + offset[j] (math/centering.h). Removing the
// features' means is double centring of the Gram, which also takes away what rounding left of them.
template <typename T>
std::vector<double> centring_offsets(T* gram, int64_t n, Centering centering) {
  const bool unbiased = centering == Centering::kUnbiased;
  std::vector<double> offsets = row_sums(gram, n, /*with_diagonal=*/!unbiased);
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) total += offsets[i];
  const double samples = static_cast<double>(n);
  for (double& offset : offsets) {
    offset = unbiased ? u_centring_offset(offset, total, samples)
                      : double_centring_offset(offset, total, samples);
  }
  return offsets;
}

// Centres the lower triangle and writes it: packed with the weights that keep inner products, or
// as a full symmetric matrix.
template <typename T>
void write_result(T* gram, int64_t n, Centering centering, bool packed, T* out) {
  const bool unbiased = centering == Centering::kUnbiased;
  std::vector<double> offsets(static_cast<size_t>(ceil_div(n, kPanel) * kPanel), 0.0);
  if (centering != Centering::kNone) offsets = centring_offsets(gram, n, centering);
  const double weight = packed ? std::numbers::sqrt2 : 1.0;

  torch::stable::parallel_for(0, ceil_div(n, kPanel), 8, [&](int64_t first, int64_t last) {
    for (int64_t i = first * kPanel; i < std::min(n, last * kPanel); ++i) {
      T* row = out + i * n;
      if (packed) row = out + (unbiased ? i * (i - 1) / 2 : i * (i + 1) / 2);
      const T* tile_row = gram + tile_index(i / kPanel, 0) * kTile + i % kPanel * kPanel;
      for (int64_t j = 0; j < i; j += kPanel) {
        tile_kernels<T>().write_centred(tile_row + j / kPanel * kTile, offsets[i],
                                        offsets.data() + j, weight, std::min(kPanel, i - j),
                                        row + j);
      }
      if (unbiased && packed) continue;  // a zero diagonal is left out
      const double own = static_cast<double>(tile_row[i / kPanel * kTile + i % kPanel]);
      row[i] = unbiased ? T{0} : static_cast<T>(own - 2 * offsets[i]);
    }
  });
  if (packed) return;
  // Square by square: down whole columns each entry would be on another page.
  torch::stable::parallel_for(0, ceil_div(n, kPanel), 8, [&](int64_t first, int64_t last) {
    for (int64_t above = first * kPanel; above < std::min(n, last * kPanel); above += kPanel) {
      const int64_t above_end = std::min(n, above + kPanel);
      for (int64_t left = above; left < n; left += kPanel) {
        const int64_t left_end = std::min(n, left + kPanel);
        for (int64_t i = above; i < above_end; ++i) {
          for (int64_t j = std::max(left, i + 1); j < left_end; ++j) {
            out[i * n + j] = out[j * n + i];
          }
        }
      }
    }
  });
}

template <typename Block, typename In>
void centered_gram_typed(const Features& x, Centering centering, bool packed, void* out) {
  using T = typename Block::Element;
  const int64_t panels = ceil_div(x.n, kPanel);
  const Split split = split_work<Block>(x.n, x.p);
  const auto gram = products<Block>(static_cast<const In*>(x.data), x.row_stride, x.n, x.p,
                                    /*shift=*/centering != Centering::kNone, split);
  add_slices(gram.get(), panels * (panels + 1) / 2, split.slices);
  write_result(gram.get(), x.n, centering, packed, static_cast<T*>(out));
}

void compute(const Tensor& x,  // (n, p)
             const GramCall& call, Tensor& out) {
  STD_TORCH_CHECK(call.precision != Precision::kTf32, "precision: tf32 exists on CUDA only");
  const Tensor rows = x.stride(1) == 1 || call.p <= 1 ? x : torch::stable::contiguous(x);
  centered_gram_of({rows.const_data_ptr(), x.scalar_type(), rows.stride(0), call.n, call.p},
                   call.centering, call.packed, call.precision, out.mutable_data_ptr());
}

Tensor centered_gram(const Tensor& x, const std::string& centering, bool packed,
                     const std::string& precision) {
  const GramCall call = GramCall::of(x, centering, packed, precision);
  Tensor out = call.empty_result(x);
  compute(x, call, out);
  return out;
}

void centered_gram_out(const Tensor& x, const std::string& centering, bool packed,
                       const std::string& precision, Tensor out) {
  const GramCall call = GramCall::of(x, centering, packed, precision);
  call.check_result(x, out);
  compute(x, call, out);
}

}  // namespace

void centered_gram_of(const Features& x, Centering centering, bool packed, Precision precision,
                      void* out) {
  if (x.n == 0) return;
  const bool narrow = precision == Precision::kBFloat16;
  const auto of_floats = [&]<typename In>(In) {
    if (narrow && amx_tile_kernels() != nullptr) {
      centered_gram_typed<AmxBlock, In>(x, centering, packed, out);
    } else if (narrow && int16_tile_kernels() != nullptr) {
      centered_gram_typed<Int16Block, In>(x, centering, packed, out);
    } else {  // more exact, and not slower than rounding first
      centered_gram_typed<Block<float>, In>(x, centering, packed, out);
    }
  };
  switch (x.type) {
    case ScalarType::Double:
      centered_gram_typed<Block<double>, double>(x, centering, packed, out);
      break;
    case ScalarType::Float:
      of_floats(float{});
      break;
    case ScalarType::Half:
      of_floats(torch::headeronly::Half{});
      break;
    case ScalarType::BFloat16:
      of_floats(torch::headeronly::BFloat16{});
      break;
    default:
      STD_TORCH_CHECK(false, "x: expected float64, float32, float16 or bfloat16");
  }
}

STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU, m) {
  m.impl("centered_gram", TORCH_BOX(&centered_gram));
  m.impl("centered_gram_out", TORCH_BOX(&centered_gram_out));
}

}  // namespace repsim_fast
