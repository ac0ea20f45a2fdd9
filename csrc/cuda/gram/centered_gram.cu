#include <algorithm>
#include <type_traits>

#include "cuda/gram/centered_gram.cuh"
#include "cuda/gram/triangle_product.cuh"
#include "cuda/portability/portability.h"
#include "math/centering.h"
#include "math/triangle.h"

namespace repsim_fast {
namespace {

// Blocks of a grid-stride launch: enough for every card, few enough to be cheap to start.
constexpr int64_t kMaximumBlocks = int64_t{1} << 16;

constexpr int kWarpsPerBlock = 8;
constexpr int kThreadsPerBlock = kWarpsPerBlock * static_cast<int>(kWarpSize);
constexpr int kSide = static_cast<int>(kWarpSize);  // of the square that a block works on at once

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- features

template <typename Math>
struct FeatureShared {
  Math sums[kWarpsPerBlock][kSide];
};

// A block takes 32 columns at a time: once through the rows for the means, once more, out of the
// cache, to write them. Everything is relative to the column's first entry, so that a common mean
// far from zero costs no accuracy: the difference of neighbouring values is exact.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreadsPerBlock)
    center_features_kernel(const In* x,  // (n, p)
                           int64_t n, int64_t p, int64_t row_stride, int64_t column_stride,
                           bool centre, int64_t pitch, Out* features) {  // (n, pitch)
  using Math = decltype(to_math(In{}));
  auto& shared = shared_memory<FeatureShared<Math>>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  for (int64_t first = int64_t{blockIdx.x} * kSide; first < pitch;
       first += int64_t{gridDim.x} * kSide) {
    const int64_t column = first + lane;
    const In* values = x + column * column_stride;
    const bool inside = column < p;
    Math origin = 0, mean = 0;
    if (centre) {
      Math sum = 0;
      if (inside) {
        origin = to_math(values[0]);
        REPSIM_UNROLL_BY(4)
        for (int64_t row = warp; row < n; row += kWarpsPerBlock) {
          sum += to_math(values[row * row_stride]) - origin;
        }
      }
      shared.sums[warp][lane] = sum;
      __syncthreads();
      for (int w = 0; w < kWarpsPerBlock; ++w) mean += shared.sums[w][lane];
      mean /= static_cast<Math>(n);
      __syncthreads();
    }
    if (column >= pitch) continue;
    REPSIM_UNROLL_BY(4)
    for (int64_t row = warp; row < n; row += kWarpsPerBlock) {
      const Math value = inside ? to_math(values[row * row_stride]) - origin - mean : Math{0};
      features[row * pitch + column] = convert_to<Out>(value);
    }
  }
}

template <typename In, typename Out>
void center_features(const FeatureArguments& arguments, void* stream) {
  const auto& [x, x_type, n, p, row_stride, column_stride, centre, features, operand_type, pitch] =
      arguments;
  const int64_t blocks = std::min(ceil_divide(pitch, kSide), kMaximumBlocks);
  launch("center_features", center_features_kernel<In, Out>,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .threads = kThreadsPerBlock,
          .shared_bytes = sizeof(FeatureShared<decltype(to_math(In{}))>),
          .stream = stream},
         static_cast<const In*>(x), n, p, row_stride, column_stride, centre, pitch,
         static_cast<Out*>(features));
}

template <typename In>
void center_features_from(const FeatureArguments& arguments, void* stream) {
  switch (arguments.operand_type) {
    case ElementType::kFloat32:
      return center_features<In, float>(arguments, stream);
    case ElementType::kTf32:
      return center_features<In, Tf32>(arguments, stream);
    case ElementType::kBFloat16:
      return center_features<In, BFloat16>(arguments, stream);
    default:
      throw std::invalid_argument("center_features: no such operand type for these features");
  }
}

// ---- products

constexpr int kStages = 3;  // one multiplied, two on their way

template <int kTile>
struct ProductShared {
  StagedRows<kTile> left[kStages], right[kStages];
};

// One step of the features of rows first_row .. first_row + kTile; rows from n on become zero.
template <typename Product>
__device__ void stage_rows(StagedRows<Product::kTile>& staged, const unsigned char* features,
                           int64_t first_row, int64_t n, int64_t row_bytes, int64_t step) {
  constexpr int kVectorsPerRow = static_cast<int>(kFeatureStepBytes) / 16;
  REPSIM_UNROLL
  for (int i = 0; i < Product::kTile * kVectorsPerRow / Product::kThreads; ++i) {
    const int vector = i * Product::kThreads + static_cast<int>(threadIdx.x);
    const int row = vector / kVectorsPerRow, byte = vector % kVectorsPerRow * 16;
    const bool valid = first_row + row < n;
    const int64_t source =
        valid ? (first_row + row) * row_bytes + step * kFeatureStepBytes + byte : 0;
    copy_async_16(staged.row(row) + byte, features + source, valid ? 16 : 0);
  }
}

// Block (x, y): tile x of the triangle, over part y of the features.
template <typename Product>
__global__ void __launch_bounds__(Product::kThreads, Product::kMinimumBlocks)
    triangle_product_kernel(const unsigned char* features,  // (n, row_bytes)
                            int64_t n, int64_t row_bytes,
                            typename Product::Accumulator* gram) {  // (splits, tiles, tile, tile)
  constexpr int kTile = Product::kTile;
  auto& shared = shared_memory<ProductShared<kTile>>();
  const TrianglePosition tile = triangle_position(blockIdx.x);
  const bool diagonal = tile.row == tile.column;
  const int64_t steps = row_bytes / kFeatureStepBytes;
  const int64_t first_step = steps * blockIdx.y / gridDim.y;
  const int64_t end_step = steps * (int64_t{blockIdx.y} + 1) / gridDim.y;

  const auto stage = [&](int64_t step) {
    if (step < end_step) {
      const int slot = static_cast<int>((step - first_step) % kStages);
      stage_rows<Product>(shared.left[slot], features, tile.row * kTile, n, row_bytes, step);
      if (!diagonal) {
        stage_rows<Product>(shared.right[slot], features, tile.column * kTile, n, row_bytes, step);
      }
    }
    commit_copies();  // also an empty group: wait_copies counts groups
  };

  Product product;
  for (int s = 0; s < kStages - 1; ++s) stage(first_step + s);
  for (int64_t step = first_step; step < end_step; ++step) {
    wait_copies<kStages - 2>();
    // All threads' copies of this step have arrived, and all have done with the slot that the next
    // copies go to.
    __syncthreads();
    stage(step + kStages - 1);
    const int slot = static_cast<int>((step - first_step) % kStages);
    product.accumulate(shared.left[slot], diagonal ? shared.left[slot] : shared.right[slot]);
  }

  auto* out = gram + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * (kTile * kTile);
  product.for_each_entry(
      [&](int row, int column, auto value) { out[row * kTile + column] = value; });
}

struct SumShared {
  double parts[kWarpsPerBlock][kSide];
};

// 32 entries a block: each warp adds every eighth part, so that many loads are on their way.
template <typename T>
__global__ void __launch_bounds__(kThreadsPerBlock)
    sum_splits_kernel(T* gram, int64_t entries, int64_t splits) {  // (splits, entries)
  auto& shared = shared_memory<SumShared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  for (int64_t first = int64_t{blockIdx.x} * kSide; first < entries;
       first += int64_t{gridDim.x} * kSide) {
    const int64_t entry = first + lane;
    double sum = 0;
    if (entry < entries) {
      REPSIM_UNROLL_BY(4)
      for (int64_t part = warp; part < splits; part += kWarpsPerBlock) {
        sum += static_cast<double>(gram[part * entries + entry]);
      }
    }
    shared.parts[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && entry < entries) {
      for (int w = 1; w < kWarpsPerBlock; ++w) sum += shared.parts[w][lane];
      gram[entry] = static_cast<T>(sum);
    }
    __syncthreads();
  }
}

template <typename T>
void sum_splits(const SumArguments& arguments, void* stream) {
  const int64_t blocks = std::min(ceil_divide(arguments.entries, kSide), kMaximumBlocks);
  launch("sum_splits", sum_splits_kernel<T>,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .threads = kThreadsPerBlock,
          .shared_bytes = sizeof(SumShared),
          .stream = stream},
         static_cast<T*>(arguments.gram), arguments.entries, arguments.splits);
}

template <typename Product>
void triangle_product(const ProductArguments& arguments, void* stream) {
  using T = typename Product::Accumulator;
  const int64_t tiles = triangle_size(ceil_divide(arguments.n, Product::kTile));
  auto* gram = static_cast<T*>(arguments.gram);
  launch("triangle_product", triangle_product_kernel<Product>,
         {.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(arguments.splits)),
          .threads = Product::kThreads,
          .shared_bytes = sizeof(ProductShared<Product::kTile>),
          .stream = stream},
         static_cast<const unsigned char*>(arguments.features), arguments.n,
         arguments.pitch * element_bytes(arguments.operand_type), gram);
  launch_sum_splits({.gram = gram,
                     .wide = std::is_same_v<T, double>,
                     .entries = tiles * Product::kTile * Product::kTile,
                     .splits = arguments.splits},
                    stream);
}

template <int kTile>
void triangle_product_of_tile(const ProductArguments& arguments, void* stream) {
  switch (arguments.operand_type) {
    case ElementType::kFloat32:
      return triangle_product<MultiplyAdd<float, kTile>>(arguments, stream);
    case ElementType::kTf32:
      return triangle_product<MatrixUnit<Tf32, kTile>>(arguments, stream);
    case ElementType::kBFloat16:
      return triangle_product<MatrixUnit<BFloat16, kTile>>(arguments, stream);
    default:
      throw std::invalid_argument("triangle_product: no such operand type with this tile");
  }
}

// ---- finish

// The lower triangle of tiles, read by entry.
template <typename T>
struct TiledTriangle {
  const T* entries;
  uint32_t tile;

  // column <= row < 2^31
  __device__ T operator()(int64_t row, int64_t column) const {
    const auto r = static_cast<uint32_t>(row), c = static_cast<uint32_t>(column);
    const int64_t start = triangle_index(r / tile, c / tile) * tile * tile;
    return entries[start + int64_t{r % tile} * tile + c % tile];
  }
};

struct RowSumShared {
  double right_of_diagonal[kWarpsPerBlock][kSide];
};

// Row sums of the symmetric Gram, with or without its diagonal, 32 rows a block: row i has its
// entries up to the diagonal in row i of the triangle, the others in column i. Summed as they are
// rather than taken from the diagonal (rows of a Gram of centred features sum to zero): the
// features were rounded after their means were removed.
template <typename T>
__global__ void __launch_bounds__(kThreadsPerBlock)
    row_sums_kernel(TiledTriangle<T> gram, int64_t n, bool with_diagonal,
                    double* row_sums) {  // (n,)
  auto& shared = shared_memory<RowSumShared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const int64_t first = int64_t{blockIdx.x} * kSide;

  double below = 0;  // column first + lane, under the diagonal
  const int64_t column = first + lane;
  for (int64_t row = first + 1 + warp; row < n; row += kWarpsPerBlock) {
    if (column < row) below += static_cast<double>(gram(row, column));
  }
  shared.right_of_diagonal[warp][lane] = below;
  __syncthreads();

  for (int i = warp; i < kSide; i += kWarpsPerBlock) {
    const int64_t row = first + i;
    if (row >= n) break;
    double sum = 0;
    for (int64_t c = lane; c < row + (with_diagonal ? 1 : 0); c += kWarpSize) {
      sum += static_cast<double>(gram(row, c));
    }
    sum = warp_sum(sum);
    for (int w = 0; w < kWarpsPerBlock; ++w) sum += shared.right_of_diagonal[w][i];
    if (lane == 0) row_sums[row] = sum;
  }
}

template <typename T>
struct FinishShared {
  double warp_totals[kWarpsPerBlock];
  T square[kSide][kSide + 1];  // padded: written by rows, read by columns
};

// Squares that one block writes, so that the total of all row sums is not taken for each.
constexpr int kSquaresPerBlock = 8;

constexpr double kSqrt2 = 1.4142135623730951;

// Block (x, y): rows of square row x, squares y kSquaresPerBlock .. + kSquaresPerBlock of it.
template <typename T>
__global__ void __launch_bounds__(kThreadsPerBlock)
    finish_gram_kernel(TiledTriangle<T> gram, int64_t n, GramCentering centering,
                       const double* row_sums,  // (n,), unless centering is kNone
                       bool packed, T* out) {
  auto& shared = shared_memory<FinishShared<T>>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const int64_t square_row = blockIdx.x;
  const int64_t first_square = int64_t{blockIdx.y} * kSquaresPerBlock;
  if (first_square > square_row) return;  // above the diagonal, the whole block

  const bool centred = centering != GramCentering::kNone;
  double total = 0;
  if (centred) {
    for (int64_t i = threadIdx.x; i < n; i += kThreadsPerBlock) total += row_sums[i];
    total = warp_sum(total);
    if (lane == 0) shared.warp_totals[warp] = total;
    __syncthreads();
    total = 0;
    for (int w = 0; w < kWarpsPerBlock; ++w) total += shared.warp_totals[w];
  }
  const bool unbiased = centering == GramCentering::kUnbiased;
  const auto samples = static_cast<double>(n);

  const auto entry = [&](int64_t row, int64_t column) {
    const auto k = static_cast<double>(gram(row, column));
    if (!centred) return k;
    if (unbiased && row == column) return 0.0;
    return unbiased ? u_centred(k, row_sums[row], row_sums[column], total, samples)
                    : double_centred(k, row_sums[row], row_sums[column], total, samples);
  };

  const int64_t end_square = first_square + kSquaresPerBlock <= square_row
                                 ? first_square + kSquaresPerBlock
                                 : square_row + 1;
  for (int64_t square = first_square; square < end_square; ++square) {
    const int64_t column = square * kSide + lane;
    for (int i = warp; i < kSide; i += kWarpsPerBlock) {
      const int64_t row = square_row * kSide + i;
      if (row >= n || column > row) continue;
      const double value = entry(row, column);
      if (!packed) {
        out[row * n + column] = static_cast<T>(value);
        shared.square[i][lane] = static_cast<T>(value);
      } else if (!unbiased) {
        out[triangle_index(row, column)] = static_cast<T>(row == column ? value : value * kSqrt2);
      } else if (row != column) {
        out[triangle_index(row - 1, column)] = static_cast<T>(value * kSqrt2);
      }
    }
    if (packed) continue;
    __syncthreads();
    for (int i = warp; i < kSide; i += kWarpsPerBlock) {
      const int64_t row = square_row * kSide + lane, mirrored_row = square * kSide + i;
      if (row < n && mirrored_row < row) out[mirrored_row * n + row] = shared.square[lane][i];
    }
    __syncthreads();
  }
}

template <typename T>
void finish_gram(const FinishArguments& arguments, void* stream) {
  const TiledTriangle<T> gram{static_cast<const T*>(arguments.gram),
                              static_cast<uint32_t>(arguments.tile)};
  const auto squares = static_cast<unsigned>(ceil_divide(arguments.n, kSide));
  if (arguments.centering != GramCentering::kNone) {
    launch("row_sums", row_sums_kernel<T>,
           {.grid = dim3(squares),
            .threads = kThreadsPerBlock,
            .shared_bytes = sizeof(RowSumShared),
            .stream = stream},
           gram, arguments.n, /*with_diagonal=*/arguments.centering == GramCentering::kDouble,
           arguments.row_sums);
  }
  launch("finish_gram", finish_gram_kernel<T>,
         {.grid = dim3(squares, static_cast<unsigned>(ceil_divide(squares, kSquaresPerBlock))),
          .threads = kThreadsPerBlock,
          .shared_bytes = sizeof(FinishShared<T>),
          .stream = stream},
         gram, arguments.n, arguments.centering, arguments.row_sums, arguments.packed,
         static_cast<T*>(arguments.out));
}

}  // namespace

void launch_center_features(const FeatureArguments& arguments, void* stream) {
  if (arguments.n == 0 || arguments.pitch == 0) return;
  switch (arguments.x_type) {
    case ElementType::kFloat64:
      if (arguments.operand_type != ElementType::kFloat64) {
        throw std::invalid_argument("center_features: float64 features need float64 operands");
      }
      return center_features<double, double>(arguments, stream);
    case ElementType::kFloat32:
      return center_features_from<float>(arguments, stream);
    case ElementType::kFloat16:
      return center_features_from<Half>(arguments, stream);
    case ElementType::kBFloat16:
      return center_features_from<BFloat16>(arguments, stream);
    default:
      throw std::invalid_argument("center_features: no such type of features");
  }
}

void launch_triangle_product(const ProductArguments& arguments, void* stream) {
  if (arguments.n == 0) return;
  if (arguments.operand_type == ElementType::kFloat64 && arguments.tile == 64) {
    return triangle_product<MultiplyAdd<double, 64>>(arguments, stream);
  }
  if (arguments.tile == 64) return triangle_product_of_tile<64>(arguments, stream);
  if (arguments.tile == 128) return triangle_product_of_tile<128>(arguments, stream);
  throw std::invalid_argument("triangle_product: tile must be 64 or 128");
}

void launch_sum_splits(const SumArguments& arguments, void* stream) {
  if (arguments.splits <= 1 || arguments.entries == 0) return;
  return arguments.wide ? sum_splits<double>(arguments, stream)
                        : sum_splits<float>(arguments, stream);
}

void launch_finish_gram(const FinishArguments& arguments, void* stream) {
  if (arguments.n == 0) return;
  return arguments.wide ? finish_gram<double>(arguments, stream)
                        : finish_gram<float>(arguments, stream);
}

}  // namespace repsim_fast
