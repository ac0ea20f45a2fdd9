// The centred Gram on CUDA in three steps: features, products, finish; for few samples a single
// pass over x replaces the first two. Every launcher takes raw device pointers and sizes, works on
// the given stream, returns before the work is done, does nothing for an empty problem, and throws
// std::runtime_error if a launch is refused.
//
// Products fill the lower triangle of square tiles, numbered as in math/triangle.h, each stored
// row by row: tile (I, J) holds K[I tile + r, J tile + c], its entries above the diagonal and
// outside the matrix unspecified. A full row-major (n, n) matrix is the same thing with one tile
// of side n, so the finish takes the result of a vendor library as well.
#pragma once

#include <cstddef>
#include <cstdint>

namespace repsim_fast {

enum class ElementType { kFloat64, kFloat32, kFloat16, kBFloat16, kTf32 };

constexpr int64_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kFloat64:
      return 8;
    case ElementType::kFloat32:
    case ElementType::kTf32:
      return 4;
    case ElementType::kFloat16:
    case ElementType::kBFloat16:
      return 2;
  }
  return 0;
}

// The products' inner loop takes the features in pieces of so many bytes.
constexpr int64_t kFeatureStepBytes = 64;

// Row length, in elements, of a feature matrix for the products: p rounded up to whole steps.
constexpr int64_t feature_pitch(int64_t p, ElementType type) {
  const int64_t unit = kFeatureStepBytes / element_bytes(type);
  return (p + unit - 1) / unit * unit;
}

// features = x, less its column means if `centre`, rounded to the operand type; columns p .. pitch
// become zero.
struct FeatureArguments {
  const void* x;  // (n, p), strides in elements
  ElementType x_type;
  int64_t n, p, row_stride, column_stride;
  bool centre;
  void* features;            // (n, pitch), 16-byte aligned
  ElementType operand_type;  // kFloat64 (x_type kFloat64), kFloat32, kTf32 or kBFloat16
  int64_t pitch;             // feature_pitch(p, operand_type)
};
void launch_center_features(const FeatureArguments& arguments, void* stream);

// gram = lower triangle of features features^T. Accumulated in float, or double for kFloat64.
struct ProductArguments {
  const void* features;  // (n, pitch), 16-byte aligned
  ElementType operand_type;
  int64_t n, pitch;
  int64_t tile;    // 64, or 128 except for kFloat64
  int64_t splits;  // parts of the features with a partial Gram each, summed in a fixed order
  void* gram;      // (splits, tiles, tile, tile); the sum is left in the first part
};
void launch_triangle_product(const ProductArguments& arguments, void* stream);

// gram[0] = sum of gram[0 .. splits), in this order and in double: the same bits on every run.
struct SumArguments {
  void* gram;  // (splits, entries)
  bool wide;   // double instead of float
  int64_t entries, splits;
};
void launch_sum_splits(const SumArguments& arguments, void* stream);

// ---- one pass

// Tiles of the single pass: always four rows of tiles, one warp a tile.
constexpr int64_t kSinglePassTileRows = 4;
constexpr int64_t kSinglePassTiles = 10;

// It reads x in strips of so many bytes of every row, by whole strips a block.
constexpr int64_t kSinglePassStripBytes = 128;

// Side of its tiles for n samples; 0 where n is too large for it. Both parts of split float
// operands and 64 x 64 sums a warp do not fit the registers.
constexpr int64_t single_pass_tile(int64_t n, ElementType operand_type) {
  for (const int64_t tile : {16, 32, 64}) {
    if (tile == 64 && operand_type == ElementType::kFloat32) break;
    if (n <= kSinglePassTileRows * tile) return tile;
  }
  return 0;
}

// Strips in shared memory. About 30 KB on their way hide the memory's latency; large operands leave
// less room.
constexpr int64_t single_pass_stages(int64_t tile, int64_t operand_bytes) {
  return tile == 64 && operand_bytes == 4 ? 2 : tile == 16 ? 5 : 3;
}

// Shared memory that a block asks for at most, given the bytes of an entry of x and of an operand:
// up to 136 KiB, where a block gets 99 KiB of some GPUs and 227 KiB of others.
constexpr int64_t single_pass_shared_bytes(int64_t tile, int64_t x_bytes, int64_t operand_bytes) {
  const int64_t rows = kSinglePassTileRows * tile, columns = kSinglePassStripBytes / x_bytes;
  const int64_t stages = single_pass_stages(tile, operand_bytes);
  return stages * rows * kSinglePassStripBytes      // strips
         + rows * (columns * operand_bytes + 16)    // operands, padded
         + kSinglePassTiles * columns * int64_t{4}  // sums
         + 128;                                     // of the strips' own, alignment
}

// Whether x can be read in whole vectors of 16 bytes. Strides in elements.
inline bool single_pass_layout(const void* x, ElementType x_type, int64_t row_stride,
                               int64_t column_stride) {
  return column_stride == 1 && row_stride * element_bytes(x_type) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(x) % 16 == 0;
}

// gram = lower triangle of the products of x, less its column means if `centre` and rounded to the
// operand type. kFloat32 means float32 accuracy: each value split into two tf32 parts. Not for
// kFloat64, nor for 16-bit features with 4-byte operands: their shared memory does not suffice.
struct SinglePassArguments {
  const void* x;  // (n, p), single_pass_layout
  ElementType x_type;
  int64_t n, p, row_stride;
  bool centre;
  ElementType operand_type;  // kFloat32, kTf32 or kBFloat16
  int64_t tile;              // single_pass_tile(n, operand_type)
  int64_t splits;            // blocks, each with a partial Gram of a share of the features
  void* gram;                // (splits, kSinglePassTiles, tile, tile) float; the sum in the first
};
void launch_single_pass_product(const SinglePassArguments& arguments, void* stream);

// ---- finish

enum class GramCentering { kNone, kDouble, kUnbiased };

// out = the centred Gram: full and symmetric, or the packed lower triangle with off-diagonal
// entries times sqrt(2), without the diagonal where that is zero (kUnbiased).
struct FinishArguments {
  const void* gram;  // lower triangle of tiles
  bool wide;         // double instead of float, gram and out
  int64_t n, tile;
  GramCentering centering;
  double* row_sums;  // (n,) scratch; unused for kNone
  bool packed;
  void* out;  // (n, n), or (n(n+1)/2,), or (n(n-1)/2,) packed and kUnbiased
};
void launch_finish_gram(const FinishArguments& arguments, void* stream);

}  // namespace repsim_fast
