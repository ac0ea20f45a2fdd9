#include "cpu/gram/amx_tile_kernels.h"

#include <algorithm>
#include <type_traits>

#include "cpu/compiler.h"
#include "cpu/simd_level.h"

#if REPSIM_X86
#include <immintrin.h>
#endif

namespace repsim_fast {

#if REPSIM_X86

REPSIM_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,amx-tile,amx-bf16")
namespace {

#define REPSIM_VECTOR_BYTES 64
#include "cpu/gram/vectors_body.h"
#undef REPSIM_VECTOR_BYTES

// Sixteen words, which the tiles take for pairs of bfloat16.
using Words = Vector<float>::Type;

// GCC's functions that load and store a configuration tell it of the first 8 bytes only.
inline __attribute__((always_inline)) void touch(const AmxConfiguration& all) {
  asm volatile("" : : "r"(&all) : "memory");
}

void begin(AmxConfiguration& before) {
  _tile_storeconfig(&before);
  touch(before);
  // Palette 1; of each tile the bytes of a row, from byte 16, and the rows, from byte 48.
  AmxConfiguration ours;
  ours.bytes[0] = 1;
  for (int tile = 0; tile < 8; ++tile) {
    ours.bytes[16 + 2 * tile] = kAmxTileBytes / kAmxRows;
    ours.bytes[48 + tile] = kAmxRows;
  }
  touch(ours);
  _tile_loadconfig(&ours);
}

void end(const AmxConfiguration& before) {
  if (before.bytes[0] == 0) {  // no tiles: the system need not save them
    _tile_release();
  } else {
    touch(before);
    _tile_loadconfig(&before);
  }
}

// Two vectors of floats that hold 32 features, in an order that suits the type: of floats and
// halves the first 16 and the others, of bfloat16 the even and the odd ones.
struct Pairs {
  __m512 first, second;
};

struct OfFloat {
  using In = float;
  static inline __attribute__((always_inline)) Pairs load(const float* x, uint32_t mask) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x),
            _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16)};
  }
};

struct OfHalf {
  using In = uint16_t;
  static inline __attribute__((always_inline)) Pairs load(const uint16_t* x, uint32_t mask) {
    const __m512i bits = _mm512_maskz_loadu_epi16(mask, x);
    return {_mm512_maskz_cvtph_ps(kAll, _mm512_maskz_extracti64x4_epi64(0xf, bits, 0)),
            _mm512_maskz_cvtph_ps(kAll, _mm512_maskz_extracti64x4_epi64(0xf, bits, 1))};
  }
  static constexpr __mmask16 kAll = 0xffff;  // GCC 12 warns of what forms without a mask leave out
};

struct OfBFloat16 {
  using In = uint16_t;
  static inline __attribute__((always_inline)) Pairs load(const uint16_t* x, uint32_t mask) {
    const __m512i bits = _mm512_maskz_loadu_epi16(mask, x);
    return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, bits, 16)),
            _mm512_castsi512_ps(_mm512_maskz_and_epi32(
                0xffff, bits, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
};

// Of the features from k on, those that there are.
inline __attribute__((always_inline)) uint32_t features_of_chunk(int64_t k, int64_t depth) {
  return depth - k >= kAmxDepthUnit ? ~0u : (1u << (depth - k)) - 1;
}

template <typename Of>
void find_shift(const typename Of::In* x, int64_t x_stride, int64_t count, int64_t depth,
                float* shift) {
  // Sampled rows lie far apart; what is read of them is fetched this many features before.
  constexpr int64_t kAhead = 256;
  const int64_t groups = count < 3 ? 1 : 3;
  for (int64_t k = 0; k < depth; k += kAmxDepthUnit) {
    const uint32_t mask = features_of_chunk(k, depth);
    Words first[3] = {}, second[3] = {};
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t r = g; r < count; r += groups) {
        const auto* row = x + r * x_stride + k;
        for (int64_t line = 0; line < kAmxDepthUnit; line += 64 / sizeof(*row)) {
          __builtin_prefetch(row + kAhead + line);  // past the end this is harmless
        }
        const Pairs features = Of::load(row, mask);
        first[g] = _mm512_add_ps(first[g], features.first);
        second[g] = _mm512_add_ps(second[g], features.second);
      }
      const __m512 rows = _mm512_set1_ps(static_cast<float>((count - g + groups - 1) / groups));
      first[g] = _mm512_div_ps(first[g], rows);
      second[g] = _mm512_div_ps(second[g], rows);
    }
    _mm512_storeu_ps(shift + k, groups == 3 ? middle_of_three<float>(first) : first[0]);
    _mm512_storeu_ps(shift + k + 16, groups == 3 ? middle_of_three<float>(second) : second[0]);
  }
}

// A half of a panel: kAmxRows rows, or fewer and zeros.
template <typename Of>
inline __attribute__((always_inline)) void pack_half_panel(const typename Of::In* x,
                                                           int64_t x_stride, int64_t rows,
                                                           int64_t depth, const float* shift,
                                                           std::byte* as_rows,
                                                           std::byte* as_columns) {
  for (int64_t k = 0; k < depth; k += kAmxDepthUnit) {
    const uint32_t mask = features_of_chunk(k, depth);
    const Pairs away = OfFloat::load(shift + k, ~0u);
    float* const to_rows =
        reinterpret_cast<float*>(as_rows + k / kAmxDepthUnit * 2 * kAmxTileBytes);
    float* const to_columns =
        reinterpret_cast<float*>(as_columns + k / kAmxDepthUnit * 2 * kAmxTileBytes);
    Words words[kAmxRows] = {};
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; ++r) {
      if (r < rows) {
        const Pairs row = Of::load(x + r * x_stride + k, mask);
        words[r] = reinterpret_cast<Words>(_mm512_cvtne2ps_pbh(
            _mm512_sub_ps(row.second, away.second), _mm512_sub_ps(row.first, away.first)));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; ++r) {
      *reinterpret_cast<Vector<float>::Memory*>(to_rows + r * 16) = words[r];
    }
    transpose_square<float>(words);
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; ++r) {
      *reinterpret_cast<Vector<float>::Memory*>(to_columns + r * 16) = words[r];
    }
  }
}

template <typename Of>
void pack(const typename Of::In* x, int64_t x_stride, int64_t rows, int64_t depth,
          const float* shift, std::byte* as_rows, std::byte* as_columns) {
  for (int64_t r = 0; r < rows; r += kAmxRows) {
    const int64_t at = r / kPanel * kAmxPanelBytes + r % kPanel / kAmxRows * kAmxTileBytes;
    const auto* from = x + r * x_stride;
    if (rows - r >= kAmxRows) {
      pack_half_panel<Of>(from, x_stride, kAmxRows, depth, shift, as_rows + at, as_columns + at);
    } else {
      pack_half_panel<Of>(from, x_stride, rows - r, depth, shift, as_rows + at, as_columns + at);
    }
  }
}

// tile += sums, `rows` rows of `columns` columns.
inline __attribute__((always_inline)) void add_to(float* tile, const float* sums, int64_t rows,
                                                  int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int64_t j = 0; j < columns; j += 16) {
      float* to = tile + i * kPanel + j;
      _mm512_storeu_ps(to,
                       _mm512_add_ps(_mm512_loadu_ps(to), _mm512_load_ps(sums + i * kPanel + j)));
    }
  }
}

constexpr int kRowBytes = kAmxTileBytes / kAmxRows, kSumBytes = kPanel * sizeof(float);

// Sums are tiles 0 to 3, row by row of halves; rows 4 and 5, columns 6 and 7. Without `kTall` there
// is only the upper half, on the diagonal nothing above it.
template <bool kTall, bool kDiagonal>
void multiply_tiles(const std::byte* a, const std::byte* b, int64_t depth, float* tile) {
  alignas(64) float sums[kTile];
  constexpr int64_t kHalf = kAmxRows * kPanel;
  _tile_zero(0);
  if constexpr (!kDiagonal) _tile_zero(1);
  if constexpr (kTall) {
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::byte* const last = a + (depth + kAmxDepthUnit - 1) / kAmxDepthUnit * 2 * kAmxTileBytes;
  for (; a < last; a += 2 * kAmxTileBytes, b += 2 * kAmxTileBytes) {
    _tile_loadd(4, a, kRowBytes);
    _tile_loadd(6, b, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTall || !kDiagonal) _tile_loadd(7, b + kAmxTileBytes, kRowBytes);
    if constexpr (!kDiagonal) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTall) {
      _tile_loadd(5, a + kAmxTileBytes, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kSumBytes);
  if constexpr (!kDiagonal) _tile_stored(1, sums + 16, kSumBytes);
  add_to(tile, sums, kAmxRows, kDiagonal ? 16 : kPanel);
  if constexpr (kTall) {
    _tile_stored(2, sums + kHalf, kSumBytes);
    _tile_stored(3, sums + kHalf + 16, kSumBytes);
    add_to(tile + kHalf, sums + kHalf, kAmxRows, kPanel);
  }
}

void multiply(const std::byte* a, const std::byte* b, int64_t depth, int64_t rows, bool diagonal,
              float* tile) {
  const bool tall = rows > kAmxRows;
  const auto tiles =
      tall ? (diagonal ? &multiply_tiles<true, true> : &multiply_tiles<true, false>)
           : (diagonal ? &multiply_tiles<false, true> : &multiply_tiles<false, false>);
  tiles(a, b, depth, tile);
}

template <typename Of>
constexpr AmxTileKernels::Reading<typename Of::In> kReading = {&find_shift<Of>, &pack<Of>};

constexpr AmxTileKernels kKernels = {
    &begin, &end, kReading<OfFloat>, kReading<OfBFloat16>, kReading<OfHalf>, &multiply};

}  // namespace
REPSIM_TARGET_END

#endif  // REPSIM_X86

const AmxTileKernels* amx_tile_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAmx) return &kKernels;
#endif
  return nullptr;
}

}  // namespace repsim_fast
