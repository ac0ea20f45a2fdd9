// Version 7 of the Gram: one pass, products by warpgroups, Hopper's units, which multiply straight
// from shared memory (wgmma) while the threads that asked for it round the next strip. Up to 256
// samples: two warpgroups have five tiles of 64 each, so that operands are read for six products a
// step instead of by ten warps.
//
// Columns are not centred but shifted by the mean of their first eight rows: that needs neither a
// pass over the strip nor a barrier, and what is left of their means goes when the Gram is
// finished, for H K H, and U-centring, are the same for all shifts. Rounding to bfloat16 is as fine
// for a shift nearby.
#include <stdexcept>

#include "cuda/gram/centered_gram.cuh"
#include "cuda/portability/portability.h"
#include "kernels/portability/bulk_copies.h"
#include "kernels/portability/warpgroup_products.h"
#include "kernels/study.cuh"
#include "math/triangle.h"

namespace repsim_fast::study {
namespace {

constexpr int kTile = 64, kTiles = static_cast<int>(kSinglePassTiles);
constexpr int kRows = static_cast<int>(kSinglePassTileRows) * kTile;
constexpr int kThreads = 2 * kWarpgroupSize;
constexpr int kWarps = kThreads / static_cast<int>(kWarpSize);
constexpr int64_t kSharedBytes = int64_t{227} << 10;  // that a block may have on these devices
constexpr int kColumns = kUnitRowBytes / static_cast<int>(sizeof(BFloat16));  // of a strip
constexpr int kStepBytes = 32;                                                // of one product

// A thread has eight columns, 16 bytes of operands, of every 32nd row.
constexpr int kPerThread = 8;
constexpr int kChunks = kColumns / kPerThread;
constexpr int kRowsAtOnce = kThreads / kChunks;
constexpr int kRowsEach = kRows / kRowsAtOnce;

template <typename In>
struct Strips {
  static constexpr bool kNarrow = sizeof(In) == 2;
  static constexpr int kRowBytes = kColumns * static_cast<int>(sizeof(In));
  // Of narrow ones there is room for more, and for operands that are written while others are
  // multiplied. Of wide ones products take a smaller share of the time.
  static constexpr int kStages = kNarrow ? 4 : 3;
  static constexpr int kOperands = kNarrow ? 2 : 1;

  struct Shared {
    alignas(1024) unsigned char operands[kOperands][kRows * kUnitRowBytes];
    alignas(128) unsigned char strips[kStages][kRows * kRowBytes];
    CopyBarrier arrived[kStages];
  };
};

// Eight neighbouring entries of a strip. Of 32 bytes every second group of four lanes takes the
// halves the other way round: eight lanes then read 128 bytes of different banks.
template <typename In>
__device__ void load_values(float (&values)[kPerThread], const unsigned char* chunk) {
  constexpr int kPieces = kPerThread * static_cast<int>(sizeof(In)) / 16;
  constexpr int kPerPiece = kPerThread / kPieces;
  struct alignas(16) Piece {
    In value[kPerPiece];
  };
  const int first = kPieces == 1 ? 0 : static_cast<int>(threadIdx.x) / 4 % 2;
  Piece pieces[kPieces];
  REPSIM_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    pieces[i] = *reinterpret_cast<const Piece*>(chunk + (kPieces == 1 ? 0 : (i ^ first) * 16));
  }
  REPSIM_UNROLL
  for (int e = 0; e < kPerThread; ++e) {
    const In here = pieces[e / kPerPiece].value[e % kPerPiece];
    const In there = pieces[kPieces - 1 - e / kPerPiece].value[e % kPerPiece];
    values[e] = to_math(first == 0 ? here : there);
  }
}

// The tiles of one warpgroup: products of rows a with rows b, a pair of neighbouring tiles twice
// and one tile once. The same shapes for both, and each of the ten tiles once.
struct Share {
  int a[3], b[3];  // tile rows; of the pairs, b is the first of two
};
constexpr Share share_of(int warpgroup) {
  return warpgroup == 0 ? Share{{3, 3, 0}, {0, 2, 0}} : Share{{2, 1, 2}, {0, 0, 2}};
}

struct Sums {
  float pairs[2][kTile], single[kTile / 2];
};

template <int kWarpgroup>
__device__ void multiply(Sums& sums, const unsigned char* operands) {
  constexpr Share kShare = share_of(kWarpgroup);
  begin_products();
  REPSIM_UNROLL
  for (int byte = 0; byte < kUnitRowBytes; byte += kStepBytes) {
    const auto rows = [&](int tile_row) {
      return operands + tile_row * kTile * kUnitRowBytes + byte;
    };
    multiply_rows(sums.pairs[0], rows(kShare.a[0]), rows(kShare.b[0]));
    multiply_rows(sums.pairs[1], rows(kShare.a[1]), rows(kShare.b[1]));
    multiply_rows(sums.single, rows(kShare.a[2]), rows(kShare.b[2]));
  }
  commit_products();
}

template <typename In>
__global__ void __launch_bounds__(kThreads, 1)
    gram_warpgroups_kernel(const __grid_constant__ TensorMap x,  // (n, p) by strips of all rows
                           int64_t n, int64_t p, bool shifted,
                           float* gram) {  // (gridDim.x, kTiles, kTile, kTile)
  using S = Strips<In>;
  auto& shared = shared_memory<typename S::Shared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const auto row_of = [](int i) {
    return static_cast<int>(threadIdx.x) / kChunks + i * kRowsAtOnce;
  };
  // Rows that only fill the last tile are not copied, and become zeros.
  const auto inside = [&](int i) { return row_of(i) < n; };
  const float weight = 1.0f / static_cast<float>(n < 8 ? n : 8);
  const int64_t count = (p + kColumns - 1) / kColumns;
  const int64_t mine = blockIdx.x < count ? (count - blockIdx.x - 1) / gridDim.x + 1 : 0;

  const auto stage = [&](int64_t s) {
    if (s >= mine || threadIdx.x != 0) return;
    CopyBarrier& barrier = shared.arrived[s % S::kStages];
    expect_bytes(barrier, n * S::kRowBytes);
    copy_rectangle(shared.strips[s % S::kStages], x, 0, (blockIdx.x + s * gridDim.x) * kColumns,
                   barrier);
  };
  const auto load = [&](float (&values)[kPerThread], int64_t s, int row) {
    load_values<In>(values, shared.strips[s % S::kStages] + row * S::kRowBytes +
                                chunk * kPerThread * static_cast<int>(sizeof(In)));
  };
  // Of a column: the mean of its first eight rows. Four lanes have the same columns, and two of
  // those rows each.
  const auto shift_of = [&](float (&shift)[kPerThread], int64_t s) {
    REPSIM_UNROLL
    for (int e = 0; e < kPerThread; ++e) shift[e] = 0;
    if (!shifted) return;
    REPSIM_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = lane / kChunks * 2 + i;
      float values[kPerThread];
      load(values, s, row);
      REPSIM_UNROLL
      for (int e = 0; e < kPerThread; ++e) shift[e] += row < n ? values[e] : 0.0f;
    }
    REPSIM_UNROLL
    for (int e = 0; e < kPerThread; ++e) {
      shift[e] += __shfl_xor_sync(kFullWarp, shift[e], 8);
      shift[e] += __shfl_xor_sync(kFullWarp, shift[e], 16);
      shift[e] *= weight;
    }
  };
  const auto write_operands = [&](int64_t s) {
    float shift[kPerThread];
    shift_of(shift, s);
    static_assert(kRowsAtOnce % 8 == 0, "all rows of a thread are swizzled alike");
    unsigned char* place = shared.operands[s % S::kOperands] + swizzled(row_of(0), chunk * 16);
    REPSIM_UNROLL
    for (int i = 0; i < kRowsEach; ++i) {
      float values[kPerThread];
      load(values, s, row_of(i));
      struct alignas(16) Operands {
        BFloat16 value[kPerThread];
      } out{};
      if (inside(i)) {
        REPSIM_UNROLL
        for (int e = 0; e < kPerThread; ++e) {
          out.value[e] = convert_to<BFloat16>(values[e] - shift[e]);
        }
      }
      *reinterpret_cast<Operands*>(place + i * kRowsAtOnce * kUnitRowBytes) = out;
    }
    share_with_units();
  };

  const int warpgroup = warp / (kWarps / 2);
  Sums sums{};
  const auto multiply_strip = [&](int64_t s) {
    const unsigned char* operands = shared.operands[s % S::kOperands];
    if (warpgroup == 0) {
      multiply<0>(sums, operands);
    } else {
      multiply<1>(sums, operands);
    }
  };

  if (threadIdx.x == 0) {
    for (CopyBarrier& barrier : shared.arrived) init_barrier(barrier);
  }
  __syncthreads();

  for (int64_t s = 0; s < S::kStages - 1; ++s) stage(s);
  for (int64_t s = 0; s <= mine; ++s) {
    if (s < mine) wait_phase(shared.arrived[s % S::kStages], s / S::kStages % 2);
    // All have written the operands of strip s - 1, and have done with its slot, to which the next
    // copy goes.
    __syncthreads();
    stage(s + S::kStages - 1);
    if (s > 0) multiply_strip(s - 1);
    if constexpr (S::kOperands == 1) {
      wait_products<0>();
      __syncthreads();
    }
    if (s < mine) write_operands(s);
    if constexpr (S::kOperands == 2) wait_products<0>();
  }

  const auto put = [&](int row_tile, int column_tile, int column, const float* sums) {
    float* tile = gram + (int64_t{blockIdx.x} * kTiles + triangle_index(row_tile, column_tile)) *
                             (kTile * kTile);
    const int row = warp % 4 * 16 + lane / 4;
    REPSIM_UNROLL
    for (int half = 0; half < 2; ++half) {
      REPSIM_UNROLL
      for (int e = 0; e < 2; ++e) {
        tile[(row + half * 8) * kTile + column + lane % 4 * 2 + e] = sums[half * 2 + e];
      }
    }
  };
  const Share share = share_of(warpgroup);
  REPSIM_UNROLL
  for (int j = 0; j < kTile / 4; ++j) {  // eight columns, two tiles side by side
    put(share.a[0], share.b[0] + j / 8, j % 8 * 8, sums.pairs[0] + j * 4);
    put(share.a[1], share.b[1] + j / 8, j % 8 * 8, sums.pairs[1] + j * 4);
    if (j < 8) put(share.a[2], share.b[2], j * 8, sums.single + j * 4);
  }
}

template <typename In>
void launch_type(const SinglePassArguments& arguments, void* stream) {
  static_assert(sizeof(typename Strips<In>::Shared) <= kSharedBytes);
  const TensorMap x =
      make_tensor_map({.matrix = arguments.x,
                       .element_bytes = sizeof(In),
                       .rows = arguments.n,
                       .columns = arguments.p,
                       .row_bytes = arguments.row_stride * static_cast<int64_t>(sizeof(In)),
                       .box_rows = arguments.n,
                       .box_columns = kColumns});
  launch("gram_warpgroups", gram_warpgroups_kernel<In>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = kThreads,
          .shared_bytes = sizeof(typename Strips<In>::Shared),
          .stream = stream},
         x, arguments.n, arguments.p, arguments.centre, static_cast<float*>(arguments.gram));
}

}  // namespace

bool warpgroups_available() { return warpgroup_products_available(); }

void launch_gram_warpgroups(const SinglePassArguments& arguments, void* stream) {
  if (arguments.n == 0) return;
  if (arguments.n > kRows || arguments.tile != kTile ||
      arguments.operand_type != ElementType::kBFloat16 ||
      !single_pass_layout(arguments.x, arguments.x_type, arguments.row_stride, 1)) {
    throw std::invalid_argument(
        "gram_warpgroups: expected at most 256 aligned rows, tiles of 64 and bfloat16 operands");
  }
  switch (arguments.x_type) {
    case ElementType::kFloat32:
      launch_type<float>(arguments, stream);
      break;
    case ElementType::kFloat16:
      launch_type<Half>(arguments, stream);
      break;
    case ElementType::kBFloat16:
      launch_type<BFloat16>(arguments, stream);
      break;
    default:
      throw std::invalid_argument("gram_warpgroups: expected features of at most 32 bits");
  }
  launch_sum_splits({.gram = arguments.gram,
                     .wide = false,
                     .entries = kTiles * kTile * kTile,
                     .splits = arguments.splits},
                    stream);
}

}  // namespace repsim_fast::study
