// Every operator's schema, nothing else. Implementations register themselves in cpu/ and cuda/.
#include <torch/csrc/stable/library.h>

// Common to all attack steps: a number counts where the tensor beside it is absent.
#define STEP                                                                                       \
  "x_adv, Tensor? grad, Tensor x, float step_size, Tensor? step_sizes, float eps, Tensor? radii, " \
  "float low, Tensor? lows, float high, Tensor? highs"
#define START                                                                           \
  "Tensor x, str norm, float eps, Tensor? radii, float low, Tensor? lows, float high, " \
  "Tensor? highs, int seed, int offset"

STABLE_TORCH_LIBRARY(repsim_fast, m) {
  m.def("centered_gram(Tensor x, str centering, bool packed, str precision) -> Tensor");
  m.def(
      "centered_gram_out(Tensor x, str centering, bool packed, str precision, Tensor(a!) out) "
      "-> ()");
  m.def("cross_gram(Tensor x, Tensor y) -> Tensor");
  m.def(
      "batch_norm_relu(Tensor x, Tensor weight, Tensor bias, Tensor? mean, Tensor? variance, "
      "float eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "batch_norm_relu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, "
      "Tensor variance, float eps, bool constant, bool input_only) -> (Tensor, Tensor, Tensor)");
  m.def("batched_eigh(Tensor a) -> (Tensor, Tensor)");
  m.def("batched_svdvals(Tensor a, Tensor? rows, Tensor? columns) -> Tensor");
  m.def("batched_nuclear_norm(Tensor a, Tensor? rows, Tensor? columns) -> Tensor");
  m.def("batched_svd(Tensor a, Tensor? rows, Tensor? columns) -> (Tensor, Tensor, Tensor)");
  m.def("pgd_linf_step(Tensor " STEP ") -> Tensor");
  m.def("pgd_linf_step_(Tensor(a!) " STEP ") -> ()");
  m.def("pgd_l2_step(Tensor " STEP ", bool clip_first) -> Tensor");
  m.def("pgd_l2_step_(Tensor(a!) " STEP ", bool clip_first) -> ()");
  m.def("pgd_l1_step(Tensor " STEP ", float fraction, Tensor? fractions) -> Tensor");
  m.def("pgd_l1_step_(Tensor(a!) " STEP ", float fraction, Tensor? fractions) -> ()");
  m.def("random_start(" START ") -> Tensor");
  m.def("random_start_(Tensor(a!) x_adv, " START ") -> ()");
}
