// Version 4 of the Gram: one pass, strips by Hopper's copy engine. One thread asks for all rows of
// a strip at once, and no thread spends instructions on addresses or on columns from p on.
#include <cstdint>
#include <stdexcept>

#include "cuda/gram/single_pass.cuh"
#include "kernels/portability/bulk_copies.h"
#include "kernels/study.cuh"

namespace repsim_fast::study {
namespace {

// A tensor map rather than copies of contiguous bytes: a row's share of a strip is 128 bytes, so
// those would take n instructions a strip, and could not end at an odd p.
template <typename Pass_>
struct BulkStrips {
  using Pass = Pass_;
  struct Shared {
    CopyBarrier arrived[Pass::kStages];
  };

  TensorMap x;  // (n, p), in rectangles of all rows and one strip

  static BulkStrips of(const SinglePassArguments& arguments) {
    return {make_tensor_map({.matrix = arguments.x,
                             .element_bytes = sizeof(typename Pass::In),
                             .rows = arguments.n,
                             .columns = arguments.p,
                             .row_bytes = arguments.row_stride * int64_t{sizeof(typename Pass::In)},
                             .box_rows = arguments.n,
                             .box_columns = Pass::kColumns})};
  }

  __device__ void begin(Shared& shared) const {
    if (threadIdx.x == 0) {
      for (CopyBarrier& barrier : shared.arrived) init_barrier(barrier);
    }
    __syncthreads();
  }

  __device__ void stage(Shared& shared, int64_t s, int64_t strip, int64_t n, int64_t,
                        unsigned char* staged) const {
    if (strip == kNoStrip || threadIdx.x != 0) return;
    CopyBarrier& barrier = shared.arrived[s % Pass::kStages];
    expect_bytes(barrier, n * Pass::kStripBytes);
    copy_rectangle(staged, x, 0, strip * Pass::kColumns, barrier);
  }

  __device__ void wait(Shared& shared, int64_t s, int64_t mine) const {
    if (s < mine) wait_phase(shared.arrived[s % Pass::kStages], s / Pass::kStages % 2);
  }
};

}  // namespace

// Of one kernel as of all: they were compiled together.
bool bulk_copies_available() {
  return copies_in_bulk(single_pass_kernel<BulkStrips<SinglePass<BFloat16, BFloat16, 16>>>);
}

void launch_gram_bulk_copies(const SinglePassArguments& arguments, void* stream) {
  if (!bulk_copies_available()) {
    throw std::runtime_error("gram_bulk_copies: needs code compiled for sm_90 or later");
  }
  single_pass<BulkStrips>(arguments, stream);
}

}  // namespace repsim_fast::study
