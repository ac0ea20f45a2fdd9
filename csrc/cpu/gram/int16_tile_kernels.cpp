#include "cpu/gram/int16_tile_kernels.h"

#include "cpu/compiler.h"
#include "cpu/simd_level.h"

#if REPSIM_X86
#include <immintrin.h>
#endif

namespace repsim_fast {

#if REPSIM_X86

REPSIM_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
namespace {

// The unit of a row: its norm over the block is kLargest of them, hence no element more, and no sum
// of products of two rows leaves 32 bits (Cauchy-Schwarz). A norm that is too small for its square
// to be a float counts as the smallest that is not.
constexpr float kLargest = 32700.0f, kSmallestNorm = 0x1p-60f;

constexpr __mmask16 kAll = 0xffff;  // GCC 12 warns of what the forms without a mask leave out

// Nearest integer of sixteen numbers of at most 2^15, in the lower half of each word.
inline __attribute__((always_inline)) __m512i round(__m512 x, __m512 factor) {
  return _mm512_castps_si512(_mm512_fmadd_ps(x, factor, _mm512_set1_ps(0x1.8p23f)));
}

// Within each 128 bits: transposes the 4 x 4 words of four vectors.
inline __attribute__((always_inline)) void transpose_quads(__m512i* x) {
  const __m512i low_ab = _mm512_maskz_unpacklo_epi32(kAll, x[0], x[1]);
  const __m512i high_ab = _mm512_maskz_unpackhi_epi32(kAll, x[0], x[1]);
  const __m512i low_cd = _mm512_maskz_unpacklo_epi32(kAll, x[2], x[3]);
  const __m512i high_cd = _mm512_maskz_unpackhi_epi32(kAll, x[2], x[3]);
  x[0] = _mm512_maskz_unpacklo_epi64(0xff, low_ab, low_cd);
  x[1] = _mm512_maskz_unpackhi_epi64(0xff, low_ab, low_cd);
  x[2] = _mm512_maskz_unpacklo_epi64(0xff, high_ab, high_cd);
  x[3] = _mm512_maskz_unpackhi_epi64(0xff, high_ab, high_cd);
}

// Pairs that are packed together: features k to k + 15 with k + 16 to k + 31.
constexpr int64_t kLine = 16;

// What is packed during one block of sums, line by line.
struct PackingStep {
  Int16Packing& packing;
  const Int16Packing::Step step = packing.take();
  __m512 squares[Int16Packing::kTogether] = {};

  inline __attribute__((always_inline)) void line(int64_t pair) {
    constexpr int kRows = Int16Packing::kTogether;
    const int64_t k = 2 * pair;
    if (k >= step.depth) return;
    const __m512 low_shift = _mm512_loadu_ps(step.shift + k);
    const __m512 high_shift = _mm512_loadu_ps(step.shift + k + kLine);
    __m512i words[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const float* row = step.rows[r] + k;
      const __m512 factor = _mm512_set1_ps(step.per_unit[r]);
      const __m512 low = _mm512_sub_ps(_mm512_loadu_ps(row), low_shift);
      const __m512 high = _mm512_sub_ps(_mm512_loadu_ps(row + kLine), high_shift);
      words[r] = _mm512_mask_blend_epi16(0xaaaaaaaa, round(low, factor),
                                         _mm512_maskz_slli_epi32(kAll, round(high, factor), 16));
    }
    transpose_quads(words);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      uint32_t* to = step.to + (pair + r) * kPanel;
      store_lane<0>(to, words[r]);
      store_lane<1>(to, words[r]);
      store_lane<2>(to, words[r]);
      store_lane<3>(to, words[r]);
    }
    if (step.ahead != 0) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const float* row = step.next[r] + step.ahead + k;  // past the end this is harmless
        __builtin_prefetch(row);
        __builtin_prefetch(row + kLine);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const float* row = step.next[r] + k;
      const __m512 low = _mm512_sub_ps(_mm512_loadu_ps(row), low_shift);
      const __m512 high = _mm512_sub_ps(_mm512_loadu_ps(row + kLine), high_shift);
      squares[r] = _mm512_fmadd_ps(low, low, squares[r]);
      squares[r] = _mm512_fmadd_ps(high, high, squares[r]);
    }
  }

  // The units of the rows whose norms were found.
  inline __attribute__((always_inline)) void finish() {
    if (step.depth == 0) return;
    __m512i words[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) words[r] = _mm512_castps_si512(squares[r]);
    transpose_quads(words);
    __m512 sum = _mm512_castsi512_ps(words[0]);
#pragma GCC unroll 4
    for (int r = 1; r < 4; ++r) sum = _mm512_add_ps(sum, _mm512_castsi512_ps(words[r]));
    const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, sum, 0),
                                      _mm512_maskz_extractf32x8_ps(0xff, sum, 1));
    const __m128 square = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    // NaN stays: max returns its second operand then.
    const __m128 norm = _mm_max_ps(_mm_set1_ps(kSmallestNorm), _mm_sqrt_ps(square));
    float units[4], per_unit[4];
    _mm_storeu_ps(units, _mm_mul_ps(norm, _mm_set1_ps(1.0f / kLargest)));
    _mm_storeu_ps(per_unit, _mm_div_ps(_mm_set1_ps(kLargest), norm));
    packing.found(units, per_unit);
  }

 private:
  template <int kLane>
  static inline __attribute__((always_inline)) void store_lane(uint32_t* to, __m512i words) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 4 * kLane * kPanel),
                     _mm512_maskz_extracti32x4_epi32(0xf, words, kLane));
  }
};

void pack(Int16Packing& rest) {
  while (!rest.done()) {
    PackingStep alone{rest};
    for (int64_t pair = 0; 2 * pair < alone.step.depth; pair += kLine) alone.line(pair);
    alone.finish();
  }
}

inline __attribute__((always_inline)) __m512i broadcast(uint32_t word) {
  return _mm512_set1_epi32(static_cast<int>(word));
}

// sum += left * right, pair by pair. GCC 12 copies the sums with its own function for this.
inline __attribute__((always_inline)) void add_products(__m512i& sum, __m512i left, __m512i right) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
}

// out[j] += sum[j] * left * right[j]
inline __attribute__((always_inline)) void add_to(float* out, __m512i sum, float left,
                                                  const float* right) {
  const __m512 x = _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(kAll, sum), _mm512_set1_ps(left));
  _mm512_storeu_ps(out, _mm512_fmadd_ps(x, _mm512_loadu_ps(right), _mm512_loadu_ps(out)));
}

inline __attribute__((always_inline)) void add_to(float* out, __m256i sum, float left,
                                                  const float* right) {
  const __m256 x = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(left));
  _mm256_storeu_ps(out, _mm256_fmadd_ps(x, _mm256_loadu_ps(right), _mm256_loadu_ps(out)));
}

template <int kRows, int kVectors>
inline __attribute__((always_inline)) void multiply_block(const uint32_t* a, const uint32_t* b,
                                                          int64_t pairs, const float* left_units,
                                                          const float* right_units, float* tile,
                                                          Int16Packing& next) {
  __m512i sum[kRows][kVectors] = {};
  PackingStep meanwhile{next};
  for (int64_t k = 0; k < pairs; ++k) {
    if (k % kLine == 0) meanwhile.line(k);
    __m512i right[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      right[j] = _mm512_loadu_si512(b + k * kPanel + j * 16);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512i left = broadcast(a[k * kPanel + i]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        add_products(sum[i][j], left, right[j]);
      }
    }
  }
  meanwhile.finish();
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      add_to(tile + i * kPanel + j * 16, sum[i][j], left_units[i], right_units + j * 16);
    }
  }
}

// The lower triangle of a tile on the diagonal, in squares of 8 but for two of 16 columns: 40
// vectors of sums, where whole vectors of rows would be 48. A vector holds a row of the first
// square on the diagonal and one of the third.
void multiply_triangle(const uint32_t* a, int64_t pairs, int64_t rows, const float* units,
                       float* tile, Int16Packing& next) {
  {
    __m512i both[8] = {}, below[8] = {};  // rows 0 to 7 and 16 to 23; 8 to 15
    __m512i row[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      row[i] = _mm512_maskz_inserti64x4(0xff, _mm512_set1_epi32(i), _mm256_set1_epi32(16 + i), 1);
    }
    PackingStep meanwhile{next};
    for (int64_t k = 0; k < pairs; ++k) {
      if (k % kLine == 0) meanwhile.line(k);
      const uint32_t* words = a + k * kPanel;
      const __m512i first = _mm512_loadu_si512(words), second = _mm512_loadu_si512(words + 16);
      const __m512i columns = _mm512_maskz_inserti64x4(
          0xff, first, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + 16)), 1);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m512i left = _mm512_permutex2var_epi32(first, row[i], second);
        add_products(both[i], left, columns);
        add_products(below[i], broadcast(words[8 + i]), first);
      }
    }
    meanwhile.finish();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      add_to(tile + i * kPanel, _mm512_maskz_extracti32x8_epi32(0xff, both[i], 0), units[i], units);
      add_to(tile + (16 + i) * kPanel + 16, _mm512_maskz_extracti32x8_epi32(0xff, both[i], 1),
             units[16 + i], units + 16);
      add_to(tile + (8 + i) * kPanel, below[i], units[8 + i], units);
    }
  }
  if (rows <= 16) return;
  __m512i left_half[8] = {}, whole[8][2] = {};  // rows 16 to 23; 24 to 31
  PackingStep meanwhile{next};
  for (int64_t k = 0; k < pairs; ++k) {
    if (k % kLine == 0) meanwhile.line(k);
    const uint32_t* words = a + k * kPanel;
    const __m512i first = _mm512_loadu_si512(words);
    const __m512i second = _mm512_loadu_si512(words + 16);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      add_products(left_half[i], broadcast(words[16 + i]), first);
      const __m512i left = broadcast(words[24 + i]);
      add_products(whole[i][0], left, first);
      add_products(whole[i][1], left, second);
    }
  }
  meanwhile.finish();
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    add_to(tile + (16 + i) * kPanel, left_half[i], units[16 + i], units);
    add_to(tile + (24 + i) * kPanel, whole[i][0], units[24 + i], units);
    add_to(tile + (24 + i) * kPanel + 16, whole[i][1], units[24 + i], units + 16);
  }
}

void multiply(const uint32_t* a, const float* a_units, const uint32_t* b, const float* b_units,
              int64_t depth, int64_t rows, bool diagonal, float* tile, Int16Packing& next) {
  const int64_t pairs = depth / 2;
  if (diagonal) {
    multiply_triangle(a, pairs, rows, a_units, tile, next);
    return;
  }
  for (int64_t i = 0; i < rows; i += 8) {
    multiply_block<8, 2>(a + i, b, pairs, a_units + i, b_units, tile + i * kPanel, next);
  }
}

constexpr Int16TileKernels kKernels = {&pack, &multiply};

}  // namespace
REPSIM_TARGET_END

#endif  // REPSIM_X86

const Int16TileKernels* int16_tile_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512Vnni) return &kKernels;
#endif
  return nullptr;
}

}  // namespace repsim_fast
