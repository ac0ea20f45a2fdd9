// Bulk copies under nvcc. Include kernels/portability/bulk_copies.h instead of this.
#pragma once

#include <cuda.h>

namespace repsim_fast {

struct TensorMap {
  CUtensorMap map;
};

inline TensorMap make_tensor_map(const RectangleLayout& layout) {
  check_layout(layout);
  // Asked for at run time, so that the extension needs no link to the driver's library.
  void* symbol = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kSinceCuda = 12000;
  check_launch("tensor map",
               cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, kSinceCuda,
                                                cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) {
    throw std::runtime_error("tensor map: the driver is too old for bulk copies");
  }
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(symbol);

  // Innermost dimension first. Only zeros and sizes matter: integers stand for every type.
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(layout.columns),
                              static_cast<cuuint64_t>(layout.rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(layout.row_bytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(layout.box_columns),
                            static_cast<cuuint32_t>(layout.box_rows)};
  const cuuint32_t element_strides[] = {1, 1};
  TensorMap result{};
  const CUresult status = encode(
      &result.map,
      layout.element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16 : CU_TENSOR_MAP_DATA_TYPE_UINT32,
      2, const_cast<void*>(layout.matrix), sizes, strides, box, element_strides,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw std::runtime_error("tensor map: the driver refused it, error " + std::to_string(status));
  }
  return result;
}

// The code that runs must have been compiled for sm_90: an older one, translated by the driver for
// a newer device, only has the trap below.
template <typename... Parameters>
bool copies_in_bulk(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes{};
  check_launch("bulk copies", cudaFuncGetAttributes(&attributes, kernel));
  return attributes.ptxVersion >= 90;
}

struct alignas(8) CopyBarrier {
  uint64_t state;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900

__device__ inline void init_barrier(CopyBarrier&) { __trap(); }
__device__ inline void expect_bytes(CopyBarrier&, int64_t) { __trap(); }
__device__ inline void copy_rectangle(void*, const TensorMap&, int64_t, int64_t, CopyBarrier&) {
  __trap();
}
__device__ inline void wait_phase(CopyBarrier&, unsigned) { __trap(); }

#else

__device__ inline void init_barrier(CopyBarrier& barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barrier)) : "memory");
  // The copy engine must see it, too.
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void expect_bytes(CopyBarrier& barrier, int64_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
      "r"(static_cast<uint32_t>(bytes))
      : "memory");
}

__device__ inline void copy_rectangle(void* to, const TensorMap& map, int64_t row, int64_t column,
                                      CopyBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
      "l"(&map.map), "r"(static_cast<int32_t>(column)), "r"(static_cast<int32_t>(row)),
      "r"(shared_address(&barrier))
      : "memory");
}

__device__ inline void wait_phase(CopyBarrier& barrier, unsigned parity) {
  uint32_t complete = 0;
  while (complete == 0) {  // the instruction itself waits a while
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }"
        : "=r"(complete)
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
  }
}

#endif

}  // namespace repsim_fast
