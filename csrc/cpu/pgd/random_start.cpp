#include <vector>

#include "cpu/pgd/pgd_kernels.h"
#include "cpu/pgd/pgd_rows.h"
#include "cpu/pgd/pgd_steps.h"

namespace repsim_fast {
namespace {

// f(noise, first, count): the noise of entries [begin, end) of a row, kRandomBlock of them or fewer
// at a time; begin is a multiple of kRandomBlock.
template <typename T, typename F>
void for_noise(Norm norm, RandomStream stream, int64_t sample, int64_t begin, int64_t end, F f) {
  alignas(64) float noise[kRandomBlock];
  for (int64_t first = begin; first < end; first += kRandomBlock) {
    pgd_kernels<T>().noise(norm, stream, static_cast<uint32_t>(sample), first / kRandomBlock,
                           noise);
    f(noise, first, std::min<int64_t>(kRandomBlock, end - first));
  }
}

}  // namespace

template <typename T>
void random_start(const StepProblem<T>& problem, Norm norm, RandomStream stream) {
  const RowBounds<T> bounds(problem.low, problem.high, problem.d);
  const PgdKernels<T>& kernels = pgd_kernels<T>();
  const int64_t chunks = chunks_of(problem.d);

  std::vector<double> factors(static_cast<size_t>(problem.n), 1.0);
  if (norm != Norm::kLinf) {
    std::vector<double> sums(static_cast<size_t>(problem.n * chunks), 0.0);
    for_chunks(problem.n, problem.d,
               [&](int64_t sample, int64_t chunk, int64_t begin, int64_t end) {
                 double& sum = sums[static_cast<size_t>(sample * chunks + chunk)];
                 for_noise<T>(norm, stream, sample, begin, end,
                              [&](const float* noise, int64_t, int64_t count) {
                                sum += kernels.noise_sum(norm, noise, count);
                              });
               });
    for (int64_t sample = 0; sample < problem.n; ++sample) {
      double sum = 0;
      for (int64_t c = 0; c < chunks; ++c) sum += sums[static_cast<size_t>(sample * chunks + c)];
      const auto row = static_cast<uint32_t>(sample);
      factors[static_cast<size_t>(sample)] = norm == Norm::kL2
                                                 ? l2_ball_factor(stream, row, problem.d, sum)
                                                 : l1_ball_factor(stream, row, sum);
    }
  }

  // The noise is drawn again rather than kept: the generator is as fast as memory.
  for_chunks(problem.n, problem.d, [&](int64_t sample, int64_t, int64_t begin, int64_t end) {
    const T factor = static_cast<T>(static_cast<double>(problem.eps[sample]) *
                                    factors[static_cast<size_t>(sample)]);
    for_noise<T>(norm, stream, sample, begin, end,
                 [&](const float* noise, int64_t first, int64_t count) {
                   bounds.for_parts(first, first + count,
                                    [&](int64_t part, int64_t length, const Box<T>& box) {
                                      const int64_t at = sample * problem.d + part;
                                      kernels.place(noise + (part - first), problem.x + at, length,
                                                    factor, box, problem.out + at);
                                    });
                 });
  });
}

template void random_start<float>(const StepProblem<float>&, Norm, RandomStream);
template void random_start<double>(const StepProblem<double>&, Norm, RandomStream);

}  // namespace repsim_fast
