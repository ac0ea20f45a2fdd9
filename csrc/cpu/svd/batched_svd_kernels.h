// The inner loops of batched_svdvals and batched_svd on the CPU, for each instruction set.
//
// Two layouts. "Together": as many matrices as a vector has lanes, interleaved, every operation one
// vector operation on the same entry of all of them; no shuffles, no short loops, hence best for
// small matrices. "Alone": one matrix by columns, vectors along the columns; best from where the
// interleaved matrices outgrow the cache.
#pragma once

#include <cstdint>

namespace repsim_fast {

// rows >= columns: a wide matrix is given transposed.
template <typename T>
struct MatrixView {
  T* data;
  int64_t rows, columns, row_stride, column_stride;

  T& operator()(int64_t i, int64_t j) const { return data[i * row_stride + j * column_stride]; }
};

// Where the factors of one matrix go: a = u diag(values) v^T.
template <typename T>
struct FactorViews {
  MatrixView<T> u;  // rows x columns
  T* values;        // columns, descending
  MatrixView<T> v;  // columns x columns
};

// Every function scales the matrices itself and writes NaN for a matrix with NaN or Inf.
template <typename T>
struct SvdKernels {
  int64_t lanes;  // matrices that go together

  // Elements of workspace, 64-byte aligned, for matrices up to rows x columns.
  int64_t (*values_together_workspace)(int64_t rows, int64_t columns);
  int64_t (*values_alone_workspace)(int64_t rows, int64_t columns);
  int64_t (*svd_together_workspace)(int64_t rows, int64_t columns);

  // values[l] (columns of matrices[l],), descending, of 1 to `lanes` matrices.
  void (*values_together)(const MatrixView<const T>* matrices, int64_t count, T* workspace,
                          T* const* values);
  void (*values_alone)(const MatrixView<const T>& matrix, T* workspace, T* values);

  // Returns the index of a matrix whose Jacobi iteration did not converge, or -1.
  int64_t (*svd_together)(const MatrixView<const T>* matrices, int64_t count, T* workspace,
                          const FactorViews<T>* factors);
};

// The kernels for this processor (see simd_level.h).
template <typename T>
const SvdKernels<T>& svd_kernels();

}  // namespace repsim_fast
