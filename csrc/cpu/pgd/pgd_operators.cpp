// Attack steps and random starts, registered for the CPU.
#include "common/pgd_operators.h"

#include <cmath>

#include "cpu/pgd/pgd_rows.h"
#include "cpu/pgd/pgd_steps.h"

namespace repsim_fast {

void narrow_gradient(const double* gradient, int64_t n, int64_t d, float* out) {
  for_samples(n, d, [&](int64_t first, int64_t last) {
    for (int64_t sample = first; sample < last; ++sample) {
      const double* row = gradient + sample * d;
      double largest = 0;
      for (int64_t i = 0; i < d; ++i)
        largest = std::fmax(largest, std::fabs(finite<double, double>(row[i])));
      const int exponent = largest > 0 ? std::ilogb(largest) : 0;
      for (int64_t i = 0; i < d; ++i) out[sample * d + i] = narrow(row[i], exponent);
    }
  });
}

namespace {

struct CpuBackend {
  explicit CpuBackend(const Tensor&) {}

  template <typename T>
  void linf(const StepProblem<T>& problem) {
    linf_step(problem);
  }
  template <typename T>
  void l2(const StepProblem<T>& problem, bool clip_first) {
    l2_step(problem, clip_first);
  }
  template <typename T>
  void l1(const StepProblem<T>& problem, const PerSample<T>& fraction) {
    l1_step(problem, fraction);
  }
  template <typename T>
  void random(const StepProblem<T>& problem, Norm norm, RandomStream stream) {
    random_start(problem, norm, stream);
  }
  void narrow(const Tensor& wide, int64_t n, int64_t d, Tensor& narrowed) {
    narrow_gradient(static_cast<const double*>(wide.const_data_ptr()), n, d,
                    static_cast<float*>(narrowed.mutable_data_ptr()));
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU, m) { PgdOperators<CpuBackend>::registered(m); }

}  // namespace repsim_fast
