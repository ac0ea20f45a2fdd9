// Arguments of the batched SVD operators for any device, and torch's own SVD for what the kernels
// leave to it. No .cu includes this: it needs torch.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/stable_checks.h"

namespace repsim_fast {

// How much of each matrix counts; empty vectors: all of it.
struct MatrixBatch {
  int64_t batch, rows, columns, rank;  // rank = min(rows, columns)
  std::vector<int64_t> row_counts, column_counts;

  bool ragged() const { return !row_counts.empty() || !column_counts.empty(); }
  int64_t rows_of(int64_t b) const { return row_counts.empty() ? rows : row_counts[b]; }
  int64_t columns_of(int64_t b) const { return column_counts.empty() ? columns : column_counts[b]; }
  int64_t rank_of(int64_t b) const { return std::min(rows_of(b), columns_of(b)); }
};

inline std::vector<int64_t> parse_counts(const char* name,
                                         const std::optional<torch::stable::Tensor>& counts,
                                         int64_t batch, int64_t limit) {
  using torch::headeronly::ScalarType;
  if (!counts.has_value()) return {};
  STD_TORCH_CHECK(counts->is_cpu() && counts->scalar_type() == ScalarType::Long, name,
                  ": expected an int64 tensor on the CPU");
  STD_TORCH_CHECK(counts->dim() == 1 && counts->size(0) == batch, name,
                  ": expected one length for ", "each of ", batch, " matrices");
  std::vector<int64_t> values(static_cast<size_t>(batch));
  const auto* data = static_cast<const int64_t*>(counts->const_data_ptr());
  for (int64_t b = 0; b < batch; ++b) {
    values[b] = data[b * counts->stride(0)];
    STD_TORCH_CHECK(0 <= values[b] && values[b] <= limit, name, ": expected lengths in 0 .. ",
                    limit, ", got ", values[b], " for matrix ", b);
  }
  return values;
}

inline MatrixBatch parse_matrices(const torch::stable::Tensor& a,                    // (B, m, n)
                                  const std::optional<torch::stable::Tensor>& rows,  // (B,)
                                  const std::optional<torch::stable::Tensor>& columns) {  // (B,)
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(a.dim() == 3, "a: expected matrices (B, m, n), got ", a.dim(), " dimensions");
  STD_TORCH_CHECK(a.scalar_type() == ScalarType::Double || a.scalar_type() == ScalarType::Float,
                  "a: expected float64 or float32");
  const int64_t batch = a.size(0), m = a.size(1), n = a.size(2);
  return {batch,
          m,
          n,
          std::min(m, n),
          parse_counts("rows", rows, batch, m),
          parse_counts("columns", columns, batch, n)};
}

struct Factors {
  torch::stable::Tensor u, s, vh;
};

// torch.linalg.svd(a, full_matrices=False); a must be finite.
inline Factors library_svd(const torch::stable::Tensor& a) {  // (..., m, n)
  using torch::stable::Tensor;
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 3> stack{from(a), from(false),
                                    from(std::optional<std::string>(std::nullopt))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::linalg_svd", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
}

// torch.linalg.svdvals(a); a must be finite.
inline torch::stable::Tensor library_svdvals(const torch::stable::Tensor& a) {  // (..., m, n)
  using torch::stable::detail::from;
  std::array<StableIValue, 2> stack{from(a), from(std::optional<std::string>(std::nullopt))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::linalg_svdvals", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

// The upper left part of matrix b.
inline torch::stable::Tensor part_of_matrix(const torch::stable::Tensor& t, int64_t b, int64_t rows,
                                            int64_t columns) {
  torch::stable::Tensor matrix = torch::stable::select(t, 0, b);
  torch::stable::Tensor upper = torch::stable::narrow(matrix, 0, 0, rows);
  return torch::stable::narrow(upper, 1, 0, columns);
}

}  // namespace repsim_fast
