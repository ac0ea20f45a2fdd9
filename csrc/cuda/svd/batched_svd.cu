// Singular vectors by one-sided Jacobi in shared memory, on the transposed triangle of a pivoted QR
// factorisation (Drmac and Veselic, LAPACK Working Notes 169, 170): A P = Q R, R^T W = V
// diag(sigma), A = (Q W) diag(sigma) (P V)^T. Without the factorisation graded matrices need up to
// 40 sweeps. A warp rotates a pair of columns, the pairs of a round are disjoint (a round-robin
// tournament), and a barrier ends the round.
#include <algorithm>
#include <cstdint>

#include "cuda/portability/portability.h"
#include "cuda/svd/batched_svd.cuh"
#include "cuda/svd/batched_svd_block.cuh"
#include "math/jacobi.h"

namespace repsim_fast {
namespace {

constexpr int kMostJacobiWarps = 8;

int64_t jacobi_elements(int64_t rows, int64_t columns) {
  return rows * columns + columns * columns  // A, later W; R^T
         + 5 * columns;                      // vectors of a number a column
}

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x % kWarpSize); }
__device__ inline int warp_of_block() { return static_cast<int>(threadIdx.x / kWarpSize); }
__device__ inline int warps_of_block() { return static_cast<int>(blockDim.x / kWarpSize); }
constexpr int kLanes = static_cast<int>(kWarpSize);

// The columns of `game` in `round` of a tournament among `players` (even), players - 1 rounds of
// players / 2 games: every pair meets once.
struct Pair {
  int p, q;
};
__device__ inline Pair tournament_pair(int players, int round, int game) {
  const auto seat = [&](int place) {
    return place == 0 ? 0 : 1 + (place - 1 + round) % (players - 1);
  };
  const int x = seat(game), y = seat(players - 1 - game);
  return x < y ? Pair{x, y} : Pair{y, x};
}

// Sum of x[i] y[i] over i from `first` on, by one warp.
template <typename T>
__device__ inline T column_product(const T* x, const T* y, int length, int first = 0) {
  T sum = 0;
  for (int i = first + lane_of_warp(); i < length; i += kLanes) sum += x[i] * y[i];
  return warp_sum(sum);
}

// What a block works on, by columns.
template <typename T>
struct JacobiBlock {
  T* a;         // (m, n): A, its factorisation, W, at last Q W
  T* b;         // (n, n): R^T, at last V
  T* taus;      // (n,)
  T* norms;     // (n,)
  T* order;     // (n,): the column of A that is column k of A P
  T* places;    // (n,)
  T* products;  // (n,)
  int m, n;
};

// Householder QR of a with column pivoting, in place: R on and above the diagonal, the reflectors'
// tails below it.
template <typename T>
__device__ void factorise(const JacobiBlock<T>& block, BlockScratch& scratch) {
  const auto& [a, b, taus, norms, order, places, products, m, n] = block;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int j = thread; j < n; j += threads) order[j] = static_cast<T>(j);
  for (int k = 0; k < n; ++k) {
    for (int j = k + warp_of_block(); j < n; j += warps_of_block()) {
      const T square = column_product(a + j * m, a + j * m, m, k);
      if (lane_of_warp() == 0) norms[j] = square;
    }
    __syncthreads();
    int best = k;
    T largest = norms[k];  // kept, so that no load waits for a comparison
    for (int j = k + 1; j < n; ++j) {
      const T norm = norms[j];
      best = norm > largest ? j : best;
      largest = norm > largest ? norm : largest;
    }
    T* const column = a + k * m;
    if (best != k) {
      for (int i = thread; i < m; i += threads) {
        const T kept = column[i];
        column[i] = a[best * m + i];
        a[best * m + i] = kept;
      }
      if (thread == 0) {
        const T kept = order[k];
        order[k] = order[best];
        order[best] = kept;
      }
    }
    __syncthreads();
    T tail_square = 0;
    for (int i = k + 1 + thread; i < m; i += threads) tail_square += column[i] * column[i];
    tail_square = block_sum(tail_square, scratch);
    const Reflector<T> reflector = make_reflector(column[k], tail_square);
    for (int i = k + 1 + thread; i < m; i += threads) column[i] *= reflector.scale;
    __syncthreads();
    if (thread == 0) {
      taus[k] = reflector.tau;
      column[k] = reflector.beta;
    }
    for (int j = k + 1 + warp_of_block(); j < n; j += warps_of_block()) {
      T* const other = a + j * m;
      const T inner = reflector.tau * (other[k] + column_product(column, other, m, k + 1));
      __syncwarp();  // all lanes have read other[k]
      if (lane_of_warp() == 0) other[k] -= inner;
      for (int i = k + 1 + lane_of_warp(); i < m; i += kLanes) other[i] -= inner * column[i];
    }
    __syncthreads();
  }
}

// (x, y) -> (c x - s y, s x + c y) in Rutishauser's form, whose rounding for small angles is that
// of a small change; then exchanged if asked. By one warp.
template <typename T>
__device__ inline void rotate_columns(T* x, T* y, int length, const Rotation<T>& rotation,
                                      bool exchange) {
  const T s = rotation.s, half_tangent = s / (T{1} + rotation.c);
  for (int i = lane_of_warp(); i < length; i += kLanes) {
    const T xi = x[i], yi = y[i];
    const T new_x = xi - s * (yi + half_tangent * xi), new_y = yi + s * (xi - half_tangent * yi);
    x[i] = exchange ? new_y : new_x;
    y[i] = exchange ? new_x : new_y;
  }
}

// Makes two columns of b orthogonal, the larger one first, and does to a what it does to b; false
// if there was nothing to do. By one warp.
template <typename T>
__device__ bool orthogonalise_pair(const JacobiBlock<T>& block, const Pair& pair) {
  const int m = block.m, n = block.n;
  T *x = block.b + pair.p * n, *y = block.b + pair.q * n;
  const T x_square = column_product(x, x, n), y_square = column_product(y, y, n);
  const T inner = column_product(x, y, n);
  const T size = inner < T{0} ? -inner : inner;
  const bool oblique = x_square > kNegligibleSquare<T> && y_square > kNegligibleSquare<T> &&
                       size > kStrictTolerance<T> * std::sqrt(x_square) * std::sqrt(y_square);
  const bool exchange = x_square < y_square;
  if (!oblique && !exchange) return false;
  const Rotation<T> rotation =
      oblique ? jacobi_rotation(x_square, y_square, inner) : Rotation<T>{T{1}, T{0}};
  rotate_columns(x, y, n, rotation, exchange);
  rotate_columns(block.a + pair.p * m, block.a + pair.q * m, n, rotation, exchange);
  return true;
}

// True if all columns of b are orthogonal after at most `sweeps`.
template <typename T>
__device__ bool orthogonalise(const JacobiBlock<T>& block, int sweeps, BlockScratch& scratch) {
  const int players = block.n + block.n % 2;
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    bool moved = false;
    for (int round = 0; round + 1 < players; ++round) {
      for (int game = warp_of_block(); game < players / 2; game += warps_of_block()) {
        const Pair pair = tournament_pair(players, round, game);
        if (pair.q < block.n) moved = orthogonalise_pair(block, pair) || moved;
      }
      __syncthreads();
    }
    if (block_maximum(moved ? 1.0f : 0.0f, scratch) == 0.0f) return true;
  }
  return block.n < 2;
}

// norms = those of b's columns, which become orthonormal; one that is zero is replaced by what
// completes the others: the unit vector with least in common with them, made orthogonal to them,
// twice.
template <typename T>
__device__ void normalise(const JacobiBlock<T>& block, BlockScratch& scratch) {
  const auto& [a, b, taus, norms, order, places, products, m, n] = block;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  T* const done = places;  // 1 or 0
  for (int j = warp_of_block(); j < n; j += warps_of_block()) {
    T* const column = b + j * n;
    const T square = column_product(column, column, n);
    const bool some = square > kNegligibleSquare<T>;
    const T norm = some ? std::sqrt(square) : T{0};
    for (int i = lane_of_warp(); i < n && some; i += kLanes) column[i] /= norm;
    if (lane_of_warp() == 0) {
      norms[j] = norm;
      done[j] = some ? 1 : 0;
    }
  }
  __syncthreads();
  for (int j = 0; j < n; ++j) {
    if (done[j] != T{0}) continue;
    T* const column = b + j * n;
    for (int i = thread; i < n; i += threads) {
      T share = 0;
      for (int c = 0; c < n; ++c) share += done[c] * b[c * n + i] * b[c * n + i];
      products[i] = share;
    }
    __syncthreads();
    int least = 0;
    T smallest = products[0];
    for (int i = 1; i < n; ++i) {
      const T product = products[i];
      least = product < smallest ? i : least;
      smallest = product < smallest ? product : smallest;
    }
    __syncthreads();
    for (int i = thread; i < n; i += threads) column[i] = i == least ? T{1} : T{0};
    __syncthreads();
    for (int pass = 0; pass < 2; ++pass) {
      for (int c = warp_of_block(); c < n; c += warps_of_block()) {
        const T inner = column_product(b + c * n, column, n);
        if (lane_of_warp() == 0) products[c] = done[c] * inner;
      }
      __syncthreads();
      for (int i = thread; i < n; i += threads) {
        T entry = column[i];
        for (int c = 0; c < n; ++c) {
          if (c != j) entry -= products[c] * b[c * n + i];
        }
        column[i] = entry;
      }
      __syncthreads();
    }
    T square = 0;
    for (int i = thread; i < n; i += threads) square += column[i] * column[i];
    const T norm = std::sqrt(block_sum(square, scratch));
    for (int i = thread; i < n; i += threads) column[i] /= norm;
    if (thread == 0) done[j] = 1;
    __syncthreads();
  }
}

// a = Q a, the reflectors from global memory; a warp has a column of its own.
template <typename T>
__device__ void apply_reflectors(const JacobiBlock<T>& block, const T* reflectors) {  // (m, n)
  const int m = block.m, n = block.n;
  for (int j = warp_of_block(); j < n; j += warps_of_block()) {
    T* const column = block.a + j * m;
    for (int k = n - 1; k >= 0; --k) {
      const T* const u = reflectors + static_cast<int64_t>(k) * m;
      const T inner = block.taus[k] * (column[k] + column_product(u, column, m, k + 1));
      __syncwarp();  // all lanes have read column[k]
      if (lane_of_warp() == 0) column[k] -= inner;
      for (int i = k + 1 + lane_of_warp(); i < m; i += kLanes) column[i] -= inner * u[i];
      __syncwarp();
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kMostJacobiWarps* static_cast<int>(kWarpSize), 3)
    jacobi_kernel(SvdSource source, int most_rows, int most_columns, int maximum_sweeps,
                  T* u,                   // (B, m, rank)
                  T* s,                   // (B, rank)
                  T* vh,                  // (B, rank, n)
                  int32_t* unfinished) {  // (B,)
  struct Shared {
    BlockScratch scratch;
    T first;
  };
  auto& shared = shared_memory<Shared>();
  BlockScratch& scratch = shared.scratch;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t rank = most_columns;
  JacobiBlock<T> block{};
  block.a = &shared.first;
  block.b = block.a + most_rows * most_columns;
  block.taus = block.b + most_columns * most_columns;
  block.norms = block.taus + most_columns;
  block.order = block.norms + most_columns;
  block.places = block.order + most_columns;
  block.products = block.places + most_columns;

  for (int64_t number = blockIdx.x; number < source.batch; number += gridDim.x) {
    const DeviceMatrix<T> matrix = tall(matrix_of<T>(source, number));
    const int m = block.m = matrix.rows, n = block.n = matrix.columns;
    T *const a = block.a, *const b = block.b;
    T* const u_out = u + number * source.rows * rank;
    T* const vh_out = vh + number * rank * source.columns;
    T* const s_out = s + number * rank;
    // left(i, place), right(i, place): the factors of the matrix as it was read, zero outside; if
    // it was turned, the left one is the right one of the matrix itself, and the reverse.
    const auto write = [&](const auto& left, const auto& right) {
      const auto columns = static_cast<int>(source.columns), places = most_columns;
      for (int e = thread; e < static_cast<int>(source.rows) * places; e += threads) {
        const int i = e / places, place = e % places;
        u_out[e] = matrix.turned ? right(i, place) : left(i, place);
      }
      for (int e = thread; e < places * columns; e += threads) {
        const int place = e / columns, i = e % columns;
        vh_out[e] = matrix.turned ? left(i, place) : right(i, place);
      }
    };
    for (int j = n + thread; j < most_columns; j += threads) s_out[j] = 0;

    const T scale =
        read_balanced(matrix, [&](int i, int j) -> T& { return a[j * m + i]; }, scratch);
    if (scale == T{0}) {
      const T nan = std::numeric_limits<T>::quiet_NaN();
      write([&](int i, int place) { return i < m && place < n ? nan : T{0}; },
            [&](int i, int place) { return i < n && place < n ? nan : T{0}; });
      for (int j = thread; j < n; j += threads) s_out[j] = nan;
      if (thread == 0) unfinished[number] = 0;
      __syncthreads();
      continue;
    }
    __syncthreads();
    factorise(block, scratch);

    // The reflectors wait in the memory of the factor they make, and W starts in their place.
    T* const reflectors = matrix.turned ? vh_out : u_out;
    for (int e = thread; e < m * n; e += threads) reflectors[e] = a[e];
    for (int e = thread; e < n * n; e += threads) {
      const int i = e % n, j = e / n;
      b[e] = i >= j ? a[i * m + j] : T{0};
    }
    __syncthreads();
    for (int e = thread; e < m * n; e += threads) a[e] = e % m == e / m ? T{1} : T{0};
    __syncthreads();
    const bool finished = orthogonalise(block, maximum_sweeps, scratch);
    if (thread == 0) unfinished[number] = finished ? 0 : 1;
    apply_reflectors(block, reflectors);
    normalise(block, scratch);
    __syncthreads();

    // Column j has the place of the number of larger singular values; from here on places[place] =
    // j and products[column of A] = column of A P.
    for (int j = thread; j < n; j += threads) {
      int place = 0;
      for (int c = 0; c < n; ++c) {
        const bool larger = block.norms[c] > block.norms[j];
        place += larger || (block.norms[c] == block.norms[j] && c < j) ? 1 : 0;
      }
      block.places[place] = static_cast<T>(j);
      block.products[static_cast<int>(block.order[j])] = static_cast<T>(j);
      s_out[place] = block.norms[j] / scale;
    }
    __syncthreads();
    write(
        [&](int i, int place) {
          return i < m && place < n ? a[static_cast<int>(block.places[place]) * m + i] : T{0};
        },
        [&](int i, int place) {
          if (i >= n || place >= n) return T{0};
          return b[static_cast<int>(block.places[place]) * n + static_cast<int>(block.products[i])];
        });
    __syncthreads();
  }
}

template <typename T>
void jacobi(const SvdSource& source, const JacobiOutputs& outputs, int maximum_sweeps,
            void* stream) {
  const int64_t rows = std::max(source.rows, source.columns), columns = source.rank();
  const int64_t warps = std::clamp<int64_t>((columns + 1) / 2, 1, kMostJacobiWarps);
  launch("jacobi", jacobi_kernel<T>,
         {.grid = dim3(static_cast<unsigned>(std::min(source.batch, kMostMatrixBlocks))),
          .threads = static_cast<unsigned>(warps * kWarpSize),
          .shared_bytes = jacobi_shared_bytes(source),
          .stream = stream},
         source, static_cast<int>(rows), static_cast<int>(columns), maximum_sweeps,
         static_cast<T*>(outputs.u), static_cast<T*>(outputs.s), static_cast<T*>(outputs.vh),
         outputs.unfinished);
}

// ---- for a vendor library

constexpr int kGatherThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kGatherThreads)
    gather_finite_kernel(SvdSource source, T* dense,  // (B, m, n)
                         int32_t* invalid) {          // (B,)
  auto& scratch = shared_memory<BlockScratch>();
  const int64_t entries = source.rows * source.columns;
  for (int64_t b = blockIdx.x; b < source.batch; b += gridDim.x) {
    const DeviceMatrix<T> matrix = matrix_of<T>(source, b);
    const auto value = [&](int64_t e) {
      const int64_t i = e / source.columns, j = e % source.columns;
      return i < matrix.rows && j < matrix.columns
                 ? matrix(static_cast<int>(i), static_cast<int>(j))
                 : T{0};
    };
    T wrong = 0;
    for (int64_t e = threadIdx.x; e < entries; e += kGatherThreads) wrong += value(e) - value(e);
    const bool finite = block_sum(wrong, scratch) == T{0};
    for (int64_t e = threadIdx.x; e < entries; e += kGatherThreads) {
      dense[b * entries + e] = finite ? value(e) : T{0};
    }
    if (threadIdx.x == 0) invalid[b] = finite ? 0 : 1;
  }
}

template <typename T>
void gather_finite(const SvdSource& source, void* dense, int32_t* invalid, void* stream) {
  launch("gather_finite", gather_finite_kernel<T>,
         {.grid = dim3(static_cast<unsigned>(std::min(source.batch, kMostMatrixBlocks))),
          .threads = kGatherThreads,
          .shared_bytes = sizeof(BlockScratch),
          .stream = stream},
         source, static_cast<T*>(dense), invalid);
}

}  // namespace

size_t jacobi_shared_bytes(const SvdSource& source) {
  const int64_t elements = jacobi_elements(std::max(source.rows, source.columns), source.rank());
  return sizeof(BlockScratch) + static_cast<size_t>(elements + 2) * (source.wide ? 8 : 4);
}

void launch_jacobi(const SvdSource& source, const JacobiOutputs& outputs, int maximum_sweeps,
                   void* stream) {
  if (source.batch == 0) return;
  source.wide ? jacobi<double>(source, outputs, maximum_sweeps, stream)
              : jacobi<float>(source, outputs, maximum_sweeps, stream);
}

void launch_gather_finite(const SvdSource& source, void* dense, int32_t* invalid, void* stream) {
  if (source.batch == 0) return;
  source.wide ? gather_finite<double>(source, dense, invalid, stream)
              : gather_finite<float>(source, dense, invalid, stream);
}

}  // namespace repsim_fast
