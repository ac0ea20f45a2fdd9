// The products of a centred Gram in one pass over x: kernel and launch for any way (Strips) that
// strips of x come to shared memory. The kernel study compares more of them than the one below.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "cuda/gram/centered_gram.cuh"
#include "cuda/gram/warp_tile.cuh"
#include "cuda/portability/portability.h"
#include "math/triangle.h"

namespace repsim_fast {

// In: type of x; Operand: BFloat16, Tf32 or float (WarpTile); kTile: side of a warp's tile.
template <typename In_, typename Operand_, int kTileSide>
struct SinglePass {
  using In = In_;
  using Operand = Operand_;
  static constexpr int kTile = kTileSide;
  static constexpr int kThreads =
      static_cast<int>(kSinglePassTiles) * static_cast<int>(kWarpSize);  // a warp a tile

  static constexpr int kStripBytes = static_cast<int>(kSinglePassStripBytes);
  static constexpr int kVectorsPerRow = kStripBytes / 16;
  static constexpr int kRowsAtOnce = kThreads / kVectorsPerRow;

  static constexpr int kRows = static_cast<int>(kSinglePassTileRows) * kTile;
  static constexpr int kPerVector = 16 / static_cast<int>(sizeof(In));
  static constexpr int kColumns = kStripBytes / static_cast<int>(sizeof(In));
  static constexpr int kOperandBytes = kColumns * static_cast<int>(sizeof(Operand));
  // 16 bytes of padding put eight neighbouring rows' equal columns into different banks.
  static constexpr int kOperandPitch = kOperandBytes + 16;

  static constexpr int kStages = static_cast<int>(single_pass_stages(kTile, sizeof(Operand)));
  // Blocks of a multiprocessor: what registers and shared memory allow.
  static constexpr int kBlocks = kTile == 64 ? 1 : 2;

  struct alignas(16) Vector {
    In value[kPerVector];
  };
  struct alignas(sizeof(Operand) * kPerVector) OperandVector {
    Operand value[kPerVector];
  };

  // Lanes kVectorsPerRow apart have the same columns, of which each lane owns a share: those whose
  // sums over the rows it completes.
  static constexpr int kOwn = kPerVector * kVectorsPerRow / static_cast<int>(kWarpSize);
  struct alignas(4 * kOwn) OwnSums {
    float value[kOwn];
  };

  // This thread's part of a strip: vector `vector` of rows first, first + kRowsAtOnce, ...
  struct Part {
    int vector, first;
  };
  __device__ static Part part() {
    return {static_cast<int>(threadIdx.x) % kVectorsPerRow,
            static_cast<int>(threadIdx.x) / kVectorsPerRow};
  }
};

constexpr int64_t kNoStrip = -1;

template <typename Strips>
struct SinglePassShared {
  using Pass = typename Strips::Pass;
  alignas(128) unsigned char strips[Pass::kStages][Pass::kRows * Pass::kStripBytes];
  alignas(16) unsigned char operands[Pass::kRows * Pass::kOperandPitch];
  typename Pass::OwnSums sums[kSinglePassTiles][kWarpSize];  // by warp and owner
  typename Strips::Shared arrivals;
};

// half = the sums of this lane's and another one's values, of those that it keeps: of two lanes
// `distance` apart the upper one has the upper half.
template <int kCount>
__device__ inline void halve_sums(float (&half)[kCount], const float (&all)[2 * kCount],
                                  unsigned distance) {
  const bool upper = (threadIdx.x & distance) != 0;
  REPSIM_UNROLL
  for (int e = 0; e < kCount; ++e) {
    const float keep = upper ? all[kCount + e] : all[e], give = upper ? all[e] : all[kCount + e];
    half[e] = keep + __shfl_xor_sync(kFullWarp, give, distance);
  }
}

// The way back: all = what both lanes have.
template <int kCount>
__device__ inline void join_halves(float (&all)[2 * kCount], const float (&half)[kCount],
                                   unsigned distance) {
  const bool upper = (threadIdx.x & distance) != 0;
  REPSIM_UNROLL
  for (int e = 0; e < kCount; ++e) {
    const float other = __shfl_xor_sync(kFullWarp, half[e], distance);
    all[e] = upper ? other : half[e];
    all[kCount + e] = upper ? half[e] : other;
  }
}

// One block takes every gridDim.x-th strip of all rows. While the tiles of one strip are
// multiplied, the columns of the next are summed, and the ones after that are on their way; between
// two barriers it is then centred and rounded to the operands.
template <typename Strips>
__global__ void __launch_bounds__(Strips::Pass::kThreads, Strips::Pass::kBlocks)
    single_pass_kernel(const __grid_constant__ Strips strips,  // of x (n, p)
                       int64_t n, int64_t p, bool centre,
                       float* gram) {  // (gridDim.x, kSinglePassTiles, kTile, kTile)
  using Pass = typename Strips::Pass;
  using Vector = typename Pass::Vector;
  constexpr int kPerVector = Pass::kPerVector, kTile = Pass::kTile;
  auto& shared = shared_memory<SinglePassShared<Strips>>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const auto part = Pass::part();
  const int rows = static_cast<int>(n);
  const float weight = 1.0f / static_cast<float>(n);

  const int64_t count = (p + Pass::kColumns - 1) / Pass::kColumns;
  const int64_t mine = blockIdx.x < count ? (count - blockIdx.x - 1) / gridDim.x + 1 : 0;

  const auto staged = [&](int64_t s) { return shared.strips[s % Pass::kStages]; };
  const auto stage = [&](int64_t s) {
    const int64_t strip = s < mine ? blockIdx.x + s * gridDim.x : kNoStrip;
    strips.stage(shared.arrivals, s, strip, n, p, staged(s));
  };
  const auto vector_at = [&](int64_t s, int row) {
    return *reinterpret_cast<const Vector*>(staged(s) + row * Pass::kStripBytes + part.vector * 16);
  };

  // Sums of the columns, relative to their first entry: a common mean far from zero costs nothing.
  const auto add_columns = [&](int64_t s) {
    float sum[kPerVector] = {};
    const Vector origin = vector_at(s, 0);
    REPSIM_UNROLL_BY(1)
    for (int row = part.first; row < rows; row += Pass::kRowsAtOnce) {
      const Vector values = vector_at(s, row);
      REPSIM_UNROLL
      for (int e = 0; e < kPerVector; ++e)
        sum[e] += to_math(values.value[e]) - to_math(origin.value[e]);
    }
    float half[kPerVector / 2];
    typename Pass::OwnSums own;
    halve_sums(half, sum, Pass::kVectorsPerRow);
    halve_sums(own.value, half, 2 * Pass::kVectorsPerRow);
    shared.sums[warp][lane] = own;
  };

  const auto write_operands = [&](int64_t s) {
    float shift[kPerVector] = {}, origin[kPerVector] = {};
    if (centre) {
      float own[Pass::kOwn] = {}, half[kPerVector / 2];
      REPSIM_UNROLL
      for (int w = 0; w < static_cast<int>(kSinglePassTiles); ++w) {
        const typename Pass::OwnSums part_of_warp = shared.sums[w][lane];
        REPSIM_UNROLL
        for (int e = 0; e < Pass::kOwn; ++e) own[e] += part_of_warp.value[e];
      }
      REPSIM_UNROLL
      for (int e = 0; e < Pass::kOwn; ++e) own[e] *= weight;
      join_halves(half, own, 2 * Pass::kVectorsPerRow);
      join_halves(shift, half, Pass::kVectorsPerRow);
      const Vector first = vector_at(s, 0);
      REPSIM_UNROLL
      for (int e = 0; e < kPerVector; ++e) origin[e] = to_math(first.value[e]);
    }
    REPSIM_UNROLL_BY(1)
    for (int row = part.first; row < rows; row += Pass::kRowsAtOnce) {
      const Vector values = vector_at(s, row);
      typename Pass::OperandVector out;
      REPSIM_UNROLL
      for (int e = 0; e < kPerVector; ++e) {
        out.value[e] =
            convert_to<typename Pass::Operand>(to_math(values.value[e]) - origin[e] - shift[e]);
      }
      *reinterpret_cast<typename Pass::OperandVector*>(shared.operands + row * Pass::kOperandPitch +
                                                       part.vector *
                                                           static_cast<int>(sizeof(out))) = out;
    }
  };

  // Rows that only fill the last tile stay zero.
  for (int i = rows * Pass::kOperandPitch / 4 + static_cast<int>(threadIdx.x);
       i < Pass::kRows * Pass::kOperandPitch / 4; i += Pass::kThreads) {
    reinterpret_cast<uint32_t*>(shared.operands)[i] = 0;
  }

  const TrianglePosition tile = triangle_position(warp);
  WarpTile<typename Pass::Operand, kTile, kTile> product;
  strips.begin(shared.arrivals);
  for (int64_t s = 0; s < Pass::kStages - 1; ++s) stage(s);
  for (int64_t s = 0; s <= mine; ++s) {
    strips.wait(shared.arrivals, s, mine);
    // Strip s has arrived for all threads; all have written the operands of strip s - 1, and have
    // done with its slot, to which the next copies go.
    __syncthreads();
    stage(s + Pass::kStages - 1);
    if (s < mine && centre) add_columns(s);
    if (s > 0) {
      product.template accumulate<Pass::kOperandBytes, Pass::kOperandPitch>(
          shared.operands + static_cast<int>(tile.row) * kTile * Pass::kOperandPitch,
          shared.operands + static_cast<int>(tile.column) * kTile * Pass::kOperandPitch);
    }
    __syncthreads();  // all sums are there, and the operands of strip s - 1 done with
    if (s < mine) write_operands(s);
  }

  float* out = gram + (int64_t{blockIdx.x} * kSinglePassTiles + warp) * (kTile * kTile);
  product.for_each_entry(
      [&](int row, int column, float value) { out[row * kTile + column] = value; });
}

// ---- strips: how they come to shared memory
//
//   Pass, Shared           what they are for; what they need in shared memory
//   of(arguments)          made of the launch's arguments, on the host
//   begin(shared)          before anything else, by all threads
//   stage(shared, s, ...)  starts the copy of the s-th strip, by all threads and in order; columns
//                          from p on become zero. Nothing to copy for kNoStrip
//   wait(shared, s, mine)  until the s-th of `mine` strips is there: all of it after a barrier

// Every thread copies its vectors, 16 bytes at a time.
template <typename Pass_>
struct AsyncStrips {
  using Pass = Pass_;
  using In = typename Pass::In;
  struct Shared {};

  const In* x;         // (n, p), 16-byte aligned rows
  int64_t row_stride;  // in elements

  static AsyncStrips of(const SinglePassArguments& arguments) {
    return {static_cast<const In*>(arguments.x), arguments.row_stride};
  }

  __device__ void begin(Shared&) const {}

  __device__ void stage(Shared&, int64_t, int64_t strip, int64_t n, int64_t p,
                        unsigned char* staged) const {
    if (strip != kNoStrip) {
      const auto part = Pass::part();
      const int64_t byte = strip * Pass::kStripBytes + part.vector * 16;
      const int64_t left = p * static_cast<int64_t>(sizeof(In)) - byte;
      const int bytes = left <= 0 ? 0 : left < 16 ? static_cast<int>(left) : 16;
      const auto* source = reinterpret_cast<const unsigned char*>(x) + (bytes > 0 ? byte : 0);
      for (int row = part.first; row < n; row += Pass::kRowsAtOnce) {
        copy_async_16(staged + row * Pass::kStripBytes + part.vector * 16,
                      source + row * row_stride * static_cast<int64_t>(sizeof(In)), bytes);
      }
    }
    commit_copies();  // also an empty group: wait_copies counts groups
  }

  __device__ void wait(Shared&, int64_t, int64_t) const { wait_copies<Pass::kStages - 2>(); }
};

// ---- launch, by types and tile

template <typename Strips>
void launch_strips(const SinglePassArguments& arguments, void* stream) {
  using Pass = typename Strips::Pass;
  static_assert(sizeof(SinglePassShared<Strips>) <=
                single_pass_shared_bytes(Pass::kTile, sizeof(typename Pass::In),
                                         sizeof(typename Pass::Operand)));
  launch("single_pass", single_pass_kernel<Strips>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = Pass::kThreads,
          .shared_bytes = sizeof(SinglePassShared<Strips>),
          .stream = stream},
         Strips::of(arguments), arguments.n, arguments.p, arguments.centre,
         static_cast<float*>(arguments.gram));
}

template <template <typename> class Strips, typename In, typename Operand>
void single_pass_of_tile(const SinglePassArguments& arguments, void* stream) {
  switch (arguments.tile) {
    case 16:
      return launch_strips<Strips<SinglePass<In, Operand, 16>>>(arguments, stream);
    case 32:
      return launch_strips<Strips<SinglePass<In, Operand, 32>>>(arguments, stream);
    case 64:
      if constexpr (!std::is_same_v<Operand, float>) {
        return launch_strips<Strips<SinglePass<In, Operand, 64>>>(arguments, stream);
      }
      [[fallthrough]];
    default:
      throw std::invalid_argument("single_pass: tile must be 16 or 32, or 64 for tf32, bfloat16");
  }
}

template <template <typename> class Strips>
void single_pass_of_types(const SinglePassArguments& arguments, void* stream) {
  if (arguments.x_type == ElementType::kFloat32) {
    switch (arguments.operand_type) {
      case ElementType::kFloat32:
        return single_pass_of_tile<Strips, float, float>(arguments, stream);
      case ElementType::kTf32:
        return single_pass_of_tile<Strips, float, Tf32>(arguments, stream);
      case ElementType::kBFloat16:
        return single_pass_of_tile<Strips, float, BFloat16>(arguments, stream);
      default:
        break;
    }
  } else if (arguments.operand_type == ElementType::kBFloat16) {
    if (arguments.x_type == ElementType::kFloat16) {
      return single_pass_of_tile<Strips, Half, BFloat16>(arguments, stream);
    }
    if (arguments.x_type == ElementType::kBFloat16) {
      return single_pass_of_tile<Strips, BFloat16, BFloat16>(arguments, stream);
    }
  }
  throw std::invalid_argument("single_pass: no such operand type for these features");
}

// The products, by strips that come as the template says, and the sum of the splits.
template <template <typename> class Strips>
void single_pass(const SinglePassArguments& arguments, void* stream) {
  if (arguments.n == 0) return;
  if (!single_pass_layout(arguments.x, arguments.x_type, arguments.row_stride, 1) ||
      arguments.n > kSinglePassTileRows * arguments.tile) {
    throw std::invalid_argument("single_pass: x does not fit the tile or is not aligned");
  }
  single_pass_of_types<Strips>(arguments, stream);
  launch_sum_splits({.gram = arguments.gram,
                     .wide = false,
                     .entries = kSinglePassTiles * arguments.tile * arguments.tile,
                     .splits = arguments.splits},
                    stream);
}

}  // namespace repsim_fast
