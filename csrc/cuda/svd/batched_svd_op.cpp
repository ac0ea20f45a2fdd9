// Batched singular value decomposition on CUDA: the kernels of batched_svd.cuh for matrices that
// fit into shared memory, cuSOLVER through torch for larger ones.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "common/batched_svd.h"
#include "common/stable_checks.h"
#include "cuda/device_scope.h"
#include "cuda/svd/batched_svd.cuh"
#include "math/jacobi.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

#if defined(REPSIM_CPU_RUNNER)
// Small, so that tests reach the library with small matrices.
size_t most_shared_bytes(const Tensor&) { return size_t{48} << 10; }
#else
size_t most_shared_bytes(const Tensor& a) {
  int bytes = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                        a.get_device_index()));
  return static_cast<size_t>(bytes);
}
#endif

constexpr int64_t kMostRows = 1024;  // threads of a block: a row each

// What the launches need of a batch, and the memory behind it.
struct Batch {
  MatrixBatch shape;
  SvdSource source;
  Tensor row_counts, column_counts;

  Batch(const Tensor& a, const std::optional<Tensor>& rows, const std::optional<Tensor>& columns)
      : shape(parse_matrices(a, rows, columns)),
        source{.a = a.const_data_ptr(),
               .wide = a.scalar_type() == ScalarType::Double,
               .batch = shape.batch,
               .rows = shape.rows,
               .columns = shape.columns,
               .batch_stride = a.stride(0),
               .row_stride = a.stride(1),
               .column_stride = a.stride(2),
               .row_counts = nullptr,
               .column_counts = nullptr} {
    if (rows.has_value()) source.row_counts = on_device(a, *rows, row_counts);
    if (columns.has_value()) source.column_counts = on_device(a, *columns, column_counts);
  }

  bool fits(const Tensor& a, size_t bytes) const {
    return std::max(shape.rows, shape.columns) <= kMostRows && bytes <= most_shared_bytes(a);
  }

 private:
  static const int64_t* on_device(const Tensor& a, const Tensor& counts, Tensor& copy) {
    copy = torch::stable::new_empty(a, {counts.size(0)}, ScalarType::Long);
    torch::stable::copy_(copy, counts);
    return static_cast<const int64_t*>(copy.const_data_ptr());
  }
};

// A (B,) int32 tensor's values; waits for the device.
std::vector<int32_t> on_host(const Tensor& flags) {
  const Tensor copy =
      torch::stable::to(flags, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const auto* data = static_cast<const int32_t*>(copy.const_data_ptr());
  return std::vector<int32_t>(data, data + copy.size(0));
}

// ---- larger matrices

// The matrices for the library: finite, or all zero where they were not.
struct CleanMatrices {
  Tensor dense;  // (B, m, n)
  std::vector<int32_t> invalid;
};

CleanMatrices clean_matrices(const Tensor& a, const Batch& batch, void* stream) {
  const MatrixBatch& shape = batch.shape;
  Tensor dense = torch::stable::new_empty(a, {shape.batch, shape.rows, shape.columns});
  Tensor invalid = torch::stable::new_empty(a, {shape.batch}, ScalarType::Int);
  launch_gather_finite(batch.source, dense.mutable_data_ptr(),
                       static_cast<int32_t*>(invalid.mutable_data_ptr()), stream);
  return {dense, on_host(invalid)};
}

// Calls body(b) for the matrices that have singular values, of those `which` selects.
template <typename Which, typename Body>
void for_matrices(const MatrixBatch& shape, const Which& which, const Body& body) {
  for (int64_t b = 0; b < shape.batch; ++b) {
    if (shape.rank_of(b) > 0 && which(b)) body(b);
  }
}

Tensor own_values(Tensor s, const MatrixBatch& shape, int64_t b) {
  Tensor row = torch::stable::select(s, 0, b);
  return torch::stable::narrow(row, 0, 0, shape.rank_of(b));
}

void spoil(const Tensor& t) { torch::stable::fill_(t, std::numeric_limits<double>::quiet_NaN()); }

Tensor values_by_library(const Tensor& a, const Batch& batch, void* stream) {
  const MatrixBatch& shape = batch.shape;
  const CleanMatrices clean = clean_matrices(a, batch, stream);
  Tensor s;
  if (!shape.ragged()) {
    s = library_svdvals(clean.dense);
  } else {
    s = torch::stable::new_zeros(a, {shape.batch, shape.rank});
    for_matrices(
        shape, [](int64_t) { return true; },
        [&](int64_t b) {
          Tensor own = own_values(s, shape, b);
          torch::stable::copy_(own, library_svdvals(part_of_matrix(clean.dense, b, shape.rows_of(b),
                                                                   shape.columns_of(b))));
        });
  }
  for_matrices(
      shape, [&](int64_t b) { return clean.invalid[b] != 0; },
      [&](int64_t b) { spoil(own_values(s, shape, b)); });
  return s;
}

Factors factors_by_library(const Tensor& a, const Batch& batch, void* stream) {
  const MatrixBatch& shape = batch.shape;
  const CleanMatrices clean = clean_matrices(a, batch, stream);
  const auto own_u = [&](const Factors& factors, int64_t b) {
    return part_of_matrix(factors.u, b, shape.rows_of(b), shape.rank_of(b));
  };
  const auto own_vh = [&](const Factors& factors, int64_t b) {
    return part_of_matrix(factors.vh, b, shape.rank_of(b), shape.columns_of(b));
  };
  Factors out;
  if (!shape.ragged()) {
    // The library's factors may be transposed in memory; an operator's are contiguous.
    const Factors found = library_svd(clean.dense);
    out = {torch::stable::contiguous(found.u), found.s, torch::stable::contiguous(found.vh)};
  } else {
    out = {torch::stable::new_zeros(a, {shape.batch, shape.rows, shape.rank}),
           torch::stable::new_zeros(a, {shape.batch, shape.rank}),
           torch::stable::new_zeros(a, {shape.batch, shape.rank, shape.columns})};
    for_matrices(
        shape, [](int64_t) { return true; },
        [&](int64_t b) {
          const Factors found =
              library_svd(part_of_matrix(clean.dense, b, shape.rows_of(b), shape.columns_of(b)));
          Tensor u = own_u(out, b), s = own_values(out.s, shape, b), vh = own_vh(out, b);
          torch::stable::copy_(u, found.u);
          torch::stable::copy_(s, found.s);
          torch::stable::copy_(vh, found.vh);
        });
  }
  for_matrices(
      shape, [&](int64_t b) { return clean.invalid[b] != 0; },
      [&](int64_t b) {
        spoil(own_u(out, b));
        spoil(own_values(out.s, shape, b));
        spoil(own_vh(out, b));
      });
  return out;
}

// ---- operators

Tensor batched_svdvals(const Tensor& a,                         // (B, m, n)
                       const std::optional<Tensor>& rows,       // (B,)
                       const std::optional<Tensor>& columns) {  // (B,)
  const DeviceScope scope(a);
  const Batch batch(a, rows, columns);
  if (!batch.fits(a, singular_values_shared_bytes(batch.source))) {
    return values_by_library(a, batch, scope.stream());
  }
  Tensor s = torch::stable::new_empty(a, {batch.shape.batch, batch.shape.rank});
  launch_singular_values(batch.source, s.mutable_data_ptr(), nullptr, scope.stream());
  return s;
}

Tensor batched_nuclear_norm(const Tensor& a,                         // (B, m, n)
                            const std::optional<Tensor>& rows,       // (B,)
                            const std::optional<Tensor>& columns) {  // (B,)
  const DeviceScope scope(a);
  const Batch batch(a, rows, columns);
  if (!batch.fits(a, singular_values_shared_bytes(batch.source))) {
    const Tensor s = values_by_library(a, batch, scope.stream());
    const std::vector<int64_t> dim = {1};
    return torch::stable::to(torch::stable::sum(s, dim, false, ScalarType::Double),
                             a.scalar_type());
  }
  Tensor norms = torch::stable::new_empty(a, {batch.shape.batch});
  launch_singular_values(batch.source, nullptr, norms.mutable_data_ptr(), scope.stream());
  return norms;
}

std::tuple<Tensor, Tensor, Tensor> batched_svd(const Tensor& a,                         // (B, m, n)
                                               const std::optional<Tensor>& rows,       // (B,)
                                               const std::optional<Tensor>& columns) {  // (B,)
  const DeviceScope scope(a);
  const Batch batch(a, rows, columns);
  if (!batch.fits(a, jacobi_shared_bytes(batch.source))) {
    const Factors found = factors_by_library(a, batch, scope.stream());
    return {found.u, found.s, found.vh};
  }
  const int64_t count = batch.shape.batch, rank = batch.shape.rank;
  Tensor u = torch::stable::new_empty(a, {count, batch.shape.rows, rank});
  Tensor s = torch::stable::new_empty(a, {count, rank});
  Tensor vh = torch::stable::new_empty(a, {count, rank, batch.shape.columns});
  Tensor unfinished = torch::stable::new_empty(a, {count}, ScalarType::Int);
  launch_jacobi(batch.source,
                {u.mutable_data_ptr(), s.mutable_data_ptr(), vh.mutable_data_ptr(),
                 static_cast<int32_t*>(unfinished.mutable_data_ptr())},
                kMaximumSweeps, scope.stream());
  const std::vector<int32_t> flags = on_host(unfinished);
  const auto failed = std::find(flags.begin(), flags.end(), 1);
  STD_TORCH_CHECK(failed == flags.end(), "batched_svd: matrix ", failed - flags.begin(),
                  " did not converge within ", kMaximumSweeps, " sweeps");
  return {u, s, vh};
}

}  // namespace

REPSIM_CUDA_LIBRARY_IMPL(m) {
  m.impl("batched_svdvals", TORCH_BOX(&batched_svdvals));
  m.impl("batched_nuclear_norm", TORCH_BOX(&batched_nuclear_norm));
  m.impl("batched_svd", TORCH_BOX(&batched_svd));
}

}  // namespace repsim_fast
