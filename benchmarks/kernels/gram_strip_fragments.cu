// Version 6 of the Gram: strips arrive as in version 3, but are centred on the way from shared
// memory to the matrix units, as in version 5, so that operands are never written. Up to 128
// samples: three warps share 16 columns of a strip, one for each tile of 64 of the triangle.
#include <cstring>
#include <stdexcept>

#include "cuda/portability/portability.h"
#include "kernels/study.cuh"

namespace repsim_fast::study {
namespace {

constexpr int kTile = 64, kTiles = 3, kRows = 2 * kTile;
constexpr int kGroups = 4;  // of three warps: each has 16 columns of a strip
constexpr int kWarps = kGroups * kTiles;
constexpr int kThreads = kWarps * static_cast<int>(kWarpSize);
constexpr int kStepColumns = 16, kColumns = kGroups * kStepColumns;

template <typename In>
struct Strips {
  static constexpr int kBytes = kColumns * static_cast<int>(sizeof(In));
  // Padded: eight neighbouring rows' equal columns lie in different banks.
  static constexpr int kPitch = kBytes + 16;
  static constexpr int kStages = sizeof(In) == 2 ? 6 : 4;
  static constexpr int kPerVector = 16 / static_cast<int>(sizeof(In));
  static constexpr int kVectors = kBytes / 16;  // of a row
  static constexpr int kRowsAtOnce = kThreads / kVectors;

  struct alignas(16) Vector {
    In value[kPerVector];
  };
  struct Shared {
    union {
      alignas(16) unsigned char strips[kStages][kRows * kPitch];
      float gram[kTiles][kTile][kTile];  // in the end
    };
    float sums[2][kWarps][kColumns];  // of a strip's columns, by warp
  };
};

// What a lane multiplies: features 8 w + feature_of(h) of its step, w, h = 0, 1.
template <typename In>
__device__ int feature_of(int h) {
  const int quarter = static_cast<int>(threadIdx.x % 4);
  return sizeof(In) == 2 ? 2 * quarter + h : quarter + 4 * h;
}

struct Centre {
  float origin[2][2], mean[2][2];  // of features (w, h)
};

__device__ inline uint32_t pack(float low, float high) {
  const BFloat16 pair[2] = {convert_to<BFloat16>(low), convert_to<BFloat16>(high)};
  uint32_t word;
  std::memcpy(&word, pair, sizeof(word));
  return word;
}

__device__ inline float half_of(uint32_t word, int h) {
  return bits_float(h == 0 ? word << 16 : word & 0xffff0000u);
}

// 16 rows from `row` on of a step, centred and rounded: words (w, rows 0..7 and 8..15).
template <typename In>
__device__ void load_rows(uint32_t (&words)[2][2], const unsigned char* step, int row, int64_t n,
                          const Centre& centre) {
  constexpr int kPitch = Strips<In>::kPitch;
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  float values[2][2][2];  // piece of 8 rows, w, h
  if constexpr (sizeof(In) == 2) {
    uint32_t raw[4];
    load_matrices(raw, step + (row + lane % 16) * kPitch + lane / 16 * 16);
    REPSIM_UNROLL
    for (int word = 0; word < 4; ++word) {
      values[word % 2][word / 2][0] = half_of(raw[word], 0);
      values[word % 2][word / 2][1] = half_of(raw[word], 1);
    }
  } else {
    REPSIM_UNROLL
    for (int piece = 0; piece < 2; ++piece) {
      uint32_t raw[4];
      load_matrices(raw, step + (row + piece * 8 + lane % 8) * kPitch + lane / 8 * 16);
      REPSIM_UNROLL
      for (int i = 0; i < 4; ++i) values[piece][i / 2][i % 2] = bits_float(raw[i]);
    }
  }
  REPSIM_UNROLL
  for (int piece = 0; piece < 2; ++piece) {
    const bool inside = row + piece * 8 + lane / 4 < n;
    REPSIM_UNROLL
    for (int w = 0; w < 2; ++w) {
      float centred[2];
      REPSIM_UNROLL
      for (int h = 0; h < 2; ++h) {
        const float value = values[piece][w][h] - centre.origin[w][h] - centre.mean[w][h];
        centred[h] = inside ? value : 0.0f;
      }
      words[w][piece] = pack(centred[0], centred[1]);
    }
  }
}

// One block takes every gridDim.x-th strip. While the columns of one strip are summed, the strip
// before is multiplied, and the ones after are on their way.
template <typename In>
__global__ void __launch_bounds__(kThreads, 1)
    gram_strip_fragments_kernel(const In* x,  // (n, p), rows row_stride apart
                                int64_t n, int64_t p, int64_t row_stride, bool centre,
                                float* gram) {  // (gridDim.x, kTiles, kTile, kTile)
  using S = Strips<In>;
  auto& shared = shared_memory<typename S::Shared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const int group = warp / kTiles, tile = warp % kTiles;  // numbered as in math/triangle.h
  const int vector = static_cast<int>(threadIdx.x) % S::kVectors;
  const int first_row = static_cast<int>(threadIdx.x) / S::kVectors;
  const int64_t count = (p + kColumns - 1) / kColumns;
  const int64_t mine = blockIdx.x < count ? (count - blockIdx.x - 1) / gridDim.x + 1 : 0;
  const auto staged = [&](int64_t s) { return shared.strips[s % S::kStages]; };

  const auto stage = [&](int64_t s) {
    if (s < mine) {
      const int64_t column = (blockIdx.x + s * gridDim.x) * kColumns + vector * S::kPerVector;
      const int64_t left = (p - column) * static_cast<int64_t>(sizeof(In));
      const int bytes = left <= 0 ? 0 : left < 16 ? static_cast<int>(left) : 16;
      for (int row = first_row; row < n; row += S::kRowsAtOnce) {
        copy_async_16(staged(s) + row * S::kPitch + vector * 16,
                      bytes > 0 ? x + row * row_stride + column : x, bytes);
      }
    }
    commit_copies();
  };
  const auto add_columns = [&](int64_t s) {
    float sum[S::kPerVector] = {};
    const auto at = [&](int row) {
      return *reinterpret_cast<const typename S::Vector*>(staged(s) + row * S::kPitch +
                                                          vector * 16);
    };
    const typename S::Vector origin = at(0);
    REPSIM_UNROLL_BY(1)
    for (int row = first_row; row < n; row += S::kRowsAtOnce) {
      const typename S::Vector values = at(row);
      REPSIM_UNROLL
      for (int e = 0; e < S::kPerVector; ++e) {
        sum[e] += to_math(values.value[e]) - to_math(origin.value[e]);
      }
    }
    REPSIM_UNROLL
    for (int e = 0; e < S::kPerVector; ++e) {
      // Lanes kVectors apart have the same columns.
      for (unsigned mask = S::kVectors; mask < kWarpSize; mask *= 2) {
        sum[e] += __shfl_xor_sync(kFullWarp, sum[e], mask);
      }
      if (lane < S::kVectors) shared.sums[s % 2][warp][vector * S::kPerVector + e] = sum[e];
    }
  };
  const auto centre_of = [&](int64_t s) {
    Centre found{};
    if (!centre) return found;
    REPSIM_UNROLL
    for (int w = 0; w < 2; ++w) {
      REPSIM_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int column = group * kStepColumns + 8 * w + feature_of<In>(h);
        found.origin[w][h] = to_math(reinterpret_cast<const In*>(staged(s))[column]);
        // The eight lanes with this column share the warps' sums.
        float sum = 0;
        for (int from = lane / 4; from < kWarps; from += 8) sum += shared.sums[s % 2][from][column];
        for (unsigned mask = 4; mask < kWarpSize; mask *= 2) {
          sum += __shfl_xor_sync(kFullWarp, sum, mask);
        }
        found.mean[w][h] = sum / static_cast<float>(n);
      }
    }
    return found;
  };

  // Piece (i, j), 16 x 8 entries, of the warp's tile.
  float sum[4][8][4] = {};
  const auto multiply = [&](int64_t s) {
    const Centre columns = centre_of(s);
    const unsigned char* step = staged(s) + group * kStepColumns * static_cast<int>(sizeof(In));
    const bool square = tile == 1;
    const int left_row = tile == 0 ? 0 : kTile, right_row = tile == 2 ? kTile : 0;
    uint32_t left[4][2][2];
    REPSIM_UNROLL
    for (int i = 0; i < 4; ++i) load_rows<In>(left[i], step, left_row + i * 16, n, columns);
    REPSIM_UNROLL
    for (int j = 0; j < 4; ++j) {  // 16 columns of the tile
      uint32_t right[2][2];
      if (square) {
        load_rows<In>(right, step, right_row + j * 16, n, columns);
      } else {
        std::memcpy(right, left[j], sizeof(right));
      }
      REPSIM_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (!square && i < j) continue;  // above the diagonal
        const uint32_t a[4] = {left[i][0][0], left[i][0][1], left[i][1][0], left[i][1][1]};
        multiply_tile<BFloat16>(sum[i][2 * j], a, {right[0][0], right[1][0]});
        multiply_tile<BFloat16>(sum[i][2 * j + 1], a, {right[0][1], right[1][1]});
      }
    }
  };

  for (int64_t s = 0; s < S::kStages - 2; ++s) stage(s);
  for (int64_t s = 0; s <= mine; ++s) {
    wait_copies<S::kStages - 3>();
    // Strip s has arrived for all threads, the columns of strip s - 1 are summed, and strip s - 2
    // is done with its slot, to which the next copies go.
    __syncthreads();
    stage(s + S::kStages - 2);
    if (s < mine && centre) add_columns(s);
    if (s > 0) multiply(s - 1);
  }

  // The groups' sums, always in the same order.
  for (int g = 0; g < kGroups; ++g) {
    __syncthreads();
    if (g != group) continue;
    REPSIM_UNROLL
    for (int i = 0; i < 4; ++i) {
      REPSIM_UNROLL
      for (int j = 0; j < 8; ++j) {
        REPSIM_UNROLL
        for (int e = 0; e < 4; ++e) {
          float& entry =
              shared.gram[tile][i * 16 + e / 2 * 8 + lane / 4][j * 8 + lane % 4 * 2 + e % 2];
          entry = g == 0 ? sum[i][j][e] : entry + sum[i][j][e];
        }
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTiles * kTile * kTile; i += kThreads) {
    gram[int64_t{blockIdx.x} * kTiles * kTile * kTile + i] =
        shared.gram[i / (kTile * kTile)][i / kTile % kTile][i % kTile];
  }
}

template <typename In>
void launch_type(const SinglePassArguments& arguments, void* stream) {
  launch("gram_strip_fragments", gram_strip_fragments_kernel<In>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = kThreads,
          .shared_bytes = sizeof(typename Strips<In>::Shared),
          .stream = stream},
         static_cast<const In*>(arguments.x), arguments.n, arguments.p, arguments.row_stride,
         arguments.centre, static_cast<float*>(arguments.gram));
}

}  // namespace

void launch_gram_strip_fragments(const SinglePassArguments& arguments, void* stream) {
  if (arguments.n > kRows || arguments.operand_type != ElementType::kBFloat16) {
    throw std::invalid_argument("gram_strip_fragments: expected n <= 128 and bfloat16 operands");
  }
  if (arguments.x_type == ElementType::kFloat32) {
    launch_type<float>(arguments, stream);
  } else {
    launch_type<BFloat16>(arguments, stream);
  }
  launch_sum_splits({.gram = arguments.gram,
                     .wide = false,
                     .entries = kTiles * kTile * kTile,
                     .splits = arguments.splits},
                    stream);
}

}  // namespace repsim_fast::study
