// Products of bfloat16 in AMX's tiles, for precision="bfloat16" on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/gram/tile_kernels.h"

namespace repsim_fast {

// Features of a block, and what depths are multiples of: the features that a tile holds.
constexpr int64_t kAmxDepth = 512, kAmxDepthUnit = 32;

// Rows of a tile of features, and of sums: 1 KiB either way. A panel has two.
constexpr int64_t kAmxRows = 16, kAmxTileBytes = 1024;

// A panel's features twice: as rows, (chunk, half, row, feature) with chunks of kAmxDepthUnit
// features and halves of kAmxRows rows, and the same as columns, where a tile's two features a word
// are transposed, (chunk, half, pair of features, row). Which features make a pair is the same for
// all rows.
constexpr int64_t kAmxPanelBytes = kAmxDepth / kAmxDepthUnit * 2 * kAmxTileBytes;

// What the tiles are, as the processor keeps it for a thread.
struct alignas(64) AmxConfiguration {
  uint8_t bytes[64] = {};
};

struct AmxTileKernels {
  // This thread's tiles become those of `multiply`; what they were goes to `before`.
  void (*begin)(AmxConfiguration& before);
  void (*end)(const AmxConfiguration& before);
  // Of features [0, depth) of rows of floats, or of the bits of 16-bit ones, x_stride apart:
  template <typename In>
  struct Reading {
    // The middle one of three means of `count` rows (see gram_block.h), for `pack` to take away, in
    // an order of its own; 0 where a multiple of kAmxDepthUnit is filled up.
    void (*find_shift)(const In* x, int64_t x_stride, int64_t count, int64_t depth, float* shift);
    // The rows less the shift, rounded to bfloat16, into as many panels as hold them. What fills up
    // halves and chunks becomes 0; a half without rows is left.
    void (*pack)(const In* x, int64_t x_stride, int64_t rows, int64_t depth, const float* shift,
                 std::byte* as_rows, std::byte* as_columns);
  };
  Reading<float> floats;
  Reading<uint16_t> bfloat16, halves;
  // As TileKernels::multiply, without a next block.
  void (*multiply)(const std::byte* rows_of_a, const std::byte* columns_of_b, int64_t depth,
                   int64_t rows, bool diagonal, float* tile);
};

// Null where the processor has no tiles of bfloat16, or the operating system keeps them from us.
const AmxTileKernels* amx_tile_kernels();

}  // namespace repsim_fast
