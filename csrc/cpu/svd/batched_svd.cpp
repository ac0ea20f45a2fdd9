// Batched singular value decomposition on the CPU: one task is a matrix, or as many small ones as a
// vector has lanes (batched_svd_kernels.h); threads take tasks as they become free.
#include "common/batched_svd.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu/svd/batched_svd_kernels.h"
#include "cpu/svd/library_alone.h"
#include "math/jacobi.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

enum class Method { kTogether, kAlone, kLibrary };

// Microseconds a matrix in one thread of a Zen 5 core with AVX-512, random matrices (n, n):
//
//   n                          8    16    32    48    64    96   128   256    512
//   float   values, together  0.2   0.7   3.1   7.5    17    47
//           values, alone     1.7   3.4   7.7    14    22    49    95   870   6100
//           values, LAPACK    3.0   8.6    29    70   130   300   580  3300  27000
//           vectors, together 0.5   2.9    22    74   180   730
//           vectors, LAPACK   7.2    22    83   170   280   930  1600  6300  56000
//   double  values, together  0.7   2.6    11    25    53   130
//           values, alone     2.9   5.6    14    33    50   120   260  2000  16000
//           values, LAPACK    3.4   9.8    33    77   140   340   710  4400  37000
//           vectors, together 1.0   6.9    52   170   420  1600
//           vectors, LAPACK   8.8    28   100   240   620  1200  3000 15000  95000
//
// (LAPACK: MKL through torch, called for one matrix at a time.) Up to these columns matrices go
// together; above, one is decomposed alone (values) or by LAPACK (vectors).
template <typename T>
constexpr int64_t kTogetherColumns = sizeof(T) == 4 ? 64 : 48;

// With half the lanes, AVX2's, vectors by LAPACK catch up earlier. Its time over that together, on
// a Zen 3 core: float 1.08 with 56 columns, 1.03 with 60, 0.87 with 64; double 1.14 with 32, 0.95
// with 40.
template <typename T>
int64_t together_columns(Method single) {
  const bool few_lanes = svd_kernels<T>().lanes * sizeof(T) < 64;
  return single == Method::kLibrary && few_lanes ? (sizeof(T) == 4 ? 60 : 36) : kTogetherColumns<T>;
}

// Interleaved matrices are only worth it while they stay in the L2 cache of common processors.
constexpr int64_t kTogetherBytes = int64_t{1} << 20;

// A group takes the same time however few lanes are filled; at a third, other methods catch up.
constexpr int64_t kLeastFilling = 3;

template <typename T>
bool fits_together(int64_t rows, int64_t columns, Method single) {
  return columns <= together_columns<T>(single) &&
         rows * columns * svd_kernels<T>().lanes * static_cast<int64_t>(sizeof(T)) <=
             kTogetherBytes;
}

// ---- tasks

template <typename T>
class Workspace {
 public:
  T* reserve(int64_t count) {
    if (count > count_) {
      memory_.reset();
      memory_.reset(static_cast<T*>(
          ::operator new(static_cast<size_t>(count) * sizeof(T), std::align_val_t{kAlignment})));
      count_ = count;
    }
    return memory_.get();
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Delete {
    void operator()(T* memory) const { ::operator delete(memory, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<T, Delete> memory_;
  int64_t count_ = 0;
};

// The counted part of every matrix, turned so that rows >= columns.
template <typename T>
struct TallMatrices {
  const MatrixBatch& shape;
  const T* data;
  int64_t batch_stride, row_stride, column_stride;

  TallMatrices(const Tensor& a, const MatrixBatch& matrices)
      : shape(matrices),
        data(static_cast<const T*>(a.const_data_ptr())),
        batch_stride(a.stride(0)),
        row_stride(a.stride(1)),
        column_stride(a.stride(2)) {}

  bool wide(int64_t b) const { return shape.rows_of(b) < shape.columns_of(b); }
  MatrixView<const T> operator[](int64_t b) const {
    const T* start = data + b * batch_stride;
    const int64_t m = shape.rows_of(b), n = shape.columns_of(b);
    if (wide(b)) return {start, n, m, column_stride, row_stride};
    return {start, m, n, row_stride, column_stride};
  }
};

struct Task {
  Method method;
  int64_t first, count;  // of `order`
};

struct Tasks {
  std::vector<int64_t> order;  // matrices
  std::vector<Task> list;
  int64_t work = 0;  // sum of rows * columns^2, times kWorkOfVectors
};

// Work that is worth a thread's start: about 50 us.
constexpr int64_t kWorkOfThread = int64_t{1} << 20;

// Singular vectors take so many times as long as values alone.
constexpr int64_t kWorkOfVectors = 8;

// Matrices that go together are neighbours in size; large ones come first, so that no thread is
// left with one at the end. Empty matrices have no task. `single` is the method for a matrix that
// does not go with others.
template <typename T>
Tasks plan_tasks(const TallMatrices<T>& matrices, Method single) {
  Tasks tasks;
  const int64_t unit = single == Method::kLibrary ? kWorkOfVectors : 1;
  for (int64_t b = 0; b < matrices.shape.batch; ++b) {
    if (matrices.shape.rank_of(b) == 0) continue;
    const MatrixView<const T> a = matrices[b];
    tasks.order.push_back(b);
    tasks.work += unit * a.rows * a.columns * a.columns;
  }
  if (matrices.shape.ragged()) {
    std::stable_sort(tasks.order.begin(), tasks.order.end(), [&](int64_t x, int64_t y) {
      const MatrixView<const T> a = matrices[x], b = matrices[y];
      return std::make_tuple(a.columns, a.rows) > std::make_tuple(b.columns, b.rows);
    });
  }
  const int64_t lanes = svd_kernels<T>().lanes;
  const auto end = static_cast<int64_t>(tasks.order.size());
  for (int64_t first = 0; first < end;) {
    // A group takes the most rows and columns of any of its matrices.
    const int64_t columns = matrices[tasks.order[first]].columns;
    int64_t count = 0, rows = 0;
    while (count < lanes && first + count < end) {
      rows = std::max(rows, matrices[tasks.order[first + count]].rows);
      if (!fits_together<T>(rows, columns, single)) break;
      ++count;
    }
    if (count * kLeastFilling > lanes) {
      tasks.list.push_back({Method::kTogether, first, count});
    } else {
      count = std::max<int64_t>(count, 1);
      for (int64_t i = 0; i < count; ++i) tasks.list.push_back({single, first + i, 1});
    }
    first += count;
  }
  return tasks;
}

// Calls body(task, workspace) for every task, in as many threads as the work is worth.
template <typename T, typename Body>
void run_tasks(const Tasks& tasks, const Body& body) {
  const auto count = static_cast<int64_t>(tasks.list.size());
  const int64_t useful = std::min(count, 1 + tasks.work / kWorkOfThread);
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), useful);
  std::atomic<int64_t> next = 0;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    Workspace<T> workspace;
    for (int64_t task = next++; task < count; task = next++) body(tasks.list[task], workspace);
  });
}

template <typename T>
struct Group {
  std::vector<MatrixView<const T>> matrices;
  int64_t rows = 0, columns = 0;

  Group(const TallMatrices<T>& all, const Tasks& tasks, const Task& task) {
    for (int64_t i = task.first; i < task.first + task.count; ++i) {
      matrices.push_back(all[tasks.order[i]]);
      rows = std::max(rows, matrices.back().rows);
      columns = std::max(columns, matrices.back().columns);
    }
  }
};

// ---- values

// values (B, rank), zero behind each matrix's own rank.
template <typename T>
void singular_values(const Tensor& a, const MatrixBatch& shape, T* values) {
  const TallMatrices<T> matrices(a, shape);
  const SvdKernels<T>& kernels = svd_kernels<T>();
  if (shape.ragged()) std::fill_n(values, shape.batch * shape.rank, T{0});
  const Tasks tasks = plan_tasks(matrices, Method::kAlone);
  run_tasks<T>(tasks, [&](const Task& task, Workspace<T>& workspace) {
    const Group<T> group(matrices, tasks, task);
    if (task.method == Method::kAlone) {
      T* memory = workspace.reserve(kernels.values_alone_workspace(group.rows, group.columns));
      kernels.values_alone(group.matrices[0], memory,
                           values + tasks.order[task.first] * shape.rank);
      return;
    }
    std::vector<T*> outputs;
    for (int64_t i = task.first; i < task.first + task.count; ++i) {
      outputs.push_back(values + tasks.order[i] * shape.rank);
    }
    T* memory = workspace.reserve(kernels.values_together_workspace(group.rows, group.columns));
    kernels.values_together(group.matrices.data(), task.count, memory, outputs.data());
  });
}

Tensor batched_svdvals(const Tensor& a,                         // (B, m, n)
                       const std::optional<Tensor>& rows,       // (B,)
                       const std::optional<Tensor>& columns) {  // (B,)
  const MatrixBatch shape = parse_matrices(a, rows, columns);
  Tensor s = torch::stable::new_empty(a, {shape.batch, shape.rank});
  if (a.scalar_type() == ScalarType::Double) {
    singular_values(a, shape, static_cast<double*>(s.mutable_data_ptr()));
  } else {
    singular_values(a, shape, static_cast<float*>(s.mutable_data_ptr()));
  }
  return s;
}

template <typename T>
void nuclear_norms(const Tensor& a, const MatrixBatch& shape, T* norms) {
  std::vector<T> values(static_cast<size_t>(shape.batch * shape.rank));
  singular_values(a, shape, values.data());
  for (int64_t b = 0; b < shape.batch; ++b) {
    const T* first = values.data() + b * shape.rank;
    norms[b] = static_cast<T>(std::accumulate(first, first + shape.rank, 0.0));
  }
}

Tensor batched_nuclear_norm(const Tensor& a,                         // (B, m, n)
                            const std::optional<Tensor>& rows,       // (B,)
                            const std::optional<Tensor>& columns) {  // (B,)
  const MatrixBatch shape = parse_matrices(a, rows, columns);
  Tensor norms = torch::stable::new_empty(a, {shape.batch});
  if (a.scalar_type() == ScalarType::Double) {
    nuclear_norms(a, shape, static_cast<double*>(norms.mutable_data_ptr()));
  } else {
    nuclear_norms(a, shape, static_cast<float*>(norms.mutable_data_ptr()));
  }
  return norms;
}

// ---- vectors

// Where the factors of matrix b go: of its transpose if it is wide.
template <typename T>
struct FactorOutputs {
  const MatrixBatch& shape;
  T *u, *s, *vh;  // (B, m, rank), (B, rank), (B, rank, n)

  FactorViews<T> operator()(int64_t b, bool wide) const {
    const int64_t m = shape.rows_of(b), n = shape.columns_of(b), k = shape.rank_of(b);
    const MatrixView<T> left{u + b * shape.rows * shape.rank, m, k, shape.rank, 1};
    const MatrixView<T> right{vh + b * shape.rank * shape.columns, n, k, 1, shape.columns};
    return wide ? FactorViews<T>{right, s + b * shape.rank, left}
                : FactorViews<T>{left, s + b * shape.rank, right};
  }
};

template <typename T>
void copy_matrix(const MatrixView<const T>& from, const MatrixView<T>& to) {
  for (int64_t i = 0; i < to.rows; ++i) {
    for (int64_t j = 0; j < to.columns; ++j) to(i, j) = from(i, j);
  }
}

template <typename T>
bool is_finite(const T* entries, int64_t count) {
  int finite = 1;  // of all of them, many at a time
  for (int64_t i = 0; i < count; ++i) finite &= std::isfinite(entries[i]) ? 1 : 0;
  return finite != 0;
}

template <typename T>
MatrixView<const T> view_of(const Tensor& t) {  // (m, n)
  return {static_cast<const T*>(t.const_data_ptr()), t.size(0), t.size(1), t.stride(0),
          t.stride(1)};
}

// By LAPACK, in this thread. False if it did not converge.
template <typename T>
bool svd_by_library(const Tensor& a, const MatrixView<const T>& matrix, const FactorViews<T>& to) {
  Tensor copy = torch::stable::new_empty(a, {matrix.rows, matrix.columns});
  const MatrixView<T> dense{static_cast<T*>(copy.mutable_data_ptr()), matrix.rows, matrix.columns,
                            matrix.columns, 1};
  copy_matrix(matrix, dense);
  if (!is_finite(dense.data, matrix.rows * matrix.columns)) {
    constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
    std::fill_n(to.values, matrix.columns, kNan);
    copy_matrix<T>({&kNan, 0, 0, 0, 0}, to.u);
    copy_matrix<T>({&kNan, 0, 0, 0, 0}, to.v);
    return true;
  }
  try {
    // Square ones turned, as in `all_by_library`: bits must not hang on the number of threads.
    const bool square = matrix.rows == matrix.columns;
    const LibraryAlone alone;
    const Factors factors = library_svd(square ? torch::stable::transpose(copy, 0, 1) : copy);
    const Tensor other = torch::stable::transpose(factors.vh, 0, 1);
    copy_matrix(view_of<T>(square ? other : factors.u), to.u);
    std::copy_n(static_cast<const T*>(factors.s.const_data_ptr()), matrix.columns, to.values);
    copy_matrix(view_of<T>(square ? factors.u : other), to.v);
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

template <typename T>
void decompose(const Tensor& a, const MatrixBatch& shape, const FactorOutputs<T>& outputs) {
  const TallMatrices<T> matrices(a, shape);
  const SvdKernels<T>& kernels = svd_kernels<T>();
  const Tasks tasks = plan_tasks(matrices, Method::kLibrary);
  std::atomic<int64_t> failed = -1;
  run_tasks<T>(tasks, [&](const Task& task, Workspace<T>& workspace) {
    const Group<T> group(matrices, tasks, task);
    std::vector<FactorViews<T>> factors;
    for (int64_t i = task.first; i < task.first + task.count; ++i) {
      const int64_t b = tasks.order[i];
      factors.push_back(outputs(b, matrices.wide(b)));
    }
    if (task.method == Method::kTogether) {
      T* memory = workspace.reserve(kernels.svd_together_workspace(group.rows, group.columns));
      const int64_t which =
          kernels.svd_together(group.matrices.data(), task.count, memory, factors.data());
      if (which >= 0) failed = tasks.order[task.first + which];
    } else if (!svd_by_library(a, group.matrices[0], factors[0])) {
      failed = tasks.order[task.first];
    }
  });
  STD_TORCH_CHECK(failed < 0, "batched_svd: matrix ", failed.load(), " did not converge (within ",
                  kMaximumSweeps, " sweeps, or in LAPACK)");
}

// All matrices by one call of LAPACK; nothing where another way is faster or needed: many threads
// take a matrix each, small ones go together, and LAPACK takes no NaN.
template <typename T>
std::optional<Factors> all_by_library(const Tensor& a, const MatrixBatch& shape) {
  if (torch::stable::get_num_threads() > 1 || shape.ragged() || shape.batch * shape.rank == 0 ||
      fits_together<T>(std::max(shape.rows, shape.columns), shape.rank, Method::kLibrary)) {
    return std::nullopt;
  }
  const Tensor dense = torch::stable::contiguous(a);
  if (!is_finite(static_cast<const T*>(dense.const_data_ptr()), dense.numel())) {
    return std::nullopt;
  }
  try {
    if (shape.rows > shape.columns) {
      const Factors found = library_svd(dense);
      return Factors{torch::stable::contiguous(found.u), found.s,
                     torch::stable::contiguous(found.vh)};
    }
    // LAPACK writes column after column: the factors of the transpose, which has U and V the other
    // way round, lie in memory as those of the matrix are wanted.
    const Factors found = library_svd(torch::stable::transpose(dense, 1, 2));
    return Factors{torch::stable::contiguous(torch::stable::transpose(found.vh, 1, 2)), found.s,
                   torch::stable::contiguous(torch::stable::transpose(found.u, 1, 2))};
  } catch (const std::exception&) {  // one did not converge: one by one it is known which
    return std::nullopt;
  }
}

std::tuple<Tensor, Tensor, Tensor> batched_svd(const Tensor& a,                         // (B, m, n)
                                               const std::optional<Tensor>& rows,       // (B,)
                                               const std::optional<Tensor>& columns) {  // (B,)
  const MatrixBatch shape = parse_matrices(a, rows, columns);
  const bool in_double = a.scalar_type() == ScalarType::Double;
  if (const auto all =
          in_double ? all_by_library<double>(a, shape) : all_by_library<float>(a, shape)) {
    return {all->u, all->s, all->vh};
  }
  Tensor u = torch::stable::new_empty(a, {shape.batch, shape.rows, shape.rank});
  Tensor s = torch::stable::new_empty(a, {shape.batch, shape.rank});
  Tensor vh = torch::stable::new_empty(a, {shape.batch, shape.rank, shape.columns});
  if (shape.ragged()) {
    torch::stable::zero_(u);
    torch::stable::zero_(s);
    torch::stable::zero_(vh);
  }
  const auto run = [&]<typename T>(T) {
    decompose<T>(a, shape,
                 {shape, static_cast<T*>(u.mutable_data_ptr()),
                  static_cast<T*>(s.mutable_data_ptr()), static_cast<T*>(vh.mutable_data_ptr())});
  };
  if (in_double) {
    run(double{});
  } else {
    run(float{});
  }
  return {u, s, vh};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU, m) {
  m.impl("batched_svdvals", TORCH_BOX(&batched_svdvals));
  m.impl("batched_nuclear_norm", TORCH_BOX(&batched_nuclear_norm));
  m.impl("batched_svd", TORCH_BOX(&batched_svd));
}

}  // namespace repsim_fast
