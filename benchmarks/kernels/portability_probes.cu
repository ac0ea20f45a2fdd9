#include <stdexcept>

#include "cuda/portability/portability.h"
#include "kernels/portability/bulk_copies.h"
#include "kernels/portability/warpgroup_products.h"
#include "kernels/portability_probes.cuh"

namespace repsim_fast::study {
namespace {

constexpr int kBoxRows = 4, kBoxColumns = 32;

struct BulkShared {
  alignas(128) float values[kBoxRows * kBoxColumns];
  CopyBarrier arrived;
};

// Each block copies the rectangle of its 32 columns twice, and writes it once.
template <BulkFault kFault>
__global__ void bulk_copy_kernel(const __grid_constant__ TensorMap map,
                                 float* to) {  // (gridDim.x, kBoxRows, kBoxColumns)
  auto& shared = shared_memory<BulkShared>();
  const auto copy = [&](int64_t bytes) {
    expect_bytes(shared.arrived, bytes);
    copy_rectangle(shared.values, map, 0, int64_t{blockIdx.x} * kBoxColumns, shared.arrived);
  };
  constexpr int64_t kBytes = sizeof(shared.values);
  if (threadIdx.x == 0) {
    init_barrier(shared.arrived);
    copy(kFault == BulkFault::kTooFewBytes ? kBytes - 16 : kBytes);
    if (kFault == BulkFault::kNoPhase) copy(kBytes);
  }
  __syncthreads();
  if (kFault != BulkFault::kNoWait) wait_phase(shared.arrived, 0);
  if (kFault != BulkFault::kNoWait) __syncthreads();  // all know of phase 0 before phase 1 begins
  if (threadIdx.x == 0 && kFault != BulkFault::kNoWait) copy(kBytes);
  if (kFault == BulkFault::kNone) wait_phase(shared.arrived, 1);
  for (unsigned i = threadIdx.x; i < kBoxRows * kBoxColumns; i += kWarpSize) {
    to[blockIdx.x * kBoxRows * kBoxColumns + i] = shared.values[i];
  }
  if (kFault == BulkFault::kTooLate) wait_phase(shared.arrived, 1);
}

constexpr int kProductRows = 192;

struct ProductShared {
  alignas(1024) unsigned char rows[kProductRows * kUnitRowBytes];
};

template <ProductFault kFault>
__global__ void __launch_bounds__(kWarpgroupSize)
    warpgroup_products_kernel(const uint16_t* rows, float* pair, float* single) {
  auto& shared = shared_memory<ProductShared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const auto row = [&](int number) { return shared.rows + number * kUnitRowBytes; };
  struct alignas(16) Piece {
    uint16_t value[8];
  };
  for (int i = static_cast<int>(threadIdx.x); i < kProductRows * 8; i += kWarpgroupSize) {
    *reinterpret_cast<Piece*>(shared.rows + swizzled(i / 8, i % 8 * 16)) =
        reinterpret_cast<const Piece*>(rows)[i];
  }
  share_with_units();
  __syncthreads();

  float sums[64] = {}, fewer[32] = {};
  if (kFault != ProductFault::kNoBegin) begin_products();
  REPSIM_UNROLL
  for (int byte = 0; byte < kUnitRowBytes; byte += 32) {
    multiply_rows(sums, row(0) + byte, row(64) + byte);
    multiply_rows(fewer, row(0) + byte, row(64) + byte);
  }
  commit_products();
  if (kFault == ProductFault::kTooEarly) *reinterpret_cast<uint16_t*>(row(0)) += 1;
  if (kFault != ProductFault::kNoWait) wait_products<0>();
  REPSIM_UNROLL
  for (int i = 0; i < 64; ++i) {
    const int at = warp * 16 + i / 2 % 2 * 8 + lane / 4, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    pair[at * 128 + column] = sums[i];
    if (i < 32) single[at * 64 + column] = fewer[i];
  }
  if (kFault == ProductFault::kNoWait) wait_products<0>();
  if (kFault == ProductFault::kUnfinished) {
    begin_products();
    multiply_rows(sums, row(0), row(64));
    commit_products();
  }
}

template <BulkFault kFault>
void launch_bulk(const TensorMap& map, int64_t columns, float* to, void* stream) {
  launch("bulk_copy", bulk_copy_kernel<kFault>,
         {.grid = dim3(static_cast<unsigned>((columns + kBoxColumns - 1) / kBoxColumns)),
          .threads = kWarpSize,
          .shared_bytes = sizeof(BulkShared),
          .stream = stream},
         map, to);
}

template <ProductFault kFault>
void launch_products(const uint16_t* rows, float* pair, float* single, void* stream) {
  launch("warpgroup_products", warpgroup_products_kernel<kFault>,
         {.grid = dim3(1),
          .threads = kWarpgroupSize,
          .shared_bytes = sizeof(ProductShared),
          .stream = stream},
         rows, pair, single);
}

}  // namespace

void launch_bulk_copy(const float* matrix, int64_t rows, int64_t columns, int64_t row_stride,
                      BulkFault fault, float* to, void* stream) {
  const TensorMap map = make_tensor_map({.matrix = matrix,
                                         .element_bytes = sizeof(float),
                                         .rows = rows,
                                         .columns = columns,
                                         .row_bytes = row_stride * int64_t{sizeof(float)},
                                         .box_rows = kBoxRows,
                                         .box_columns = kBoxColumns});
  switch (fault) {
    case BulkFault::kNone:
      return launch_bulk<BulkFault::kNone>(map, columns, to, stream);
    case BulkFault::kNoWait:
      return launch_bulk<BulkFault::kNoWait>(map, columns, to, stream);
    case BulkFault::kTooLate:
      return launch_bulk<BulkFault::kTooLate>(map, columns, to, stream);
    case BulkFault::kTooFewBytes:
      return launch_bulk<BulkFault::kTooFewBytes>(map, columns, to, stream);
    case BulkFault::kNoPhase:
      return launch_bulk<BulkFault::kNoPhase>(map, columns, to, stream);
  }
}

// Planted faults exist on the runner alone: what a GPU makes of them is anybody's guess, and ptxas
// sees them.
void launch_warpgroup_products(const uint16_t* rows, ProductFault fault, float* pair, float* single,
                               void* stream) {
  switch (fault) {
    case ProductFault::kNone:
      return launch_products<ProductFault::kNone>(rows, pair, single, stream);
#if !defined(__CUDACC__)
    case ProductFault::kNoBegin:
      return launch_products<ProductFault::kNoBegin>(rows, pair, single, stream);
    case ProductFault::kNoWait:
      return launch_products<ProductFault::kNoWait>(rows, pair, single, stream);
    case ProductFault::kTooEarly:
      return launch_products<ProductFault::kTooEarly>(rows, pair, single, stream);
    case ProductFault::kUnfinished:
      return launch_products<ProductFault::kUnfinished>(rows, pair, single, stream);
#else
    default:
      throw std::invalid_argument("warpgroup_products: faults are for the runner");
#endif
  }
}

}  // namespace repsim_fast::study
