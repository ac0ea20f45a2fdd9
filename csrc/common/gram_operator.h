// Arguments of centered_gram on any device: checked once, and the result that they call for.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/centering.h"

namespace repsim_fast {

struct GramCall {
  int64_t n, p;
  bool wide;  // float64
  Centering centering;
  bool packed;
  Precision precision;

  static GramCall of(const torch::stable::Tensor& x,  // (n, p)
                     const std::string& centering_word, bool packed,
                     const std::string& precision_word) {
    const Centering centering = parse_centering(centering_word);
    const Precision precision = parse_precision(precision_word);
    STD_TORCH_CHECK(x.dim() == 2, "x: expected a matrix (n, p), got ", x.dim(), " dimensions");
    const int64_t n = x.size(0);
    STD_TORCH_CHECK(n == 0 || n >= minimum_samples(centering), "x: centering ", centering_word,
                    " needs at least ", minimum_samples(centering), " samples, got ", n);
    const bool wide = x.scalar_type() == torch::headeronly::ScalarType::Double;
    STD_TORCH_CHECK(wide == (precision == Precision::kFloat64), "precision: ", precision_word,
                    " does not go with x's dtype");
    return {n, x.size(1), wide, centering, packed, precision};
  }

  std::vector<int64_t> shape() const {
    if (packed) return {packed_size(n, centering)};
    return {n, n};
  }

  torch::headeronly::ScalarType type() const {
    return wide ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
  }

  torch::stable::Tensor empty_result(const torch::stable::Tensor& x) const {
    return torch::stable::new_empty(x, shape(), type());
  }

  void check_result(const torch::stable::Tensor& x, const torch::stable::Tensor& out) const {
    STD_TORCH_CHECK(out.scalar_type() == type(), "out: expected ", wide ? "float64" : "float32",
                    " for this x");
    STD_TORCH_CHECK(out.is_cuda() == x.is_cuda() && out.get_device_index() == x.get_device_index(),
                    "out: expected a tensor on the device of x");
    const std::vector<int64_t> wanted = shape();
    bool fits = out.dim() == static_cast<int64_t>(wanted.size()) && out.is_contiguous();
    for (size_t k = 0; fits && k < wanted.size(); ++k) fits = out.size(k) == wanted[k];
    STD_TORCH_CHECK(fits, "out: expected a contiguous ", packed ? "vector of " : "square of ",
                    wanted[0], " entries", packed ? "" : " a side", ", got ", out.numel(),
                    " entries in ", out.dim(), " dimensions");
  }
};

}  // namespace repsim_fast
