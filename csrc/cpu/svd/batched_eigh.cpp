// Eigenvalues and eigenvectors of many symmetric matrices on the CPU: LAPACK, one matrix a thread.
//
// torch.linalg.eigh takes the matrices of a batch one after the other and lets the library use its
// threads inside each, which for some hundred columns costs more than it saves.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <tuple>

#include "common/stable_checks.h"
#include "cpu/svd/library_alone.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// torch.linalg.eigh of one matrix, from its lower triangle.
std::tuple<Tensor, Tensor> library_eigh(const Tensor& a) {  // (n, n)
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 2> stack{from(a), from(std::string("L"))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::linalg_eigh", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

std::tuple<Tensor, Tensor> batched_eigh(const Tensor& a) {  // (B, n, n)
  STD_TORCH_CHECK(a.dim() == 3 && a.size(1) == a.size(2),
                  "a: expected square matrices (B, n, n), got ", a.dim(), " dimensions");
  STD_TORCH_CHECK(a.scalar_type() == ScalarType::Double || a.scalar_type() == ScalarType::Float,
                  "a: expected float64 or float32");
  const int64_t batch = a.size(0), n = a.size(1);
  Tensor values = torch::stable::new_empty(a, {batch, n});
  Tensor vectors = torch::stable::new_empty(a, {batch, n, n});
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), batch);
  std::atomic<int64_t> next = 0, failed = -1;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const LibraryAlone alone;
    for (int64_t b = next++; b < batch; b = next++) {
      try {
        const auto [w, v] = library_eigh(torch::stable::select(a, 0, b));
        Tensor own_values = torch::stable::select(values, 0, b);
        Tensor own_vectors = torch::stable::select(vectors, 0, b);
        torch::stable::copy_(own_values, w);
        torch::stable::copy_(own_vectors, v);
      } catch (const std::exception&) {
        failed = b;
      }
    }
  });
  STD_TORCH_CHECK(failed < 0, "batched_eigh: matrix ", failed.load(),
                  " is not finite, or LAPACK did not converge");
  return {values, vectors};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU, m) { m.impl("batched_eigh", TORCH_BOX(&batched_eigh)); }

}  // namespace repsim_fast
