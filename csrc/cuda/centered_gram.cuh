// The centred Gram on CUDA in three steps: features, products, finish. Every launcher takes raw
// device pointers and sizes, works on the given stream, returns before the work is done, does
// nothing for an empty problem, and throws std::runtime_error if a launch is refused.
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
