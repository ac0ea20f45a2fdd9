// Small kernels that show what the runner finds of the study's own words: right ones, and ones with
// a planted fault.
#pragma once

#include <cstdint>

namespace repsim_fast::study {

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

}  // namespace repsim_fast::study
