// Which products to use for a Gram of a given size: the one place of that choice.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/gram/centered_gram.cuh"
#include "math/triangle.h"

namespace repsim_fast {

// What the choice depends on.
struct GramProblem {
  int64_t n, p;  // both > 0
  ElementType x_type, operand_type;
  bool single_pass_layout;  // of x
  int64_t multiprocessors;
  int64_t shared_bytes;  // that a block may ask for
};

enum class GramProducts {
  kSinglePass,  // launch_single_pass_product, straight from x
  kTiles,       // launch_center_features, launch_triangle_product
  kVendor,      // launch_center_features, then the vendor library by panels of rows
};

struct GramPlan {
  GramProducts products = GramProducts::kTiles;
  int64_t tile = 64;   // side; n for the vendor library
  int64_t tiles = 1;   // of the lower triangle
  int64_t splits = 1;  // partial Grams
  // Of the vendor library. A panel takes the columns up to its last row only, so `panels` of them
  // cost (1 + 1/panels) / 2 of the full product.
  int64_t panels = 0;

  int64_t gram_entries() const { return splits * tiles * tile * tile; }
};

// None of the constants below is measured yet; benchmarks/kernels/plan_constants.py tells what they
// ought to be, from measured times.

// From here on the vendor library's large tiles and newer matrix instructions are assumed to win,
// where it can be asked for exactly this precision: bfloat16 and float64.
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

inline bool single_pass_fits(const GramProblem& problem) {
  // Split float operands (ElementType::kFloat32) wait for their error on a GPU to be known.
  return problem.single_pass_layout &&
         (problem.operand_type == ElementType::kBFloat16 ||
          (problem.operand_type == ElementType::kTf32 &&
           problem.x_type == ElementType::kFloat32)) &&
         single_pass_tile(problem.n, problem.operand_type) > 0 &&
         single_pass_shared_bytes(single_pass_tile(problem.n, problem.operand_type),
                                  element_bytes(problem.x_type),
                                  element_bytes(problem.operand_type)) <= problem.shared_bytes;
}

// Blocks of a single pass, each with a partial Gram of its own: the fewest that take no longer.
// Where one block has to take two strips, half as many blocks as strips do, each with two. Fewer
// strips a block than that are not worth a partial Gram (its bytes go through the cache twice, at
// the rate of all multiprocessors), more would be a longer wait: benchmarks/kernels/README.md
// counts both.
inline int64_t single_pass_splits(int64_t p, ElementType x_type, int64_t tile,
                                  int64_t multiprocessors) {
  const int64_t strips = ceil_divide(p * element_bytes(x_type), kSinglePassStripBytes);
  const int64_t blocks = (tile == 64 ? 1 : kBlocksPerMultiprocessor) * multiprocessors;
  const int64_t strips_per_block = ceil_divide(strips, blocks);
  return ceil_divide(strips, strips_per_block);
}

inline GramPlan plan_gram(const GramProblem& problem) {
  const auto& [n, p, x_type, operand_type, layout, multiprocessors, shared_bytes] = problem;
  GramPlan plan;
  if (single_pass_fits(problem)) {
    plan.products = GramProducts::kSinglePass;
    plan.tile = single_pass_tile(n, operand_type);
    plan.tiles = kSinglePassTiles;
    plan.splits = single_pass_splits(p, x_type, plan.tile, multiprocessors);
    return plan;
  }
  const bool wide = operand_type == ElementType::kFloat64;
  if ((wide || operand_type == ElementType::kBFloat16) && n >= kVendorSamples) {
    plan.products = GramProducts::kVendor;
    plan.tile = n;
    plan.panels = ceil_divide(n, kVendorPanelRows);
    return plan;
  }
  plan.tile = !wide && n >= kLargeTileSamples ? 128 : 64;
  plan.tiles = triangle_size(ceil_divide(n, plan.tile));

  const int64_t tile_bytes = plan.tile * plan.tile * (wide ? 8 : 4);
  const int64_t steps =
      feature_pitch(p, operand_type) * element_bytes(operand_type) / kFeatureStepBytes;
  const int64_t wanted = ceil_divide(kBlocksPerMultiprocessor * multiprocessors, plan.tiles);
  const int64_t affordable = kPartialGramBytes / (plan.tiles * tile_bytes);
  const int64_t worthwhile = steps / kMinimumStepsPerSplit;
  plan.splits = std::clamp<int64_t>(std::min({wanted, affordable, worthwhile}), 1, 65535);
  return plan;
}

}  // namespace repsim_fast
