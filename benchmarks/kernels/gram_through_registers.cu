// Version 2 of the Gram: one pass, each thread waits for the vectors that it copies.
#include "cuda/gram/single_pass.cuh"
#include "kernels/study.cuh"

namespace repsim_fast::study {
namespace {

template <typename Pass_>
struct PlainStrips {
  using Pass = Pass_;
  using In = typename Pass::In;
  struct Shared {};

  const In* x;         // (n, p), 16-byte aligned rows
  int64_t row_stride;  // in elements

  static PlainStrips of(const SinglePassArguments& arguments) {
    return {static_cast<const In*>(arguments.x), arguments.row_stride};
  }

  __device__ void begin(Shared&) const {}

  __device__ void stage(Shared&, int64_t, int64_t strip, int64_t n, int64_t p,
                        unsigned char* staged) const {
    if (strip == kNoStrip) return;
    const auto part = Pass::part();
    const int64_t column = strip * Pass::kColumns + part.vector * Pass::kPerVector;
    for (int row = part.first; row < n; row += Pass::kRowsAtOnce) {
      typename Pass::Vector vector;
      const In* source = x + row * row_stride + column;
      if (column + Pass::kPerVector <= p) {
        vector = *reinterpret_cast<const typename Pass::Vector*>(source);
      } else {
        REPSIM_UNROLL
        for (int e = 0; e < Pass::kPerVector; ++e) {
          vector.value[e] = column + e < p ? source[e] : convert_to<In>(0.0f);
        }
      }
      *reinterpret_cast<typename Pass::Vector*>(staged + row * Pass::kStripBytes +
                                                part.vector * 16) = vector;
    }
  }

  __device__ void wait(Shared&, int64_t, int64_t) const {}  // the kernel's barrier is enough
};

}  // namespace

void launch_gram_through_registers(const SinglePassArguments& arguments, void* stream) {
  single_pass<PlainStrips>(arguments, stream);
}

}  // namespace repsim_fast::study
