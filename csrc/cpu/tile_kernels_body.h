// One instruction set's version of the tile kernels. tile_kernels.cpp includes this file once for
// each level, inside a namespace and under the matching target pragma, with REPSIM_VECTOR_BYTES
// set; so it has no include guard and includes nothing.

template <typename T>
struct Vector {
  static constexpr int kLanes = REPSIM_VECTOR_BYTES / sizeof(T);
  typedef T Type __attribute__((vector_size(REPSIM_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index
      __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
};

// In-register transpose of a kLanes x kLanes square: log2(kLanes) rounds, each of which exchanges
// the off-diagonal quarters of all blocks of 2 * kHalf rows. Recursion keeps the shuffle masks
// compile-time constants.
template <typename T, int kHalf = 1>
inline __attribute__((always_inline)) void transpose_square(typename Vector<T>::Type* rows) {
  using V = Vector<T>;
  if constexpr (kHalf < V::kLanes) {
    typename V::Index low = {}, high = {};
#pragma GCC unroll 16
    for (int lane = 0; lane < V::kLanes; ++lane) {
      const bool second = (lane & kHalf) != 0;
      low[lane] = second ? V::kLanes + lane - kHalf : lane;
      high[lane] = second ? V::kLanes + lane : lane + kHalf;
    }
#pragma GCC unroll 16
    for (int i = 0; i < V::kLanes; ++i) {
      if ((i & kHalf) != 0) continue;
      const typename V::Type a = rows[i], b = rows[i + kHalf];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + kHalf] = __builtin_shuffle(a, b, high);
    }
    transpose_square<T, 2 * kHalf>(rows);
  }
}

// sum[0 .. kVectors * lanes) += column sums of `run` rows, added in T.
template <typename T, int kVectors>
inline __attribute__((always_inline)) void add_run(const T* x, int64_t x_stride, int64_t run,
                                                   double* sum) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  Vec total[kVectors] = {};
  for (int64_t i = 0; i < run; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      // Rows lie far apart, where hardware prefetching starts anew in each. Prefetching past the
      // end is harmless.
      __builtin_prefetch(x + (i + run) * x_stride + j * V::kLanes);
      total[j] += *reinterpret_cast<const Vec*>(x + i * x_stride + j * V::kLanes);
    }
  }
  T values[kVectors * V::kLanes];
#pragma GCC unroll 8
  for (int j = 0; j < kVectors; ++j) *reinterpret_cast<Vec*>(values + j * V::kLanes) = total[j];
#pragma GCC ivdep
  for (int k = 0; k < kVectors * V::kLanes; ++k) sum[k] += static_cast<double>(values[k]);
}

template <typename T>
void add_rows(const T* x, int64_t x_stride, int64_t count, int64_t depth, double* sum) {
  constexpr int64_t kLanes = Vector<T>::kLanes;
  // Added in T first: a few rows, so that no more than their last place is lost.
  constexpr int64_t kRun = 16;
  for (int64_t r = 0; r < count; r += kRun) {
    const T* rows = x + r * x_stride;
    const int64_t run = count - r < kRun ? count - r : kRun;
    int64_t k = 0;
    for (; k + 4 * kLanes <= depth; k += 4 * kLanes) {
      add_run<T, 4>(rows + k, x_stride, run, sum + k);
    }
    for (; k < depth; k += kLanes) add_run<T, 1>(rows + k, x_stride, run, sum + k);
  }
}

template <typename T>
void pack(const T* rows, int64_t row_stride, const T* mean, int64_t depth, T* panel) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  for (int64_t k = 0; k < depth; k += V::kLanes) {
    const Vec centre = *reinterpret_cast<const Vec*>(mean + k);
    for (int64_t r = 0; r < kPanel; r += V::kLanes) {
      Vec square[V::kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < V::kLanes; ++i) {
        square[i] = *reinterpret_cast<const Vec*>(rows + (r + i) * row_stride + k) - centre;
      }
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < V::kLanes; ++i) {
        *reinterpret_cast<Vec*>(panel + (k + i) * kPanel + r) = square[i];
      }
    }
  }
}

// kRows x (kVectors * lanes) block of a tile, held in registers over the whole depth.
template <typename T, int kRows, int kVectors>
inline __attribute__((always_inline)) void multiply_block(const T* a, const T* b, int64_t depth,
                                                          T* tile, NextRows& next) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  Vec sum[kRows][kVectors] = {};
  const NextRows::Some rows = next.take();
  for (int64_t k = 0; k < depth; ++k) {
    if (k % kDepthUnit == 0) rows.prefetch_line(k / kDepthUnit);
    Vec right[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      right[j] = *reinterpret_cast<const Vec*>(b + k * kPanel + j * V::kLanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] += a[k * kPanel + i] * right[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      *reinterpret_cast<Vec*>(tile + i * kPanel + j * V::kLanes) += sum[i][j];
    }
  }
}

// Blocks of 16 (AVX-512) or 8 vectors, so that the operands still have registers, two vectors wide;
// on the diagonal also one wide, so that what lies wholly above it is left out.
template <typename T>
void multiply(const T* a, const T* b, int64_t depth, bool diagonal, T* tile, NextRows& next) {
  constexpr int kSums = REPSIM_VECTOR_BYTES == 64 ? 16 : 8;
  constexpr int kLanes = Vector<T>::kLanes;
  if (!diagonal) {
    for (int64_t j = 0; j < kPanel; j += 2 * kLanes) {
      for (int64_t i = 0; i < kPanel; i += kSums / 2) {
        multiply_block<T, kSums / 2, 2>(a + i, b + j, depth, tile + i * kPanel + j, next);
      }
    }
    return;
  }
  constexpr int kNarrow = std::min(kSums, kLanes), kWide = std::min(kSums / 2, kLanes);
  for (int64_t j = 0; j < kPanel; j += 2 * kLanes) {
    for (int64_t i = j; i < j + kLanes; i += kNarrow) {
      multiply_block<T, kNarrow, 1>(a + i, b + j, depth, tile + i * kPanel + j, next);
    }
    for (int64_t i = j + kLanes; i < kPanel; i += kWide) {
      multiply_block<T, kWide, 2>(a + i, b + j, depth, tile + i * kPanel + j, next);
    }
  }
}

template <typename T>
void add_sums(const T* tile, double* row_sum, double* column_sum) {
  for (int64_t i = 0; i < kPanel; ++i) {
    const T* row = tile + i * kPanel;
    double columns[kPanel];
#pragma GCC ivdep
    for (int64_t j = 0; j < kPanel; ++j) {
      columns[j] = static_cast<double>(row[j]);
      column_sum[j] += columns[j];
    }
    for (int64_t half = kPanel / 2; half > 0; half /= 2) {
      for (int64_t j = 0; j < half; ++j) columns[j] += columns[j + half];
    }
    row_sum[i] += columns[0];
  }
}

template <typename T>
void write_centred(const T* row, double row_offset, const double* column_offset, double weight,
                   int64_t count, T* out) {
#pragma GCC ivdep
  for (int64_t j = 0; j < count; ++j) {
    out[j] = static_cast<T>((static_cast<double>(row[j]) - row_offset - column_offset[j]) * weight);
  }
}

template <typename T>
inline constexpr TileKernels<T> kKernels = {&add_rows<T>, &pack<T>, &multiply<T>, &add_sums<T>,
                                            &write_centred<T>};
