#include <type_traits>

#include "cuda/pgd/pgd_rows.cuh"
#include "cuda/pgd/pgd_steps.cuh"
#include "cuda/portability/portability.h"
#include "math/projection.h"

namespace repsim_fast {
namespace {

constexpr int kThreads = 256;

// Packs of a thread, all loaded before the first is used: enough in flight to hide the memory.
constexpr int kPacks = 2;

// Block (x, y): a stretch of row y, and of every gridDim.y-th row after it.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) linf_step_kernel(StepProblem<T> problem) {
  using Values = Pack<T, kWidth>;
  const int64_t stretch = int64_t{kThreads} * kPacks * kWidth;
  for (int64_t row = blockIdx.y; row < problem.n; row += gridDim.y) {
    const T size = problem.size[row], eps = problem.eps[row];
    for (int64_t first = blockIdx.x * stretch; first < problem.d;
         first += int64_t{gridDim.x} * stretch) {
      Values adv[kPacks], gradient[kPacks] = {}, x[kPacks];
      REPSIM_UNROLL
      for (int k = 0; k < kPacks; ++k) {
        const int64_t entry = first + (k * kThreads + int64_t{threadIdx.x}) * kWidth;
        if (entry >= problem.d) continue;
        const int64_t at = row * problem.d + entry;
        adv[k] = load_pack<kWidth>(problem.adv + at);
        if (problem.gradient != nullptr) gradient[k] = load_pack<kWidth>(problem.gradient + at);
        x[k] = load_pack<kWidth>(problem.x + at);
      }
      REPSIM_UNROLL
      for (int k = 0; k < kPacks; ++k) {
        const int64_t entry = first + (k * kThreads + int64_t{threadIdx.x}) * kWidth;
        if (entry >= problem.d) continue;
        const Values low = bounds_at<kWidth>(problem.low, entry);
        const Values high = bounds_at<kWidth>(problem.high, entry);
        Values out;
        REPSIM_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          out.entry[e] = linf_entry<T>(adv[k].entry[e], gradient[k].entry[e], x[k].entry[e], size,
                                       eps, low.entry[e], high.entry[e]);
        }
        store_pack<kWidth>(problem.out + row * problem.d + entry, out);
      }
    }
  }
}

// Blocks of a row: enough for every card, few enough to be cheap to start.
constexpr int64_t kMaximumBlocks = int64_t{1} << 16;

}  // namespace

template <typename T>
void launch_linf_step(const StepProblem<T>& given, void* stream) {
  StepProblem<T> problem = given;
  if (problem.n == 0 || problem.d == 0) return;
  if (problem.alike()) {  // one long row
    problem.d *= problem.n;
    problem.n = 1;
  }
  with_pack_width(problem, [&](auto width) {
    const int64_t stretch = int64_t{kThreads} * kPacks * width;
    const int64_t blocks = std::min(ceil_quotient(problem.d, stretch), kMaximumBlocks);
    launch("linf_step", linf_step_kernel<T, width>,
           {.grid = dim3(static_cast<unsigned>(blocks),
                         static_cast<unsigned>(std::min(problem.n, kMaximumGridRows))),
            .threads = kThreads,
            .shared_bytes = 0,
            .stream = stream},
           problem);
  });
}

template void launch_linf_step<float>(const StepProblem<float>&, void*);
template void launch_linf_step<double>(const StepProblem<double>&, void*);

}  // namespace repsim_fast
