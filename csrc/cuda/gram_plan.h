// Which products to use for a Gram of a given size: the one place of that choice.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/centered_gram.cuh"
#include "math/triangle.h"

namespace repsim_fast {

struct GramPlan {
  // Panels of rows multiplied by the vendor library, 0: our own tiles. A panel takes the columns
  // up to its last row only, so `panels` of them cost (1 + 1/panels) / 2 of the full product.
  int64_t panels = 0;
  int64_t tile = 64;
  int64_t tiles = 1;  // of the lower triangle
  int64_t splits = 1;

  int64_t gram_entries() const { return splits * tiles * tile * tile; }
};

// From here on the vendor library's large tiles and newer matrix instructions are assumed to win,
// where it can be asked for exactly this precision: bfloat16 and float64. Not yet measured.
constexpr int64_t kVendorSamples = 1024;
constexpr int64_t kVendorPanelRows = 512;

// Rows from which 128 x 128 tiles waste less on the edge than 64 x 64 tiles lose on reloading.
constexpr int64_t kLargeTileSamples = 512;

// Blocks a multiprocessor that hide each other's latencies.
constexpr int64_t kBlocksPerMultiprocessor = 2;

// A split must be worth its partial Gram: steps of kFeatureStepBytes.
constexpr int64_t kMinimumStepsPerSplit = 16;

// Partial Grams together, so that scratch does not grow with the card.
constexpr int64_t kPartialGramBytes = int64_t{64} << 20;

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// n samples, pitch operands a row (both > 0), on a card of that many multiprocessors.
inline GramPlan plan_gram(int64_t n, int64_t pitch, ElementType operand_type,
                          int64_t multiprocessors) {
  GramPlan plan;
  const bool vendor_is_exact =
      operand_type == ElementType::kBFloat16 || operand_type == ElementType::kFloat64;
  if (vendor_is_exact && n >= kVendorSamples) {
    plan.panels = ceil_divide(n, kVendorPanelRows);
    plan.tile = n;
    return plan;
  }
  plan.tile = operand_type != ElementType::kFloat64 && n >= kLargeTileSamples ? 128 : 64;
  plan.tiles = triangle_size(ceil_divide(n, plan.tile));

  const bool wide = operand_type == ElementType::kFloat64;
  const int64_t tile_bytes = plan.tile * plan.tile * (wide ? 8 : 4);
  const int64_t steps = pitch * element_bytes(operand_type) / kFeatureStepBytes;
  const int64_t wanted = ceil_divide(kBlocksPerMultiprocessor * multiprocessors, plan.tiles);
  const int64_t affordable = kPartialGramBytes / (plan.tiles * tile_bytes);
  const int64_t worthwhile = steps / kMinimumStepsPerSplit;
  plan.splits = std::clamp<int64_t>(std::min({wanted, affordable, worthwhile}), 1, 65535);
  return plan;
}

}  // namespace repsim_fast
