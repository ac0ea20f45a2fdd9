// Attack steps and random starts, registered for CUDA.
#include "common/pgd_operators.h"
#include "cuda/device_scope.h"
#include "cuda/pgd/pgd_steps.cuh"

namespace repsim_fast {
namespace {

class CudaBackend {
 public:
  explicit CudaBackend(const Tensor& x) : x_(x), scope_(x) {}

  template <typename T>
  void linf(const StepProblem<T>& problem) {
    launch_linf_step(problem, scope_.stream());
  }
  template <typename T>
  void l2(const StepProblem<T>& problem, bool clip_first) {
    const Tensor memory = scratch(l2_scratch_bytes<T>(problem.n, problem.d));
    launch_l2_step(problem, clip_first, memory.mutable_data_ptr(), scope_.stream());
  }
  template <typename T>
  void l1(const StepProblem<T>& problem, const PerSample<T>& fraction) {
    const Tensor memory = scratch(l1_scratch_bytes<T>(problem.n, problem.d));
    launch_l1_step(problem, fraction, memory.mutable_data_ptr(), scope_.stream());
  }
  template <typename T>
  void random(const StepProblem<T>& problem, Norm norm, RandomStream random) {
    const Tensor memory = scratch(random_scratch_bytes(problem.n, problem.d, norm));
    launch_random_start(problem, norm, random, memory.mutable_data_ptr(), scope_.stream());
  }
  void narrow(const Tensor& wide, int64_t n, int64_t d, Tensor& narrowed) {
    launch_narrow_gradient(static_cast<const double*>(wide.const_data_ptr()), n, d,
                           static_cast<float*>(narrowed.mutable_data_ptr()), scope_.stream());
  }

 private:
  Tensor scratch(int64_t bytes) const {
    return torch::stable::new_empty(x_, {bytes}, ScalarType::Byte);
  }

  Tensor x_;
  DeviceScope scope_;
};

}  // namespace

REPSIM_CUDA_LIBRARY_IMPL(m) { PgdOperators<CudaBackend>::registered(m); }

}  // namespace repsim_fast
