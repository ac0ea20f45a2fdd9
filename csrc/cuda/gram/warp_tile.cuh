// A rectangle of the Gram held by one warp, computed by the matrix units.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/portability/portability.h"

namespace repsim_fast {

// Operand BFloat16 or Tf32; or float, whose values are split into two tf32 parts each, so that
// three products keep all but the last bits: high high + high low + low high. Accumulation in
// float.
template <typename Operand, int kRows, int kColumns>
struct WarpTile {
  static constexpr bool kSplit = std::is_same_v<Operand, float>;
  static constexpr int kPiecesDown = kRows / 16;
  static constexpr int kPiecesAcross = kColumns / 8;

  // With 128 registers of sums, or operands in two parts, there are few left for the operands of
  // more than one step.
  static constexpr int kStepsAtOnce = !kSplit && kRows * kColumns < 4096 ? 4 : 1;

  float sum[kPiecesDown][kPiecesAcross][4] = {};

  // Adds the products of kBytes of kRows rows at a and kColumns rows at b. Rows are kPitch bytes
  // apart in shared memory, 16-byte aligned; all operand types have the same layout in bytes.
  template <int kBytes, int kPitch>
  __device__ void accumulate(const unsigned char* a, const unsigned char* b) {
    const int lane = static_cast<int>(threadIdx.x % kWarpSize);
    // Which row, and which half of the 32 bytes, this lane fetches for load_matrices.
    a += lane % 16 * kPitch + lane / 16 * 16;
    b += (lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 16;
    REPSIM_UNROLL_BY(kStepsAtOnce)
    for (int byte = 0; byte < kBytes; byte += 32) {
      uint32_t left[kPiecesDown][4], left_low[kPiecesDown][4];
      REPSIM_UNROLL
      for (int i = 0; i < kPiecesDown; ++i) {
        load_matrices(left[i], a + i * 16 * kPitch + byte);
        if constexpr (kSplit) split(left[i], left_low[i]);
      }
      REPSIM_UNROLL
      for (int j = 0; j < kPiecesAcross; j += 2) {
        uint32_t right[4], right_low[4];  // two pieces
        load_matrices(right, b + j * 8 * kPitch + byte);
        if constexpr (kSplit) split(right, right_low);
        REPSIM_UNROLL
        for (int i = 0; i < kPiecesDown; ++i) {
          if constexpr (kSplit) {
            // The units round towards zero, which adds up from step to step: each starts from zero
            // (Ootomo and Yokota 2022, "Recovering single precision accuracy from tensor cores").
            float step[2][4] = {};
            multiply_pair<Tf32>(step[0], step[1], left_low[i], right);
            multiply_pair<Tf32>(step[0], step[1], left[i], right_low);
            multiply_pair<Tf32>(step[0], step[1], left[i], right);
            REPSIM_UNROLL
            for (int e = 0; e < 8; ++e) sum[i][j + e / 4][e % 4] += step[e / 4][e % 4];
          } else {
            multiply_pair<Operand>(sum[i][j], sum[i][j + 1], left[i], right);
          }
        }
      }
    }
  }

  template <typename Visit>
  __device__ void for_each_entry(Visit visit) const {
    const int lane = static_cast<int>(threadIdx.x % kWarpSize);
    const int row = lane / 4, column = lane % 4 * 2;
    REPSIM_UNROLL
    for (int i = 0; i < kPiecesDown; ++i) {
      REPSIM_UNROLL
      for (int j = 0; j < kPiecesAcross; ++j) {
        REPSIM_UNROLL
        for (int e = 0; e < 4; ++e) {
          visit(row + i * 16 + e / 2 * 8, column + j * 8 + e % 2, sum[i][j][e]);
        }
      }
    }
  }

 private:
  // Two pieces side by side, from the two right operands that one load brings.
  template <typename Unit>
  __device__ static void multiply_pair(float (&first)[4], float (&second)[4],
                                       const uint32_t (&left)[4], const uint32_t (&right)[4]) {
    multiply_tile<Unit>(first, left, {right[0], right[1]});
    multiply_tile<Unit>(second, left, {right[2], right[3]});
  }

  // words = high + low of the floats in words, high rounded to tf32; what the low part has beyond
  // tf32 the unit ignores.
  __device__ static void split(uint32_t (&words)[4], uint32_t (&low)[4]) {
    REPSIM_UNROLL
    for (int w = 0; w < 4; ++w) {
      const float value = bits_float(words[w]);
      const float high = convert_to<Tf32>(value).value;
      words[w] = float_bits(high);
      low[w] = float_bits(value - high);
    }
  }
};

}  // namespace repsim_fast
