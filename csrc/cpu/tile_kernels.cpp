#include "cpu/tile_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "cpu/simd_level.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define REPSIM_X86 1
#else
#define REPSIM_X86 0
#endif

namespace repsim_fast {

namespace baseline {
#define REPSIM_VECTOR_BYTES 16
#include "cpu/tile_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace baseline

#if REPSIM_X86

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define REPSIM_VECTOR_BYTES 32
#include "cpu/tile_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace avx512 {
#define REPSIM_VECTOR_BYTES 64
#include "cpu/tile_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
namespace avx512_vnni {

using Words = avx512::Vector<float>;  // sixteen 32-bit words, whatever they hold
constexpr int kLanes = Words::kLanes;

// The unit of each of sixteen rows: its norm over the block is kLargest of them, hence no element
// more, and no sum of products of two rows leaves 32 bits (Cauchy-Schwarz). A norm that is too
// small for its square to be a float counts as the smallest that is not.
constexpr float kLargest = 32700.0f, kSmallestNorm = 0x1p-60f;

constexpr __mmask16 kAll = 0xffff;  // GCC 12 warns of what the forms without a mask leave out

inline __attribute__((always_inline)) void find_units(const float* rows, int64_t row_stride,
                                                      int64_t depth, float* units,
                                                      float* per_unit) {
  Words::Type squares[kLanes];
  for (int r = 0; r < kLanes; r += 4) {
    __m512 sum[4] = {};
    for (int64_t k = 0; k < depth; k += kLanes) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m512 x = _mm512_loadu_ps(rows + (r + i) * row_stride + k);
        sum[i] = _mm512_fmadd_ps(x, x, sum[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) squares[r + i] = (Words::Type)sum[i];
  }
  avx512::transpose_square<float>(squares);
#pragma GCC unroll 16
  for (int i = 1; i < kLanes; ++i) squares[0] += squares[i];
  // NaN stays: max returns its second operand then.
  const __m512 norm = _mm512_maskz_max_ps(kAll, _mm512_set1_ps(kSmallestNorm),
                                          _mm512_maskz_sqrt_ps(kAll, (__m512)squares[0]));
  _mm512_storeu_ps(units, _mm512_mul_ps(norm, _mm512_set1_ps(1.0f / kLargest)));
  _mm512_storeu_ps(per_unit, _mm512_div_ps(_mm512_set1_ps(kLargest), norm));
}

// Nearest integer of sixteen numbers of at most 2^15, in the lower half of each word.
inline __attribute__((always_inline)) __m512i round(__m512 x, __m512 factor) {
  return _mm512_castps_si512(_mm512_fmadd_ps(x, factor, _mm512_set1_ps(0x1.8p23f)));
}

void pack(const float* rows, int64_t row_stride, int64_t depth, uint32_t* panel, float* units) {
  for (int64_t r = 0; r < kPanel; r += kLanes) {
    alignas(64) float per_unit[kLanes];
    find_units(rows + r * row_stride, row_stride, depth, units + r, per_unit);
    for (int64_t k = 0; k < depth; k += 2 * kLanes) {
      const bool wide = k + kLanes < depth;  // depth is a multiple of 16, not always of 32
      Words::Type square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const float* row = rows + (r + i) * row_stride + k;
        const __m512 factor = _mm512_set1_ps(per_unit[i]);
        // The next rows, so that their units are not waited for.
        __builtin_prefetch(row + kLanes * row_stride);
        __builtin_prefetch(row + kLanes * row_stride + kLanes);
        const __m512 low = _mm512_loadu_ps(row);
        const __m512 high = wide ? _mm512_loadu_ps(row + kLanes) : _mm512_setzero_ps();
        square[i] = (Words::Type)_mm512_mask_blend_epi16(
            0xaaaaaaaa, round(low, factor), _mm512_maskz_slli_epi32(kAll, round(high, factor), 16));
      }
      avx512::transpose_square<float>(square);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) {
        std::memcpy(panel + (k / 2 + i) * kPanel + r, &square[i], sizeof(square[i]));
      }
    }
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
                                                          Staging<float>& next) {
  __m512i sum[kRows][kVectors] = {};
  const Staging<float>::Rows rows = next.take();
  for (int64_t k = 0; k < pairs; ++k) {
    if (k % (Staging<float>::kLine / 2) == 0) avx512::stage_line<float>(rows, 2 * k);
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
                       float* tile, Staging<float>& next) {
  constexpr int kLine = Staging<float>::kLine / 2;  // pairs a cache line
  {
    __m512i both[8] = {}, below[8] = {};  // rows 0 to 7 and 16 to 23; 8 to 15
    __m512i row[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      row[i] = _mm512_maskz_inserti64x4(0xff, _mm512_set1_epi32(i), _mm256_set1_epi32(16 + i), 1);
    }
    const Staging<float>::Rows staged = next.take();
    for (int64_t k = 0; k < pairs; ++k) {
      if (k % kLine == 0) avx512::stage_line<float>(staged, 2 * k);
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
  const Staging<float>::Rows staged = next.take();
  for (int64_t k = 0; k < pairs; ++k) {
    if (k % kLine == 0) avx512::stage_line<float>(staged, 2 * k);
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
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    add_to(tile + (16 + i) * kPanel, left_half[i], units[16 + i], units);
    add_to(tile + (24 + i) * kPanel, whole[i][0], units[24 + i], units);
    add_to(tile + (24 + i) * kPanel + 16, whole[i][1], units[24 + i], units + 16);
  }
}

void multiply(const uint32_t* a, const float* a_units, const uint32_t* b, const float* b_units,
              int64_t depth, int64_t rows, bool diagonal, float* tile, Staging<float>& next) {
  const int64_t pairs = ceil_div(depth, 2 * kLanes) * kLanes;
  if (diagonal) {
    multiply_triangle(a, pairs, rows, a_units, tile, next);
    return;
  }
  for (int64_t i = 0; i < rows; i += 8) {
    multiply_block<8, 2>(a + i, b, pairs, a_units + i, b_units, tile + i * kPanel, next);
  }
}

constexpr Int16TileKernels kKernels = {&pack, &multiply};

}  // namespace avx512_vnni
#pragma GCC pop_options

#endif  // REPSIM_X86

template <typename T>
const TileKernels<T>& tile_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512) return avx512::kKernels<T>;
  if (simd_level() >= SimdLevel::kAvx2) return avx2::kKernels<T>;
#endif
  return baseline::kKernels<T>;
}

template const TileKernels<float>& tile_kernels<float>();
template const TileKernels<double>& tile_kernels<double>();

const Int16TileKernels* int16_tile_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512Vnni) return &avx512_vnni::kKernels;
#endif
  return nullptr;
}

}  // namespace repsim_fast
