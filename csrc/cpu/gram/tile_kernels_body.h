// One instruction set's version of the tile kernels. tile_kernels.cpp includes this file once for
// each level, inside a namespace and under the matching target pragma, with REPSIM_VECTOR_BYTES
// set; so it has no include guard and includes its own parts only.

#include "cpu/gram/vectors_body.h"

// Copies features [k, k + kLine) of kCount rows, less the shift.
template <typename T, int kCount>
inline __attribute__((always_inline)) void stage_rows(const typename Staging<T>::Rows& rows,
                                                      int64_t k) {
  using V = Vector<T>;
  using Vec = typename V::Type;
#pragma GCC unroll 4
  for (int j = 0; j < Staging<T>::kLine; j += V::kLanes) {
    const Vec shift = *reinterpret_cast<const typename Vector<T>::Memory*>(rows.shift + k + j);
#pragma GCC unroll 4
    for (int r = 0; r < kCount; ++r) {
      const Vec x =
          *reinterpret_cast<const typename Vector<T>::Memory*>(rows.from + r * rows.stride + k + j);
      *reinterpret_cast<typename Vector<T>::Memory*>(rows.to + r * kDepth + k + j) = x - shift;
    }
  }
}

template <typename T>
inline __attribute__((always_inline)) void stage_line(const typename Staging<T>::Rows& rows,
                                                      int64_t k) {
  if (k >= rows.depth) return;
  constexpr int kTogether = Staging<T>::kTogether;
#pragma GCC unroll 4
  for (int r = 0; r < kTogether; ++r) {
    __builtin_prefetch(rows.fetch + r * rows.stride + k);  // past the end this is harmless
  }
  __builtin_prefetch(rows.from + rows.depth + k);
  if (rows.count == kTogether) {
    stage_rows<T, kTogether>(rows, k);
    return;
  }
  typename Staging<T>::Rows row = rows;
  for (; row.count > 0; --row.count, row.from += row.stride, row.to += kDepth) {
    stage_rows<T, 1>(row, k);
  }
}

template <typename T>
void stage(Staging<T>& rest) {
  while (!rest.done()) {
    const typename Staging<T>::Rows rows = rest.take();
    for (int64_t k = 0; k < rows.depth; k += Staging<T>::kLine) stage_line<T>(rows, k);
  }
}

// Selects instead of branches, so that the compiler makes vectors of it.
template <typename T>
void from_half(const uint16_t* x, int64_t count, T* out) {
  constexpr uint32_t kExponent = 0x0f800000, kOne = 1u << 23;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = (x[i] & 0x7fffu) << 13, exponent = magnitude & kExponent;
    // Exponents are 112 more in a float, and for Inf and NaN all ones in both. Numbers below the
    // normal ones get a leading one, which is taken away again.
    const uint32_t bias = exponent == kExponent ? 224 : exponent == 0 ? 113 : 112;
    const float leading = exponent == 0 ? std::bit_cast<float>(113 * kOne) : 0.0f;
    const float value = std::bit_cast<float>(magnitude + bias * kOne) - leading;
    const uint32_t sign = (x[i] & 0x8000u) << 16;
    out[i] = static_cast<T>(std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign));
  }
}

template <typename T>
void middle_mean(const T* x, int64_t row_stride, int64_t count, int64_t depth, T* middle) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  const int64_t groups = count < 3 ? 1 : 3;
  for (int64_t k = 0; k < depth; k += V::kLanes) {
    Vec means[3] = {};
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t r = g; r < count; r += groups) {
        means[g] += *reinterpret_cast<const typename Vector<T>::Memory*>(x + r * row_stride + k);
      }
      means[g] /= static_cast<T>((count - g + groups - 1) / groups);
    }
    if (groups == 3) means[0] = middle_of_three<T>(means);
    *reinterpret_cast<typename Vector<T>::Memory*>(middle + k) = means[0];
  }
}

template <typename T>
void pack(const T* rows, int64_t row_stride, int64_t depth, T* panel) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  for (int64_t k = 0; k < depth; k += V::kLanes) {
    for (int64_t r = 0; r < kPanel; r += V::kLanes) {
      Vec square[V::kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < V::kLanes; ++i) {
        square[i] =
            *reinterpret_cast<const typename Vector<T>::Memory*>(rows + (r + i) * row_stride + k);
      }
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < V::kLanes; ++i) {
        *reinterpret_cast<typename Vector<T>::Memory*>(panel + (k + i) * kPanel + r) = square[i];
      }
    }
  }
}

// kRows x (kVectors * lanes) block of a tile, held in registers over the whole depth.
template <typename T, int kRows, int kVectors>
inline __attribute__((always_inline)) void multiply_block(const T* a, const T* b, int64_t depth,
                                                          T* tile, Staging<T>& next) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  Vec sum[kRows][kVectors] = {};
  const typename Staging<T>::Rows rows = next.take();
  // The tiles of many rows are more than a cache holds.
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors * V::kLanes; j += Staging<T>::kLine) {
      __builtin_prefetch(tile + i * kPanel + j, 1);
    }
  }
  // Line by line: a test in each step would keep the loop's pointers in registers of its own.
  for (int64_t line = 0; line < depth; line += Staging<T>::kLine) {
    stage_line<T>(rows, line);
    const int64_t end = std::min(line + Staging<T>::kLine, depth);
    for (int64_t k = line; k < end; ++k) {
      Vec right[kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) {
        right[j] =
            *reinterpret_cast<const typename Vector<T>::Memory*>(b + k * kPanel + j * V::kLanes);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) sum[i][j] += a[k * kPanel + i] * right[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      *reinterpret_cast<typename Vector<T>::Memory*>(tile + i * kPanel + j * V::kLanes) +=
          sum[i][j];
    }
  }
}

// Blocks two vectors wide, of as many rows as leave registers for the operands: 6 of AVX2, where
// the sums of 4 would wait for one another; the last rows of a panel by 4. On the diagonal also
// blocks one wide, so that what lies wholly above it is left out.
template <typename T>
void multiply(const T* a, const T* b, int64_t depth, int64_t rows, bool diagonal, T* tile,
              Staging<T>& next) {
  constexpr int kSums = REPSIM_VECTOR_BYTES == 64 ? 16 : 8;
  constexpr int kLanes = Vector<T>::kLanes;
  if (!diagonal) {
    constexpr int kRows = REPSIM_VECTOR_BYTES == 32 ? 6 : kSums / 2;
    constexpr int64_t kEven = kPanel / (2 * kRows) * (2 * kRows);
    for (int64_t j = 0; j < kPanel; j += 2 * kLanes) {
      int64_t i = 0;
      for (; i < std::min(rows, kEven); i += kRows) {
        multiply_block<T, kRows, 2>(a + i, b + j, depth, tile + i * kPanel + j, next);
      }
      for (; i < rows; i += kSums / 2) {
        multiply_block<T, kSums / 2, 2>(a + i, b + j, depth, tile + i * kPanel + j, next);
      }
    }
    return;
  }
  constexpr int kNarrow = std::min(kSums, kLanes), kWide = std::min(kSums / 2, kLanes);
  for (int64_t j = 0; j < kPanel; j += 2 * kLanes) {
    for (int64_t i = j; i < std::min(rows, j + kLanes); i += kNarrow) {
      multiply_block<T, kNarrow, 1>(a + i, b + j, depth, tile + i * kPanel + j, next);
    }
    for (int64_t i = j + kLanes; i < rows; i += kWide) {
      multiply_block<T, kWide, 2>(a + i, b + j, depth, tile + i * kPanel + j, next);
    }
  }
}

template <typename T>
inline __attribute__((always_inline)) Vector<double>::Type to_double(const T* x) {
  return __builtin_convertvector(*reinterpret_cast<const typename Vector<T>::Few*>(x),
                                 Vector<double>::Type);
}

template <typename T>
void add_sums(const T* tile, double* row_sum, double* column_sum) {
  using Vec = Vector<double>::Type;
  constexpr int kLanes = Vector<double>::kLanes;
  constexpr int kWide = std::min<int>(kPanel, 4 * kLanes);  // columns whose sums stay in registers
  for (int64_t j = 0; j < kPanel; j += kWide) {
    Vec columns[kWide / kLanes] = {};
    for (int64_t i = 0; i < kPanel; i += kLanes) {
      Vec rows[kLanes] = {};
#pragma GCC unroll 8
      for (int r = 0; r < kLanes; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < kWide / kLanes; ++c) {
          const Vec x = to_double(tile + (i + r) * kPanel + j + c * kLanes);
          rows[r] += x;
          columns[c] += x;
        }
      }
      transpose_square<double>(rows);
#pragma GCC unroll 8
      for (int r = 1; r < kLanes; ++r) rows[0] += rows[r];
      *reinterpret_cast<Vector<double>::Memory*>(row_sum + i) += rows[0];
    }
#pragma GCC unroll 4
    for (int c = 0; c < kWide / kLanes; ++c) {
      *reinterpret_cast<Vector<double>::Memory*>(column_sum + j + c * kLanes) += columns[c];
    }
  }
}

template <typename T>
void write_centred(const T* row, double row_offset, const double* column_offset, double weight,
                   int64_t count, T* out) {
  using Vec = Vector<double>::Type;
  constexpr int kLanes = Vector<double>::kLanes;
  for (int64_t j = 0; j < count; j += kLanes) {
    const Vec offset =
        *reinterpret_cast<const Vector<double>::Memory*>(column_offset + j) + row_offset;
    const typename Vector<T>::Few centred =
        __builtin_convertvector((to_double(row + j) - offset) * weight, typename Vector<T>::Few);
    if (j + kLanes <= count) {
      *reinterpret_cast<typename Vector<T>::Few*>(out + j) = centred;
    } else {
      for (int64_t k = j; k < count; ++k) out[k] = centred[k - j];
    }
  }
}

template <typename T>
inline constexpr TileKernels<T> kKernels = {&stage<T>,    &from_half<T>, &middle_mean<T>,  &pack<T>,
                                            &multiply<T>, &add_sums<T>,  &write_centred<T>};
