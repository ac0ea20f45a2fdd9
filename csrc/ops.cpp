// Every operator's schema, nothing else. Implementations register themselves in cpu/ and cuda/.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(repsim_fast, m) {
  m.def("centered_gram(Tensor x, str centering, bool packed, str precision) -> Tensor");
  m.def("batched_svdvals(Tensor a, Tensor? rows, Tensor? columns) -> Tensor");
  m.def("batched_nuclear_norm(Tensor a, Tensor? rows, Tensor? columns) -> Tensor");
  m.def("batched_svd(Tensor a, Tensor? rows, Tensor? columns) -> (Tensor, Tensor, Tensor)");
}
