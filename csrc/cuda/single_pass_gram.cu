#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "common/cuda_vocabulary.h"
#include "cuda/centered_gram.cuh"
#include "cuda/warp_tile.cuh"
#include "math/triangle.h"

namespace repsim_fast {
namespace {

constexpr int kThreads = static_cast<int>(kSinglePassTiles) * static_cast<int>(kWarpSize);

constexpr int kStripBytes = static_cast<int>(kSinglePassStripBytes);
constexpr int kVectorsPerRow = kStripBytes / 16;
constexpr int kRowsAtOnce = kThreads / kVectorsPerRow;

// In: type of x; Operand: BFloat16, Tf32 or float (WarpTile); kTile: side of a warp's tile.
template <typename In, typename Operand, int kTile>
struct SinglePass {
  static constexpr int kRows = static_cast<int>(kSinglePassTileRows) * kTile;
  static constexpr int kPerVector = 16 / static_cast<int>(sizeof(In));
  static constexpr int kColumns = kStripBytes / static_cast<int>(sizeof(In));
  static constexpr int kOperandBytes = kColumns * static_cast<int>(sizeof(Operand));
  // 16 bytes of padding put eight neighbouring rows' equal columns into different banks.
  static constexpr int kOperandPitch = kOperandBytes + 16;

  // Strips in shared memory. About 30 KB on their way hide the memory's latency; large operands
  // leave less room.
  static constexpr int kStages = kTile == 64 && sizeof(Operand) == 4 ? 2 : kTile == 16 ? 5 : 3;
  // Blocks of a multiprocessor: what registers and shared memory allow.
  static constexpr int kBlocks = kTile == 64 ? 1 : 2;

  struct Shared {
    alignas(16) unsigned char strips[kStages][kRows * kStripBytes];
    alignas(16) unsigned char operands[2][kRows * kOperandPitch];
    alignas(16) float sums[kSinglePassTiles][kColumns];  // of a column, by warp
  };

  struct alignas(16) Vector {
    In value[kPerVector];
  };
  struct alignas(sizeof(Operand) * kPerVector) OperandVector {
    Operand value[kPerVector];
  };
};

// This thread's part of a strip: vector `vector` of rows first, first + kRowsAtOnce, ...
struct StripPart {
  int vector, first;
};

__device__ inline StripPart strip_part() {
  return {static_cast<int>(threadIdx.x) % kVectorsPerRow,
          static_cast<int>(threadIdx.x) / kVectorsPerRow};
}

// Starts the copy of strip `strip` of x; columns from p on become zero.
template <typename In>
__device__ void stage_strip(unsigned char* staged, const In* x, int64_t n, int64_t p,
                            int64_t row_stride, int64_t strip) {
  const StripPart part = strip_part();
  const int64_t byte = strip * kStripBytes + part.vector * 16;
  const int64_t row_bytes = p * static_cast<int64_t>(sizeof(In));
  const int64_t left = row_bytes - byte;
  const int bytes = left <= 0 ? 0 : left < 16 ? static_cast<int>(left) : 16;
  const auto* source = reinterpret_cast<const unsigned char*>(x) + (bytes > 0 ? byte : 0);
  for (int row = part.first; row < n; row += kRowsAtOnce) {
    copy_async_16(staged + row * kStripBytes + part.vector * 16,
                  source + row * row_stride * static_cast<int64_t>(sizeof(In)), bytes);
  }
}

// One block takes every gridDim.x-th strip of all rows. While the tiles of one strip are
// multiplied, the next is centred and rounded, and the ones after that are on their way.
template <typename In, typename Operand, int kTile>
__global__ void __launch_bounds__(kThreads, (SinglePass<In, Operand, kTile>::kBlocks))
    single_pass_kernel(const In* x,  // (n, p), rows row_stride apart
                       int64_t n, int64_t p, int64_t row_stride, bool centre,
                       float* gram) {  // (gridDim.x, kSinglePassTiles, kTile, kTile)
  using Pass = SinglePass<In, Operand, kTile>;
  using Vector = typename Pass::Vector;
  constexpr int kPerVector = Pass::kPerVector;
  auto& shared = shared_memory<typename Pass::Shared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const StripPart part = strip_part();
  const int rows = static_cast<int>(n);

  const int64_t strips = (p + Pass::kColumns - 1) / Pass::kColumns;
  const int64_t mine = blockIdx.x < strips ? (strips - blockIdx.x - 1) / gridDim.x + 1 : 0;

  const auto staged = [&](int64_t s) { return shared.strips[s % Pass::kStages]; };
  const auto stage = [&](int64_t s) {
    if (s < mine) stage_strip(staged(s), x, n, p, row_stride, blockIdx.x + s * gridDim.x);
    commit_copies();  // also an empty group: wait_copies counts groups
  };
  const auto vector_at = [&](int64_t s, int row) {
    return *reinterpret_cast<const Vector*>(staged(s) + row * kStripBytes + part.vector * 16);
  };

  // Sums of the columns, relative to their first entry: a common mean far from zero costs nothing.
  const auto add_columns = [&](int64_t s) {
    float sum[kPerVector] = {};
    const Vector origin = vector_at(s, 0);
    REPSIM_UNROLL_BY(1)
    for (int row = part.first; row < rows; row += kRowsAtOnce) {
      const Vector values = vector_at(s, row);
      REPSIM_UNROLL
      for (int e = 0; e < kPerVector; ++e)
        sum[e] += to_math(values.value[e]) - to_math(origin.value[e]);
    }
    REPSIM_UNROLL
    for (int e = 0; e < kPerVector; ++e) {
      // Lanes eight apart have the same columns.
      sum[e] += __shfl_xor_sync(kFullWarp, sum[e], 8);
      sum[e] += __shfl_xor_sync(kFullWarp, sum[e], 16);
      if (lane < kVectorsPerRow) shared.sums[warp][part.vector * kPerVector + e] = sum[e];
    }
  };

  const auto write_operands = [&](int64_t s) {
    float shift[kPerVector] = {}, origin[kPerVector] = {};
    if (centre) {
      const Vector first = vector_at(s, 0);
      REPSIM_UNROLL
      for (int e = 0; e < kPerVector; ++e) {
        origin[e] = to_math(first.value[e]);
        REPSIM_UNROLL_BY(1)
        for (int w = 0; w < static_cast<int>(kSinglePassTiles); ++w) {
          shift[e] += shared.sums[w][part.vector * kPerVector + e];
        }
        shift[e] /= static_cast<float>(n);
      }
    }
    REPSIM_UNROLL_BY(1)
    for (int row = part.first; row < rows; row += kRowsAtOnce) {
      const Vector values = vector_at(s, row);
      typename Pass::OperandVector out;
      REPSIM_UNROLL
      for (int e = 0; e < kPerVector; ++e) {
        out.value[e] = convert_to<Operand>(to_math(values.value[e]) - origin[e] - shift[e]);
      }
      *reinterpret_cast<typename Pass::OperandVector*>(
          shared.operands[s % 2] + row * Pass::kOperandPitch +
          part.vector * static_cast<int>(sizeof(out))) = out;
    }
  };

  // Rows that only fill the last tile stay zero.
  for (int i = rows * Pass::kOperandPitch / 4 + static_cast<int>(threadIdx.x);
       i < Pass::kRows * Pass::kOperandPitch / 4; i += kThreads) {
    reinterpret_cast<uint32_t*>(shared.operands[0])[i] = 0;
    reinterpret_cast<uint32_t*>(shared.operands[1])[i] = 0;
  }

  const TrianglePosition tile = triangle_position(warp);
  WarpTile<Operand, kTile, kTile> product;
  for (int64_t s = 0; s < Pass::kStages - 1; ++s) stage(s);
  for (int64_t s = 0; s <= mine; ++s) {
    wait_copies<Pass::kStages - 2>();
    // Strip s has arrived for all threads; all have written the operands of strip s - 1, and have
    // done with its slot, to which the next copies go.
    __syncthreads();
    stage(s + Pass::kStages - 1);
    if (s < mine && centre) add_columns(s);
    if (s > 0) {
      const unsigned char* operands = shared.operands[(s - 1) % 2];
      product.template accumulate<Pass::kOperandBytes, Pass::kOperandPitch>(
          operands + static_cast<int>(tile.row) * kTile * Pass::kOperandPitch,
          operands + static_cast<int>(tile.column) * kTile * Pass::kOperandPitch);
    }
    __syncthreads();
    if (s < mine) write_operands(s);
  }

  float* out = gram + (int64_t{blockIdx.x} * kSinglePassTiles + warp) * (kTile * kTile);
  product.for_each_entry(
      [&](int row, int column, float value) { out[row * kTile + column] = value; });
}

template <typename In, typename Operand, int kTile>
void single_pass(const SinglePassArguments& arguments, void* stream) {
  using Pass = SinglePass<In, Operand, kTile>;
  launch("single_pass", single_pass_kernel<In, Operand, kTile>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = kThreads,
          .shared_bytes = sizeof(typename Pass::Shared),
          .stream = stream},
         static_cast<const In*>(arguments.x), arguments.n, arguments.p, arguments.row_stride,
         arguments.centre, static_cast<float*>(arguments.gram));
}

template <typename In, typename Operand>
void single_pass_of_tile(const SinglePassArguments& arguments, void* stream) {
  switch (arguments.tile) {
    case 16:
      return single_pass<In, Operand, 16>(arguments, stream);
    case 32:
      return single_pass<In, Operand, 32>(arguments, stream);
    case 64:
      if constexpr (!std::is_same_v<Operand, float>) {
        return single_pass<In, Operand, 64>(arguments, stream);
      }
      [[fallthrough]];
    default:
      throw std::invalid_argument("single_pass: tile must be 16 or 32, or 64 for tf32, bfloat16");
  }
}

void single_pass_of_types(const SinglePassArguments& arguments, void* stream) {
  if (arguments.x_type == ElementType::kFloat32) {
    switch (arguments.operand_type) {
      case ElementType::kFloat32:
        return single_pass_of_tile<float, float>(arguments, stream);
      case ElementType::kTf32:
        return single_pass_of_tile<float, Tf32>(arguments, stream);
      case ElementType::kBFloat16:
        return single_pass_of_tile<float, BFloat16>(arguments, stream);
      default:
        break;
    }
  } else if (arguments.operand_type == ElementType::kBFloat16) {
    if (arguments.x_type == ElementType::kFloat16) {
      return single_pass_of_tile<Half, BFloat16>(arguments, stream);
    }
    if (arguments.x_type == ElementType::kBFloat16) {
      return single_pass_of_tile<BFloat16, BFloat16>(arguments, stream);
    }
  }
  throw std::invalid_argument("single_pass: no such operand type for these features");
}

}  // namespace

void launch_single_pass_product(const SinglePassArguments& arguments, void* stream) {
  if (arguments.n == 0) return;
  if (!single_pass_layout(arguments.x, arguments.x_type, arguments.row_stride, 1) ||
      arguments.n > kSinglePassTileRows * arguments.tile) {
    throw std::invalid_argument("single_pass: x does not fit the tile or is not aligned");
  }
  single_pass_of_types(arguments, stream);
  launch_sum_splits({.gram = arguments.gram,
                     .wide = false,
                     .entries = kSinglePassTiles * arguments.tile * arguments.tile,
                     .splits = arguments.splits},
                    stream);
}

}  // namespace repsim_fast
