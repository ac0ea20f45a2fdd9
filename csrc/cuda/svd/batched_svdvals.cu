// Singular values by Householder bidiagonalisation in shared memory and bisection on Sturm counts,
// a thread a value. Some 10 times fewer operations than one-sided Jacobi; no iteration that could
// fail; and the steps' vectors need reductions only for two norms.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "cuda/portability/portability.h"
#include "cuda/svd/batched_svd.cuh"
#include "cuda/svd/batched_svd_block.cuh"
#include "math/householder.h"
#include "math/sturm.h"

namespace repsim_fast {
namespace {

constexpr int kMaximumThreads = kMaximumWarps * static_cast<int>(kWarpSize);

// A block is `groups` times `width` threads: in the passes over the matrix a thread has a column or
// a row of its own, and each group a share of the other dimension.
struct BlockShape {
  int width, groups;
};

BlockShape block_shape(int64_t rows) {
  const int64_t width = (std::max<int64_t>(rows, 1) + kWarpSize - 1) / kWarpSize * kWarpSize;
  // One warp a matrix for up to 32 rows: then many matrices share a multiprocessor. Larger ones are
  // few there, for want of shared memory, and need more warps to hide latency.
  const int64_t groups = std::clamp<int64_t>(width / kWarpSize, 1, 4);
  return {static_cast<int>(width),
          static_cast<int>(std::max<int64_t>(1, std::min(groups, kMaximumThreads / width)))};
}

// Odd, so that neither a walk along a row nor along a column meets one bank twice.
constexpr int64_t shared_pitch(int64_t columns) { return columns | 1; }

int64_t shared_elements(int64_t rows, int64_t columns, int groups) {
  return rows * shared_pitch(columns)  // matrix
         + 4 * (rows + columns)        // u, x, y, v of this step and the last
         + groups * rows               // partial sums; later the squares
         + 2 * columns                 // bidiagonal
         + 2;                          // first entries
}

template <typename T>
struct Step {
  T *u, *x;  // (rows,)
  T *y, *v;  // (columns,)
};

// The steps are those of cpu/svd/batched_svd_body_alone.h: the update of one, a -= u y^T + x v^T,
// is written while the next forms A^T u.
template <typename T>
__global__ void __launch_bounds__(kMaximumThreads)
    singular_values_kernel(SvdSource source, int most_rows, int most_columns, int groups,
                           T* values,   // (B, most_columns) or null
                           T* norms) {  // (B,) or null
  struct Shared {
    BlockScratch scratch;
    T first;
  };
  auto& shared = shared_memory<Shared>();
  BlockScratch& scratch = shared.scratch;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int width = threads / groups, own = thread % width, group = thread / width;
  T* next = &shared.first;
  const auto take = [&](int count) {
    T* taken = next;
    next += count;
    return taken;
  };
  T& first = *take(1);
  T& first_y = *take(1);
  const int pitch = static_cast<int>(shared_pitch(most_columns));
  T* a = take(most_rows * pitch);
  T* partial = take(groups * most_rows);
  T* diagonal = take(most_columns);
  T* above = take(most_columns);
  Step<T> now{take(most_rows), take(most_rows), take(most_columns), take(most_columns)};
  Step<T> last{take(most_rows), take(most_rows), take(most_columns), take(most_columns)};

  for (int64_t b = blockIdx.x; b < source.batch; b += gridDim.x) {
    const DeviceMatrix<T> matrix = tall(matrix_of<T>(source, b));
    const int m = matrix.rows, n = matrix.columns;
    const T scale =
        read_balanced(matrix, [&](int i, int j) -> T& { return a[i * pitch + j]; }, scratch);
    for (int i = thread; i < m; i += threads) last.u[i] = last.x[i] = 0;
    for (int j = thread; j < n; j += threads) last.y[j] = last.v[j] = 0;
    __syncthreads();

    for (int k = 0; k < n && scale != T{0}; ++k) {
      // Column k: its delayed update, then the reflector that clears it below the diagonal.
      T tail_square = 0;
      for (int i = k + thread; i < m; i += threads) {
        const T entry = a[i * pitch + k] - last.u[i] * last.y[k] - last.x[i] * last.v[k];
        if (i == k) {
          first = entry;
          now.u[i] = 1;
        } else {
          now.u[i] = entry;
          tail_square += entry * entry;
        }
      }
      tail_square = block_sum(tail_square, scratch);
      const Reflector<T> left = make_reflector(first, tail_square);
      if (thread == 0) diagonal[k] = left.beta;
      if (k + 1 == n) break;
      for (int i = k + thread; i < m; i += threads) {
        if (i > k) now.u[i] *= left.scale;
      }
      __syncthreads();

      const int column = k + 1 + own;
      if (column < n) {
        const T last_y = last.y[column], last_v = last.v[column];
        T sum = 0;
        for (int i = k + group; i < m; i += groups) {
          T& entry = a[i * pitch + column];
          entry -= last.u[i] * last_y + last.x[i] * last_v;
          sum += entry * now.u[i];
        }
        partial[group * most_rows + column] = sum;
      }
      __syncthreads();

      // Row k after the left reflector, and the reflector that clears it beyond the superdiagonal.
      T y_v = 0;
      tail_square = 0;
      for (int j = k + 1 + thread; j < n; j += threads) {
        T y = 0;
        for (int g = 0; g < groups; ++g) y += partial[g * most_rows + j];
        y *= left.tau;
        now.y[j] = y;
        const T entry = a[k * pitch + j] - y;
        if (j == k + 1) {
          first = entry;
          first_y = y;
          now.v[j] = 1;
        } else {
          now.v[j] = entry;
          tail_square += entry * entry;
          y_v += y * entry;
        }
      }
      block_sums(tail_square, y_v, scratch);
      const Reflector<T> right = make_reflector(first, tail_square);
      y_v = first_y + right.scale * y_v;
      if (thread == 0) above[k] = right.beta;
      for (int j = k + 1 + thread; j < n; j += threads) {
        if (j > k + 1) now.v[j] *= right.scale;
      }
      __syncthreads();

      // x = tau (A - u y^T) v
      const int row = k + 1 + own;
      if (row < m) {
        T sum = 0;
        for (int j = k + 1 + group; j < n; j += groups) sum += a[row * pitch + j] * now.v[j];
        partial[group * most_rows + row] = sum;
      }
      __syncthreads();
      for (int i = k + 1 + thread; i < m; i += threads) {
        T sum = 0;
        for (int g = 0; g < groups; ++g) sum += partial[g * most_rows + i];
        now.x[i] = right.tau * (sum - now.u[i] * y_v);
      }
      const Step<T> swapped = now;
      now = last;
      last = swapped;
    }
    __syncthreads();

    // The norm is at most the largest row sum of the tridiagonal matrix.
    T bound = 0;
    if (scale != T{0}) {
      for (int j = thread; j < n; j += threads) {
        const T here = std::abs(diagonal[j]);
        const T before = j > 0 ? std::abs(above[j - 1]) : T{0};
        const T after = j + 1 < n ? std::abs(above[j]) : T{0};
        const T sum = here + (before > after ? before : after);
        bound = sum > bound ? sum : bound;
      }
    }
    bound = block_maximum(bound, scratch);
    const T inverse = bound > T{0} ? T{1} / bound : T{0};
    T* squares = a;  // (2n - 1,): the matrix is done with
    for (int j = thread; j < n && scale != T{0}; j += threads) {
      const T d = diagonal[j] * inverse, e = j + 1 < n ? above[j] * inverse : T{0};
      squares[2 * j] = d * d > kLeastSturmSquare<T> ? d * d : kLeastSturmSquare<T>;
      if (j + 1 < n) {
        squares[2 * j + 1] = e * e > kLeastSturmSquare<T> ? e * e : kLeastSturmSquare<T>;
      }
    }
    __syncthreads();
    double sum = 0;
    for (int j = thread; j < most_columns; j += threads) {
      T value = 0;
      if (j < n) {
        value = scale == T{0} ? std::numeric_limits<T>::quiet_NaN()
                              : singular_value(j, squares, n) * bound / scale;
      }
      if (values != nullptr) values[b * most_columns + j] = value;
      sum += static_cast<double>(value);
    }
    if (norms != nullptr) {
      sum = block_sum(sum, scratch);
      if (thread == 0) norms[b] = static_cast<T>(sum);
    }
    __syncthreads();
  }
}

template <typename T>
void singular_values(const SvdSource& source, T* values, T* norms, void* stream) {
  const int64_t rows = std::max(source.rows, source.columns), columns = source.rank();
  const BlockShape shape = block_shape(rows);
  launch("singular_values", singular_values_kernel<T>,
         {.grid = dim3(static_cast<unsigned>(std::min(source.batch, kMostMatrixBlocks))),
          .threads = static_cast<unsigned>(shape.width * shape.groups),
          .shared_bytes = singular_values_shared_bytes(source),
          .stream = stream},
         source, static_cast<int>(rows), static_cast<int>(columns), shape.groups, values, norms);
}

}  // namespace

size_t singular_values_shared_bytes(const SvdSource& source) {
  const int64_t rows = std::max(source.rows, source.columns);
  const int64_t elements = shared_elements(rows, source.rank(), block_shape(rows).groups);
  return sizeof(BlockScratch) + static_cast<size_t>(elements) * (source.wide ? 8 : 4);
}

void launch_singular_values(const SvdSource& source, void* values, void* norms, void* stream) {
  if (source.batch == 0) return;
  if (source.wide) {
    singular_values(source, static_cast<double*>(values), static_cast<double*>(norms), stream);
  } else {
    singular_values(source, static_cast<float*>(values), static_cast<float*>(norms), stream);
  }
}

}  // namespace repsim_fast
