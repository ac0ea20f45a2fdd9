// Version 2 of the Gram: one pass, each thread waits for the vectors that it copies.
#include <cstring>
#include <stdexcept>

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

template <typename In, int kTile>
void launch_tile(const SinglePassArguments& arguments, void* stream) {
  using Strips = PlainStrips<SinglePass<In, BFloat16, kTile>>;
  launch("gram_through_registers", single_pass_kernel<Strips>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = Strips::Pass::kThreads,
          .shared_bytes = sizeof(SinglePassShared<Strips>),
          .stream = stream},
         Strips{static_cast<const In*>(arguments.x), arguments.row_stride}, arguments.n,
         arguments.p, arguments.centre, static_cast<float*>(arguments.gram));
}

template <typename In>
void launch_type(const SinglePassArguments& arguments, void* stream) {
  switch (arguments.tile) {
    case 16:
      return launch_tile<In, 16>(arguments, stream);
    case 32:
      return launch_tile<In, 32>(arguments, stream);
    default:
      return launch_tile<In, 64>(arguments, stream);
  }
}

}  // namespace

void launch_gram_through_registers(const SinglePassArguments& arguments, void* stream) {
  if (arguments.operand_type != ElementType::kBFloat16) {
    throw std::invalid_argument("gram_through_registers: expected bfloat16 operands");
  }
  if (arguments.x_type == ElementType::kFloat32) {
    launch_type<float>(arguments, stream);
  } else {
    launch_type<BFloat16>(arguments, stream);
  }
  launch_sum_splits({.gram = arguments.gram,
                     .wide = false,
                     .entries = kSinglePassTiles * arguments.tile * arguments.tile,
                     .splits = arguments.splits},
                    stream);
}

}  // namespace repsim_fast::study
