// Centred Gram matrix on CUDA: checks, memory, and the launches of centered_gram.cuh in order.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/gram_operator.h"
#include "common/stable_checks.h"
#include "cuda/device_scope.h"
#include "cuda/gram/centered_gram.cuh"
#include "cuda/gram/gram_plan.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

ElementType element_type(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return ElementType::kFloat64;
    case ScalarType::Float:
      return ElementType::kFloat32;
    case ScalarType::Half:
      return ElementType::kFloat16;
    case ScalarType::BFloat16:
      return ElementType::kBFloat16;
    default:
      STD_TORCH_CHECK(false, "x: expected float64, float32, float16 or bfloat16");
  }
  return ElementType::kFloat32;
}

struct Operand {
  ElementType type;
  ScalarType storage;
};

Operand operand_of(Precision precision) {
  switch (precision) {
    case Precision::kFloat64:
      return {ElementType::kFloat64, ScalarType::Double};
    case Precision::kTf32:
      return {ElementType::kTf32, ScalarType::Float};
    case Precision::kBFloat16:
      return {ElementType::kBFloat16, ScalarType::BFloat16};
    case Precision::kFloat32:
      break;
  }
  return {ElementType::kFloat32, ScalarType::Float};
}

// What is left to the finish: nothing of kFeatures, whose means went before the products.
GramCentering gram_centering(Centering centering) {
  switch (centering) {
    case Centering::kDouble:
      return GramCentering::kDouble;
    case Centering::kUnbiased:
      return GramCentering::kUnbiased;
    case Centering::kFeatures:
    case Centering::kNone:
      break;
  }
  return GramCentering::kNone;
}

// out = a b. For bfloat16 a and b, out is float32: nothing is rounded to bfloat16 on the way.
void vendor_multiply(const Tensor& a, const Tensor& b, Tensor& out) {
  using torch::stable::detail::from;
  if (a.scalar_type() == out.scalar_type()) {
    std::array<StableIValue, 3> stack{from(a), from(b), from(out)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
    torch::stable::detail::to<Tensor>(stack[0]);  // takes the returned reference
  } else {
    std::array<StableIValue, 4> stack{from(a), from(b), from(out.scalar_type()), from(out)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::mm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
    torch::stable::detail::to<Tensor>(stack[0]);
  }
}

// Lower triangle of features features^T, by panels of rows; each stops at its last row's column.
void vendor_products(const Tensor& features,  // (n, pitch)
                     int64_t panels,
                     Tensor& gram) {  // (n, n)
  const int64_t n = features.size(0);
  Tensor operands = features;  // narrow takes a tensor that it may change
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = n * panel / panels, end = n * (panel + 1) / panels;
    Tensor rows = torch::stable::narrow(operands, 0, first, end - first);
    Tensor columns = torch::stable::narrow(operands, 0, 0, end);
    Tensor band = torch::stable::narrow(gram, 0, first, end - first);
    Tensor out = torch::stable::narrow(band, 1, 0, end);
    vendor_multiply(rows, torch::stable::transpose(columns, 0, 1), out);
  }
}

// Lower triangle of the products of x, in the tiles of the plan.
Tensor products(const Tensor& x,  // (n, p)
                const GramProblem& problem, const Operand& operand, bool centre,
                const GramPlan& plan, void* stream) {
  const ScalarType accumulator =
      operand.type == ElementType::kFloat64 ? ScalarType::Double : ScalarType::Float;
  Tensor gram = torch::stable::new_empty(x, {plan.gram_entries()}, accumulator);
  if (plan.products == GramProducts::kSinglePass) {
    launch_single_pass_product({.x = x.const_data_ptr(),
                                .x_type = problem.x_type,
                                .n = problem.n,
                                .p = problem.p,
                                .row_stride = x.stride(0),
                                .centre = centre,
                                .operand_type = operand.type,
                                .tile = plan.tile,
                                .splits = plan.splits,
                                .gram = gram.mutable_data_ptr()},
                               stream);
    return gram;
  }
  const int64_t pitch = feature_pitch(problem.p, operand.type);
  const Tensor features = torch::stable::new_empty(x, {problem.n, pitch}, operand.storage);
  launch_center_features({.x = x.const_data_ptr(),
                          .x_type = problem.x_type,
                          .n = problem.n,
                          .p = problem.p,
                          .row_stride = x.stride(0),
                          .column_stride = x.stride(1),
                          .centre = centre,
                          .features = features.mutable_data_ptr(),
                          .operand_type = operand.type,
                          .pitch = pitch},
                         stream);
  if (plan.products == GramProducts::kVendor) {
    Tensor matrix = torch::stable::view(gram, {problem.n, problem.n});
    vendor_products(features, plan.panels, matrix);
    return gram;
  }
  launch_triangle_product({.features = features.const_data_ptr(),
                           .operand_type = operand.type,
                           .n = problem.n,
                           .pitch = pitch,
                           .tile = plan.tile,
                           .splits = plan.splits,
                           .gram = gram.mutable_data_ptr()},
                          stream);
  return gram;
}

void compute(const Tensor& x,  // (n, p)
             const GramCall& call, Tensor& out) {
  const ElementType x_type = element_type(x.scalar_type());
  const int64_t n = call.n, p = call.p;
  const bool wide = call.wide;
  const DeviceScope scope(x);
  if (n == 0) return;
  if (p == 0) {
    torch::stable::zero_(out);
    return;
  }

  const Operand operand = operand_of(call.precision);
  const GramProblem problem{.n = n,
                            .p = p,
                            .x_type = x_type,
                            .operand_type = operand.type,
                            .single_pass_layout = single_pass_layout(x.const_data_ptr(), x_type,
                                                                     x.stride(0), x.stride(1)),
                            .multiprocessors = scope.multiprocessors(),
                            .shared_bytes = scope.shared_bytes()};
  const GramPlan plan = plan_gram(problem);
  const bool centre = call.centering != Centering::kNone;
  const Tensor gram = products(x, problem, operand, centre, plan, scope.stream());

  Tensor row_sums = torch::stable::new_empty(x, {n}, ScalarType::Double);
  launch_finish_gram({.gram = gram.const_data_ptr(),
                      .wide = wide,
                      .n = n,
                      .tile = plan.tile,
                      .centering = gram_centering(call.centering),
                      .row_sums = static_cast<double*>(row_sums.mutable_data_ptr()),
                      .packed = call.packed,
                      .out = out.mutable_data_ptr()},
                     scope.stream());
}

Tensor centered_gram(const Tensor& x, const std::string& centering, bool packed,
                     const std::string& precision) {
  const GramCall call = GramCall::of(x, centering, packed, precision);
  Tensor out = call.empty_result(x);
  compute(x, call, out);
  return out;
}

void centered_gram_out(const Tensor& x, const std::string& centering, bool packed,
                       const std::string& precision, Tensor out) {
  const GramCall call = GramCall::of(x, centering, packed, precision);
  call.check_result(x, out);
  compute(x, call, out);
}

}  // namespace

REPSIM_CUDA_LIBRARY_IMPL(m) {
  m.impl("centered_gram", TORCH_BOX(&centered_gram));
  m.impl("centered_gram_out", TORCH_BOX(&centered_gram_out));
}

}  // namespace repsim_fast
