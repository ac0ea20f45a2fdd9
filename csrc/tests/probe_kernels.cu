#include "cuda/portability/bulk_copies.h"
#include "cuda/portability/portability.h"
#include "cuda/portability/warpgroup_products.h"
#include "tests/probe_kernels.cuh"

namespace repsim_fast {
namespace {

constexpr unsigned kSumThreads = 256;

struct SumShared {
  float warp_sums[kSumThreads / kWarpSize];
};

__global__ void __launch_bounds__(kSumThreads) block_sums_kernel(const float* values, float* sums) {
  auto& shared = shared_memory<SumShared>();
  const float sum = warp_sum(values[int64_t{blockIdx.x} * kSumThreads + threadIdx.x]);
  if (threadIdx.x % kWarpSize == 0) shared.warp_sums[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (const float warp : shared.warp_sums) total += warp;
    sums[blockIdx.x] = total;
  }
}

struct CopyShared {
  alignas(16) float values[128];
};

// Each lane copies four values and writes its neighbour's.
enum class CopyFault { kNone, kNoWait, kEarlyReuse };

template <CopyFault kFault>
__global__ void async_copy_kernel(const float* from, float* to) {
  auto& shared = shared_memory<CopyShared>();
  const int mine = static_cast<int>(threadIdx.x) * 4, other = (mine + 4) % 128;
  copy_async_16(shared.values + mine, from + mine, 16);
  commit_copies();
  if (kFault != CopyFault::kNoWait) wait_copies<0>();
  __syncthreads();
  // A second copy into the buffer that the neighbour still has to read.
  if (kFault == CopyFault::kEarlyReuse) copy_async_16(shared.values + mine, from + mine, 16);
  commit_copies();
  __syncwarp();
  for (int i = 0; i < 4; ++i) to[other + i] = shared.values[other + i];
  wait_copies<0>();
}

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

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < kWarpSize) __syncthreads();
}

__global__ void greedy_shared_memory_kernel() { shared_memory<CopyShared>().values[0] = 0; }

template <CopyFault kFault>
void launch_copy(const float* from, float* to, void* stream) {
  launch(
      "async_copy", async_copy_kernel<kFault>,
      {.grid = dim3(1), .threads = kWarpSize, .shared_bytes = sizeof(CopyShared), .stream = stream},
      from, to);
}

}  // namespace

void launch_block_sums(const float* values, int64_t blocks, float* sums, void* stream) {
  if (blocks == 0) return;
  launch("block_sums", block_sums_kernel,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .threads = kSumThreads,
          .shared_bytes = sizeof(SumShared),
          .stream = stream},
         values, sums);
}

void launch_async_copy(const float* from, float* to, void* stream) {
  launch_copy<CopyFault::kNone>(from, to, stream);
}

void launch_async_copy_without_wait(const float* from, float* to, void* stream) {
  launch_copy<CopyFault::kNoWait>(from, to, stream);
}

void launch_early_async_copy(const float* from, float* to, void* stream) {
  launch_copy<CopyFault::kEarlyReuse>(from, to, stream);
}

namespace {

template <BulkFault kFault>
void launch_bulk(const TensorMap& map, int64_t columns, float* to, void* stream) {
  launch("bulk_copy", bulk_copy_kernel<kFault>,
         {.grid = dim3(static_cast<unsigned>((columns + kBoxColumns - 1) / kBoxColumns)),
          .threads = kWarpSize,
          .shared_bytes = sizeof(BulkShared),
          .stream = stream},
         map, to);
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

namespace {

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

void launch_divergent_barrier(void* stream) {
  launch("divergent_barrier", divergent_barrier_kernel,
         {.grid = dim3(1), .threads = 2 * kWarpSize, .shared_bytes = 0, .stream = stream});
}

void launch_greedy_shared_memory(void* stream) {
  launch("greedy_shared_memory", greedy_shared_memory_kernel,
         {.grid = dim3(1), .threads = kWarpSize, .shared_bytes = 16, .stream = stream});
}

}  // namespace repsim_fast
