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

template <typename T>
void read(const T* x, int64_t x_stride, int64_t count, int64_t depth, T* rows, int64_t row_stride,
          T* sum) {
  for (int64_t r = 0; r < count; ++r) {
    const T* source = x + r * x_stride;
    T* row = rows + r * row_stride;
#pragma GCC ivdep
    for (int64_t k = 0; k < depth; ++k) {
      row[k] = source[k];
      sum[k] += source[k];
    }
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
inline __attribute__((always_inline)) void multiply_block(const T* a, const T* b, int64_t depth, T* tile) {
  using V = Vector<T>;
  using Vec = typename V::Type;
  Vec sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
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

// Two vectors wide, and as many rows as leave registers for the operands (32 with AVX-512, else 16).
template <typename T>
void multiply(const T* a, const T* b, int64_t depth, bool diagonal, T* tile) {
  constexpr int kRows = REPSIM_VECTOR_BYTES == 64 ? 8 : 4;
  constexpr int kColumns = 2 * Vector<T>::kLanes;
  for (int64_t j = 0; j < kPanel; j += kColumns) {
    for (int64_t i = 0; i < kPanel; i += kRows) {
      if (diagonal && i + kRows <= j) continue;
      multiply_block<T, kRows, 2>(a + i, b + j, depth, tile + i * kPanel + j);
    }
  }
}

template <typename T>
inline constexpr TileKernels<T> kKernels = {&read<T>, &pack<T>, &multiply<T>};
