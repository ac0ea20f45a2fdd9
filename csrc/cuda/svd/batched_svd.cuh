// Batched SVD on CUDA: one block a matrix, the matrix in shared memory. Every launcher takes raw
// device pointers and sizes, works on the given stream, returns before the work is done, does
// nothing for an empty batch, and throws std::runtime_error if a launch is refused.
//
// Matrices with NaN or infinity get NaN results. Behind a matrix's own rows, columns or rank all
// results are 0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace repsim_fast {

// Matrices (B, m, n), strides in elements; the counts say how much of each counts, null: all of it.
struct SvdSource {
  const void* a;
  bool wide;  // double instead of float, also in all results
  int64_t batch, rows, columns;
  int64_t batch_stride, row_stride, column_stride;
  const int64_t* row_counts;     // (B,) or null
  const int64_t* column_counts;  // (B,) or null

  int64_t rank() const { return std::min(rows, columns); }
};

// Bytes of shared memory that a block asks for; a GPU grants 99 to 227 KiB.
size_t singular_values_shared_bytes(const SvdSource& source);
size_t jacobi_shared_bytes(const SvdSource& source);

// Values (B, rank) by bidiagonalisation and bisection (math/sturm.h), or their sums norms (B,);
// the other is null.
void launch_singular_values(const SvdSource& source, void* values, void* norms, void* stream);

// Factors by one-sided Jacobi (math/jacobi.h). unfinished[b] = 1 if matrix b was not done after
// that many sweeps, else 0.
struct JacobiOutputs {
  void *u, *s, *vh;     // (B, m, rank), (B, rank), (B, rank, n)
  int32_t* unfinished;  // (B,)
};
void launch_jacobi(const SvdSource& source, const JacobiOutputs& outputs, int maximum_sweeps,
                   void* stream);

// For a vendor library: dense (B, m, n) = the matrices without gaps, zero behind the counts; all
// zero, and invalid[b] = 1, where one is not finite.
void launch_gather_finite(const SvdSource& source, void* dense, int32_t* invalid, void* stream);

}  // namespace repsim_fast
