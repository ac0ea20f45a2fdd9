// Random starts, and float64 gradients for float32 rows. A warp draws a block of 128 entries at a
// time, one group of four words a lane: entries lane, lane + 32, lane + 64, lane + 96.
#include <cmath>
#include <type_traits>

#include "cuda/pgd/pgd_rows.cuh"
#include "cuda/pgd/pgd_steps.cuh"
#include "cuda/portability/portability.h"
#include "math/projection.h"
#include "math/random_start.h"

namespace repsim_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / static_cast<int>(kWarpSize);

// Noise blocks of 128 entries that a warp draws in one launch, where there are many.
constexpr int64_t kBlocksPerWarp = 4;

// Chunks of a row; each block adds up the sums of them all.
constexpr int64_t kMaximumChunks = 512;

struct Noise {
  float entry[4];  // of entries lane + 32 k
};

__device__ inline Noise draw(Norm norm, RandomStream stream, uint32_t row, uint32_t group) {
  const RandomWords words = random_words(stream, row, group);
  Noise noise;
  if (norm == Norm::kL2) {
    REPSIM_UNROLL
    for (int pair = 0; pair < 4; pair += 2) {
      const float radius = std::sqrt(square_radius(words.word[pair]));
      const Point point = circle_point(words.word[pair + 1]);
      noise.entry[pair] = radius * point.x;
      noise.entry[pair + 1] = radius * point.y;
    }
  } else {
    REPSIM_UNROLL
    for (int k = 0; k < 4; ++k) {
      noise.entry[k] = norm == Norm::kLinf ? symmetric_uniform(words.word[k])
                                           : signed_exponential(words.word[k]);
    }
  }
  return noise;
}

// f(entry, value) for the noise of this block's chunk of a row of d entries.
template <typename F>
__device__ inline void for_noise(Norm norm, RandomStream stream, int64_t row, int64_t d, F f) {
  const int64_t blocks = (d + kRandomBlock - 1) / kRandomBlock;
  const int64_t first = blocks * blockIdx.x / gridDim.x;
  const int64_t end = blocks * (int64_t{blockIdx.x} + 1) / gridDim.x;
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  for (int64_t block = first + threadIdx.x / kWarpSize; block < end; block += kWarps) {
    const Noise noise = draw(norm, stream, static_cast<uint32_t>(row),
                             static_cast<uint32_t>(block * kRandomLanes + lane));
    REPSIM_UNROLL
    for (int k = 0; k < 4; ++k) {
      const int64_t entry = block * kRandomBlock + k * kRandomLanes + lane;
      if (entry < d) f(entry, noise.entry[k]);
    }
  }
}

struct NoiseShared {
  double sums[kMaximumWarps];
};

// Sum of squares (kL2) or of sizes (kL1) of each chunk's noise.
__global__ void __launch_bounds__(kThreads)
    noise_sum_kernel(int64_t n, int64_t d, Norm norm, RandomStream stream,
                     double* sums) {  // (n, chunks)
  auto& shared = shared_memory<NoiseShared>();
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y) {
    double sum = 0;
    for_noise(norm, stream, row, d, [&](int64_t, float value) {
      const auto wide = static_cast<double>(value);
      sum += norm == Norm::kL2 ? wide * wide : magnitude<double>(wide);
    });
    sum = block_sum(sum, shared.sums);
    if (threadIdx.x == 0) sums[row * gridDim.x + blockIdx.x] = sum;
  }
}

// The noise is drawn again rather than kept: the generator is as fast as memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    random_start_kernel(StepProblem<T> problem, Norm norm, RandomStream stream,
                        const double* sums) {  // (n, chunks), unless norm is kLinf
  auto& shared = shared_memory<NoiseShared>();
  for (int64_t row = blockIdx.y; row < problem.n; row += gridDim.y) {
    double factor = 1;
    if (norm != Norm::kLinf) {
      double sum = 0;
      for (unsigned c = threadIdx.x; c < gridDim.x; c += kThreads) sum += sums[row * gridDim.x + c];
      sum = block_sum(sum, shared.sums);
      const auto number = static_cast<uint32_t>(row);
      factor = norm == Norm::kL2 ? l2_ball_factor(stream, number, problem.d, sum)
                                 : l1_ball_factor(stream, number, sum);
    }
    const T scale = static_cast<T>(static_cast<double>(problem.eps[row]) * factor);
    for_noise(norm, stream, row, problem.d, [&](int64_t entry, float value) {
      const int64_t at = row * problem.d + entry;
      const T start = std::fma(static_cast<T>(value), scale, problem.x[at]);
      problem.out[at] = clip<T>(start, bound_at(problem.low, entry), bound_at(problem.high, entry));
    });
  }
}

int64_t chunks_of(int64_t d) {
  return std::min(ceil_quotient(d, kWarps * kBlocksPerWarp * kRandomBlock), kMaximumChunks);
}

template <typename T>
struct NarrowShared {
  T largest[kMaximumWarps];
};

// One row a block at a time.
__global__ void __launch_bounds__(kThreads)
    narrow_gradient_kernel(const double* gradient,  // (n, d)
                           int64_t n, int64_t d,
                           float* out) {  // (n, d)
  auto& shared = shared_memory<NarrowShared<double>>();
  for (int64_t row = blockIdx.x; row < n; row += gridDim.x) {
    double largest = 0;
    for (int64_t i = threadIdx.x; i < d; i += kThreads) {
      const double size = magnitude<double>(finite<double, double>(gradient[row * d + i]));
      largest = size > largest ? size : largest;
    }
    largest = block_max(largest, shared.largest);
    const int exponent = largest > 0 ? std::ilogb(largest) : 0;
    for (int64_t i = threadIdx.x; i < d; i += kThreads) {
      out[row * d + i] = narrow(gradient[row * d + i], exponent);
    }
  }
}

}  // namespace

int64_t random_scratch_bytes(int64_t n, int64_t d, Norm norm) {
  return norm == Norm::kLinf ? 0 : n * chunks_of(d) * static_cast<int64_t>(sizeof(double));
}

template <typename T>
void launch_random_start(const StepProblem<T>& problem, Norm norm, RandomStream random,
                         void* scratch, void* stream) {
  if (problem.n == 0 || problem.d == 0) return;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(chunks_of(problem.d)),
                   static_cast<unsigned>(std::min(problem.n, kMaximumGridRows))),
      .threads = kThreads,
      .shared_bytes = sizeof(NoiseShared),
      .stream = stream};
  auto* sums = static_cast<double*>(scratch);
  if (norm != Norm::kLinf) {
    launch("noise_sum", noise_sum_kernel, shape, problem.n, problem.d, norm, random, sums);
  }
  launch("random_start", random_start_kernel<T>, shape, problem, norm, random, sums);
}

void launch_narrow_gradient(const double* gradient, int64_t n, int64_t d, float* out,
                            void* stream) {
  if (n == 0 || d == 0) return;
  launch("narrow_gradient", narrow_gradient_kernel,
         {.grid = dim3(static_cast<unsigned>(std::min<int64_t>(n, 0x7fffffff))),
          .threads = kThreads,
          .shared_bytes = sizeof(NarrowShared<double>),
          .stream = stream},
         gradient, n, d, out);
}

template void launch_random_start<float>(const StepProblem<float>&, Norm, RandomStream, void*,
                                         void*);
template void launch_random_start<double>(const StepProblem<double>&, Norm, RandomStream, void*,
                                          void*);

}  // namespace repsim_fast
