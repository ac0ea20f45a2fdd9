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
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
namespace avx512_bf16 {

using Words = avx512::Vector<float>;  // sixteen 32-bit words, whatever they hold

void pack(const float* rows, int64_t row_stride, const float* mean, int64_t depth,
          uint32_t* panel) {
  constexpr int kLanes = 16;  // words a vector; each holds two features
  for (int64_t k = 0; k < depth; k += 2 * kLanes) {
    const __m512 low_centre = _mm512_loadu_ps(mean + k);
    const bool wide = k + kLanes < depth;  // depth is a multiple of 16, not always of 32
    const __m512 high_centre = wide ? _mm512_loadu_ps(mean + k + kLanes) : _mm512_setzero_ps();
    const int64_t pairs = wide ? kLanes : kLanes / 2;
    for (int64_t r = 0; r < kPanel; r += kLanes) {
      Words::Type square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const float* row = rows + (r + i) * row_stride + k;
        __builtin_prefetch(row + 2 * kLanes);  // past the end this is harmless
        __builtin_prefetch(row + 3 * kLanes);
        const __m512 low = _mm512_sub_ps(_mm512_loadu_ps(row), low_centre);
        const __m512 high =
            wide ? _mm512_sub_ps(_mm512_loadu_ps(row + kLanes), high_centre) : _mm512_setzero_ps();
        square[i] = (Words::Type)_mm512_cvtne2ps_pbh(high, low);
      }
      avx512::transpose_square<float>(square);
      for (int64_t i = 0; i < pairs; ++i) {
        std::memcpy(panel + (k / 2 + i) * kPanel + r, &square[i], sizeof(square[i]));
      }
    }
  }
}

inline __attribute__((always_inline)) __m512bh broadcast(uint32_t word) {
  return (__m512bh)_mm512_set1_epi32(static_cast<int>(word));
}

inline __attribute__((always_inline)) void add_to(float* out, __m512 sum) {
  _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sum));
}

inline __attribute__((always_inline)) void add_to(float* out, __m256 sum) {
  _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), sum));
}

template <int kRows, int kVectors>
inline __attribute__((always_inline)) void multiply_block(const uint32_t* a, const uint32_t* b,
                                                          int64_t pairs, float* tile,
                                                          Staging<float>& next) {
  __m512 sum[kRows][kVectors] = {};
  const Staging<float>::Rows rows = next.take();
  for (int64_t k = 0; k < pairs; ++k) {
    if (k % (Staging<float>::kLine / 2) == 0) avx512::stage_line<float>(rows, 2 * k);
    __m512bh right[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      right[j] = (__m512bh)_mm512_loadu_si512(b + k * kPanel + j * 16);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512bh left = broadcast(a[k * kPanel + i]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      add_to(tile + i * kPanel + j * 16, sum[i][j]);
    }
  }
}

// The lower triangle of a tile on the diagonal, in squares of 8 but for two of 16 columns: 40
// vectors of sums, where whole vectors of rows would be 48. A vector holds a row of the first
// square on the diagonal and one of the third.
void multiply_triangle(const uint32_t* a, int64_t pairs, int64_t rows, float* tile,
                       Staging<float>& next) {
  constexpr int kLine = Staging<float>::kLine / 2;  // pairs a cache line
  {
    __m512 both[8] = {}, below[8] = {};  // rows 0 to 7 and 16 to 23; 8 to 15
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
        both[i] = _mm512_dpbf16_ps(both[i], (__m512bh)left, (__m512bh)columns);
        below[i] = _mm512_dpbf16_ps(below[i], broadcast(words[8 + i]), (__m512bh)first);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      add_to(tile + i * kPanel, _mm512_maskz_extractf32x8_ps(0xff, both[i], 0));
      add_to(tile + (16 + i) * kPanel + 16, _mm512_maskz_extractf32x8_ps(0xff, both[i], 1));
      add_to(tile + (8 + i) * kPanel, below[i]);
    }
  }
  if (rows <= 16) return;
  __m512 left_half[8] = {}, whole[8][2] = {};  // rows 16 to 23; 24 to 31
  const Staging<float>::Rows staged = next.take();
  for (int64_t k = 0; k < pairs; ++k) {
    if (k % kLine == 0) avx512::stage_line<float>(staged, 2 * k);
    const uint32_t* words = a + k * kPanel;
    const __m512bh first = (__m512bh)_mm512_loadu_si512(words);
    const __m512bh second = (__m512bh)_mm512_loadu_si512(words + 16);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      left_half[i] = _mm512_dpbf16_ps(left_half[i], broadcast(words[16 + i]), first);
      const __m512bh left = broadcast(words[24 + i]);
      whole[i][0] = _mm512_dpbf16_ps(whole[i][0], left, first);
      whole[i][1] = _mm512_dpbf16_ps(whole[i][1], left, second);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    add_to(tile + (16 + i) * kPanel, left_half[i]);
    add_to(tile + (24 + i) * kPanel, whole[i][0]);
    add_to(tile + (24 + i) * kPanel + 16, whole[i][1]);
  }
}

void multiply(const uint32_t* a, const uint32_t* b, int64_t depth, int64_t rows, bool diagonal,
              float* tile, Staging<float>& next) {
  const int64_t pairs = depth / 2;
  if (diagonal) {
    multiply_triangle(a, pairs, rows, tile, next);
    return;
  }
  for (int64_t i = 0; i < rows; i += 8) {
    multiply_block<8, 2>(a + i, b, pairs, tile + i * kPanel, next);
  }
}

constexpr Bf16TileKernels kKernels = {&pack, &multiply};

}  // namespace avx512_bf16
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

const Bf16TileKernels* bf16_tile_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512Bf16) return &avx512_bf16::kKernels;
#endif
  return nullptr;
}

void round_to_bf16(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    bits += is_nan ? 0u : 0x7fffu + ((bits >> 16) & 1u);  // nearest, ties to even
    bits = is_nan ? 0x7fc00000u : bits & 0xffff0000u;
    std::memcpy(values + i, &bits, sizeof(bits));
  }
}

}  // namespace repsim_fast
