// The L2 step. Rows that fit into a block's registers are read once and written once; longer ones
// take three kernels over chunks: the gradient's norm, the move and the perturbation's norm, the
// way back into the ball, which rows inside skip.
#include <cmath>
#include <type_traits>

#include "cuda/pgd/pgd_rows.cuh"
#include "cuda/pgd/pgd_steps.cuh"
#include "cuda/portability/portability.h"
#include "math/projection.h"

namespace repsim_fast {
namespace {

// Packs that a thread holds of each array, 48 registers of the 128 that so many threads leave. A
// row in registers has up to 8192 floats: 3 x 32 x 32, not 3 x 64 x 64.
constexpr int kPacks = 4;
constexpr int kMaximumThreads = 512;
constexpr int kChunkThreads = 256;

// Chunks of a long row; each block adds up the sums of them all.
constexpr int64_t kMaximumChunks = 512;

template <int kWidth, typename T>
__device__ inline Pack<T, kWidth> moved(Pack<T, kWidth> adv, const Pack<T, kWidth>& gradient,
                                        Direction<T> direction, bool clipped,
                                        const StepProblem<T>& problem, int64_t entry) {
  REPSIM_UNROLL
  for (int e = 0; e < kWidth; ++e) {
    adv.entry[e] += (finite<T, T>(gradient.entry[e]) * direction.scale) * direction.factor;
  }
  if (clipped) {
    const auto low = bounds_at<kWidth>(problem.low, entry);
    const auto high = bounds_at<kWidth>(problem.high, entry);
    REPSIM_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      adv.entry[e] = clip<T>(adv.entry[e], low.entry[e], high.entry[e]);
    }
  }
  return adv;
}

// The factor that brings a perturbation of this sum of squares into the ball; 1 if it is inside.
template <typename T>
__device__ inline T ball_factor(double square_sum, T eps) {
  const double length = std::sqrt(square_sum), radius = static_cast<double>(eps);
  return length > radius ? static_cast<T>(radius / length) : T{1};
}

template <int kWidth, typename T>
__device__ inline Pack<T, kWidth> shrunk(Pack<T, kWidth> v, const Pack<T, kWidth>& x, T factor,
                                         const StepProblem<T>& problem, int64_t entry) {
  const auto low = bounds_at<kWidth>(problem.low, entry);
  const auto high = bounds_at<kWidth>(problem.high, entry);
  REPSIM_UNROLL
  for (int e = 0; e < kWidth; ++e) {
    v.entry[e] = l2_entry<T>(v.entry[e], x.entry[e], factor, low.entry[e], high.entry[e]);
  }
  return v;
}

template <int kWidth, typename T>
__device__ inline void add_squares(double& sum, const Pack<T, kWidth>& v,
                                   const Pack<T, kWidth>& x) {
  REPSIM_UNROLL
  for (int e = 0; e < kWidth; ++e) {
    const double u = static_cast<double>(v.entry[e] - x.entry[e]);
    sum += u * u;
  }
}

template <int kWidth, typename T>
__device__ inline void add_squares(SquareSum<T>& sum, const Pack<T, kWidth>& gradient) {
  REPSIM_UNROLL
  for (int e = 0; e < kWidth; ++e) sum.add(finite<T, T>(gradient.entry[e]));
}

// ---- rows in registers

template <typename T>
struct RowShared {
  SquareSum<T> gradient[kMaximumWarps];
  double delta[kMaximumWarps];
};

// One row a block at a time.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaximumThreads, 1)
    l2_row_kernel(StepProblem<T> problem, bool clip_first) {
  using Values = Pack<T, kWidth>;
  auto& shared = shared_memory<RowShared<T>>();
  const auto entry_of = [&](int k) {
    return (int64_t{blockDim.x} * k + int64_t{threadIdx.x}) * kWidth;
  };
  for (int64_t row = blockIdx.x; row < problem.n; row += gridDim.x) {
    const int64_t start = row * problem.d;
    Values v[kPacks] = {}, gradient[kPacks] = {}, x[kPacks] = {};
    REPSIM_UNROLL
    for (int k = 0; k < kPacks; ++k) {
      const int64_t at = start + entry_of(k);
      if (entry_of(k) >= problem.d) continue;
      if (problem.gradient != nullptr) gradient[k] = load_pack<kWidth>(problem.gradient + at);
      v[k] = load_pack<kWidth>(problem.adv + at);
      x[k] = load_pack<kWidth>(problem.x + at);
    }
    Direction<T> direction{1, 0};
    if (problem.gradient != nullptr) {
      SquareSum<T> sum;
      REPSIM_UNROLL
      for (int k = 0; k < kPacks; ++k) add_squares(sum, gradient[k]);
      direction = block_sum(sum, shared.gradient).direction(static_cast<double>(problem.size[row]));
    }
    double sum = 0;
    REPSIM_UNROLL
    for (int k = 0; k < kPacks; ++k) {
      if (entry_of(k) >= problem.d) continue;
      v[k] = moved(v[k], gradient[k], direction, clip_first, problem, entry_of(k));
      add_squares(sum, v[k], x[k]);
    }
    const T factor = ball_factor(block_sum(sum, shared.delta), problem.eps[row]);
    REPSIM_UNROLL
    for (int k = 0; k < kPacks; ++k) {
      if (entry_of(k) >= problem.d) continue;
      store_pack<kWidth>(problem.out + start + entry_of(k),
                         shrunk(v[k], x[k], factor, problem, entry_of(k)));
    }
  }
}

// ---- long rows, in chunks

// Block (c, y) takes chunk c of row y and of every gridDim.y-th row after it.
template <int kWidth, typename F>
__device__ inline void for_chunk(int64_t d, F f) {
  const int64_t packs = d / kWidth;
  const int64_t first = packs * blockIdx.x / gridDim.x;
  const int64_t end = packs * (int64_t{blockIdx.x} + 1) / gridDim.x;
  REPSIM_UNROLL_BY(4)
  for (int64_t pack = first + threadIdx.x; pack < end; pack += kChunkThreads) f(pack * kWidth);
}

template <typename Sum>
struct ChunkShared {
  Sum sums[kMaximumWarps];
};

// The row's sum over its chunks.
template <typename Sum>
__device__ inline Sum row_sum(const Sum* chunk_sums, int64_t row, ChunkShared<Sum>& shared) {
  Sum sum{};
  for (unsigned c = threadIdx.x; c < gridDim.x; c += kChunkThreads) {
    add_to(sum, chunk_sums[row * gridDim.x + c]);
  }
  return block_sum(sum, shared.sums);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kChunkThreads)
    l2_measure_kernel(StepProblem<T> problem, SquareSum<T>* gradient_sums) {  // (n, chunks)
  auto& shared = shared_memory<ChunkShared<SquareSum<T>>>();
  for (int64_t row = blockIdx.y; row < problem.n; row += gridDim.y) {
    SquareSum<T> sum;
    for_chunk<kWidth>(problem.d, [&](int64_t entry) {
      add_squares(sum, load_pack<kWidth>(problem.gradient + row * problem.d + entry));
    });
    sum = block_sum(sum, shared.sums);
    if (threadIdx.x == 0) gradient_sums[row * gridDim.x + blockIdx.x] = sum;
  }
}

template <typename T>
struct MoveShared {
  ChunkShared<SquareSum<T>> gradient;
  ChunkShared<double> delta;
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kChunkThreads)
    l2_move_kernel(StepProblem<T> problem, bool clip_first,
                   const SquareSum<T>* gradient_sums,  // (n, chunks)
                   double* delta_sums) {               // (n, chunks)
  auto& shared = shared_memory<MoveShared<T>>();
  for (int64_t row = blockIdx.y; row < problem.n; row += gridDim.y) {
    Direction<T> direction{1, 0};
    if (problem.gradient != nullptr) {
      direction = row_sum(gradient_sums, row, shared.gradient)
                      .direction(static_cast<double>(problem.size[row]));
    }
    double sum = 0;
    for_chunk<kWidth>(problem.d, [&](int64_t entry) {
      const int64_t at = row * problem.d + entry;
      Pack<T, kWidth> gradient = {};
      if (problem.gradient != nullptr) gradient = load_pack<kWidth>(problem.gradient + at);
      const auto x = load_pack<kWidth>(problem.x + at);
      const auto v = moved(load_pack<kWidth>(problem.adv + at), gradient, direction, clip_first,
                           problem, entry);
      store_pack<kWidth>(problem.out + at, v);
      add_squares(sum, v, x);
    });
    sum = block_sum(sum, shared.delta.sums);
    if (threadIdx.x == 0) delta_sums[row * gridDim.x + blockIdx.x] = sum;
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kChunkThreads)
    l2_shrink_kernel(StepProblem<T> problem, bool clip_first,
                     const double* delta_sums) {  // (n, chunks)
  auto& shared = shared_memory<ChunkShared<double>>();
  for (int64_t row = blockIdx.y; row < problem.n; row += gridDim.y) {
    const T factor = ball_factor(row_sum(delta_sums, row, shared), problem.eps[row]);
    if (factor == T{1} && clip_first) continue;  // inside
    for_chunk<kWidth>(problem.d, [&](int64_t entry) {
      const int64_t at = row * problem.d + entry;
      store_pack<kWidth>(problem.out + at,
                         shrunk(load_pack<kWidth>(problem.out + at),
                                load_pack<kWidth>(problem.x + at), factor, problem, entry));
    });
  }
}

template <typename T>
int64_t chunks_of(int64_t d) {
  const int64_t entries = int64_t{kChunkThreads} * kPacks * (16 / sizeof(T));
  return std::min(ceil_quotient(d, entries), kMaximumChunks);
}

// Rows of at most so many packs fit into the registers of a block.
constexpr int64_t kRegisterPacks = int64_t{kMaximumThreads} * kPacks;

}  // namespace

template <typename T>
int64_t l2_scratch_bytes(int64_t n, int64_t d) {
  // Rows of single entries may be long ones already.
  if (d <= kRegisterPacks) return 0;
  return n * chunks_of<T>(d) * static_cast<int64_t>(sizeof(SquareSum<T>) + sizeof(double));
}

template <typename T>
void launch_l2_step(const StepProblem<T>& problem, bool clip_first, void* scratch, void* stream) {
  if (problem.n == 0 || problem.d == 0) return;
  with_pack_width(problem, [&](auto width) {
    const int64_t packs = problem.d / width;
    if (packs <= kRegisterPacks) {
      const int64_t threads =
          ceil_quotient(ceil_quotient(packs, kPacks), kWarpSize) * int64_t{kWarpSize};
      launch("l2_row", l2_row_kernel<T, width>,
             {.grid = dim3(static_cast<unsigned>(std::min<int64_t>(problem.n, 0x7fffffff))),
              .threads = static_cast<unsigned>(threads),
              .shared_bytes = sizeof(RowShared<T>),
              .stream = stream},
             problem, clip_first);
      return;
    }
    const int64_t chunks = chunks_of<T>(problem.d);
    const dim3 grid(static_cast<unsigned>(chunks),
                    static_cast<unsigned>(std::min(problem.n, kMaximumGridRows)));
    auto* gradient_sums = static_cast<SquareSum<T>*>(scratch);
    auto* delta_sums = reinterpret_cast<double*>(gradient_sums + problem.n * chunks);
    if (problem.gradient != nullptr) {
      launch("l2_measure", l2_measure_kernel<T, width>,
             {.grid = grid,
              .threads = kChunkThreads,
              .shared_bytes = sizeof(ChunkShared<SquareSum<T>>),
              .stream = stream},
             problem, gradient_sums);
    }
    launch("l2_move", l2_move_kernel<T, width>,
           {.grid = grid,
            .threads = kChunkThreads,
            .shared_bytes = sizeof(MoveShared<T>),
            .stream = stream},
           problem, clip_first, gradient_sums, delta_sums);
    launch("l2_shrink", l2_shrink_kernel<T, width>,
           {.grid = grid,
            .threads = kChunkThreads,
            .shared_bytes = sizeof(ChunkShared<double>),
            .stream = stream},
           problem, clip_first, delta_sums);
  });
}

template int64_t l2_scratch_bytes<float>(int64_t, int64_t);
template int64_t l2_scratch_bytes<double>(int64_t, int64_t);
template void launch_l2_step<float>(const StepProblem<float>&, bool, void*, void*);
template void launch_l2_step<double>(const StepProblem<double>&, bool, void*, void*);

}  // namespace repsim_fast
