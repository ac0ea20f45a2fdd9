#include "cpu/pgd/pgd_kernels.h"
#include "cpu/pgd/pgd_rows.h"
#include "cpu/pgd/pgd_steps.h"

namespace repsim_fast {

template <typename T>
void linf_step(const StepProblem<T>& given) {
  StepProblem<T> problem = given;
  if (problem.alike()) {  // one long row
    problem.d *= problem.n;
    problem.n = 1;
  }
  const RowBounds<T> bounds(problem.low, problem.high, problem.d);
  const PgdKernels<T>& kernels = pgd_kernels<T>();
  for_chunks(problem.n, problem.d, [&](int64_t sample, int64_t, int64_t begin, int64_t end) {
    const int64_t row = sample * problem.d;
    const T size = problem.size[sample], eps = problem.eps[sample];
    bounds.for_parts(begin, end, [&](int64_t first, int64_t count, const Box<T>& box) {
      const int64_t at = row + first;
      kernels.linf(problem.adv + at, problem.gradient ? problem.gradient + at : nullptr,
                   problem.x + at, count, size, eps, box, problem.out + at);
    });
  });
}

template void linf_step<float>(const StepProblem<float>&);
template void linf_step<double>(const StepProblem<double>&);

}  // namespace repsim_fast
