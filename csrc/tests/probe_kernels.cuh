// Small kernels that show what the runner finds: right ones, and ones with a planted fault.
#pragma once

#include <cstdint>

namespace repsim_fast {

// sums[b] = sum of values[b * 256 .. b * 256 + 256), by warp shuffles, shared memory and a barrier.
void launch_block_sums(const float* values, int64_t blocks, float* sums, void* stream);

// One word of the portability layer each, over one warp: see probe_kernels.cu.
void launch_async_copy(const float* from, float* to, void* stream);               // (128,)
void launch_async_copy_without_wait(const float* from, float* to, void* stream);  // (128,)
void launch_early_async_copy(const float* from, float* to, void* stream);         // (128,)

// Bulk copies of rectangles of 4 rows and 32 columns, out of a matrix of any size.
enum class BulkFault {
  kNone,
  kNoWait,       // reads before the copy is complete, and ends before it
  kTooLate,      // reads while the buffer is filled again
  kTooFewBytes,  // copies more than it announced
  kNoPhase,      // announces a phase while another one is incomplete
};
void launch_bulk_copy(const float* matrix,  // (rows, columns)
                      int64_t rows, int64_t columns, int64_t row_stride, BulkFault fault,
                      float* to,  // (rectangles, 4, 32)
                      void* stream);

// Products by a warpgroup: of the first 64 rows with the other 128, and with the first 64 of those.
enum class ProductFault {
  kNone,
  kNoBegin,     // multiplies without begin_products
  kNoWait,      // reads sums before they are there
  kTooEarly,    // writes operands that are being multiplied
  kUnfinished,  // ends before the products do
};
void launch_warpgroup_products(const uint16_t* rows,  // (192, 64) bfloat16, 16-byte aligned
                               ProductFault fault,
                               float* pair,    // (64, 128)
                               float* single,  // (64, 64)
                               void* stream);

// Only half of the block reaches the barrier.
void launch_divergent_barrier(void* stream);
// Uses more shared memory than its launch asks for.
void launch_greedy_shared_memory(void* stream);

}  // namespace repsim_fast
