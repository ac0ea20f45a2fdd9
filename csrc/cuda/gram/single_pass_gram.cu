#include <stdexcept>
#include <type_traits>

#include "cuda/gram/bulk_strips.cuh"
#include "cuda/gram/single_pass.cuh"

namespace repsim_fast {
namespace {

template <typename Strips>
void single_pass(const SinglePassArguments& arguments, const Strips& strips, void* stream) {
  using Pass = typename Strips::Pass;
  static_assert(sizeof(SinglePassShared<Strips>) <=
                single_pass_shared_bytes(Pass::kTile, sizeof(typename Pass::In),
                                         sizeof(typename Pass::Operand)));
  launch("single_pass", single_pass_kernel<Strips>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = Strips::Pass::kThreads,
          .shared_bytes = sizeof(SinglePassShared<Strips>),
          .stream = stream},
         strips, arguments.n, arguments.p, arguments.centre, static_cast<float*>(arguments.gram));
}

template <typename In, typename Operand, int kTile>
void single_pass(const SinglePassArguments& arguments, void* stream) {
  using Pass = SinglePass<In, Operand, kTile>;
  if (arguments.copies == StripCopies::kBulk) {
    if (!copies_in_bulk(single_pass_kernel<BulkStrips<Pass>>)) {
      throw std::runtime_error("single_pass: bulk copies need code compiled for sm_90 or later");
    }
    return single_pass(arguments, BulkStrips<Pass>::of(arguments), stream);
  }
  const auto* x = static_cast<const In*>(arguments.x);
  single_pass(arguments, AsyncStrips<Pass>{x, arguments.row_stride}, stream);
}

template <typename In, typename Operand>
void single_pass_of_tile(const SinglePassArguments& arguments, void* stream) {
  switch (arguments.tile) {
    case 16:
      return single_pass<In, Operand, 16>(arguments, stream);
    case 32:
      return single_pass<In, Operand, 32>(arguments, stream);
    case 64:
      if constexpr (!std::is_same_v<Operand, float>) {
        return single_pass<In, Operand, 64>(arguments, stream);
      }
      [[fallthrough]];
    default:
      throw std::invalid_argument("single_pass: tile must be 16 or 32, or 64 for tf32, bfloat16");
  }
}

void single_pass_of_types(const SinglePassArguments& arguments, void* stream) {
  if (arguments.x_type == ElementType::kFloat32) {
    switch (arguments.operand_type) {
      case ElementType::kFloat32:
        return single_pass_of_tile<float, float>(arguments, stream);
      case ElementType::kTf32:
        return single_pass_of_tile<float, Tf32>(arguments, stream);
      case ElementType::kBFloat16:
        return single_pass_of_tile<float, BFloat16>(arguments, stream);
      default:
        break;
    }
  } else if (arguments.operand_type == ElementType::kBFloat16) {
    if (arguments.x_type == ElementType::kFloat16) {
      return single_pass_of_tile<Half, BFloat16>(arguments, stream);
    }
    if (arguments.x_type == ElementType::kBFloat16) {
      return single_pass_of_tile<BFloat16, BFloat16>(arguments, stream);
    }
  }
  throw std::invalid_argument("single_pass: no such operand type for these features");
}

}  // namespace

// Of one kernel as of all: they were compiled together.
bool bulk_strips_available() {
  return copies_in_bulk(single_pass_kernel<BulkStrips<SinglePass<BFloat16, BFloat16, 16>>>);
}

void launch_single_pass_product(const SinglePassArguments& arguments, void* stream) {
  if (arguments.n == 0) return;
  if (!single_pass_layout(arguments.x, arguments.x_type, arguments.row_stride, 1) ||
      arguments.n > kSinglePassTileRows * arguments.tile) {
    throw std::invalid_argument("single_pass: x does not fit the tile or is not aligned");
  }
  single_pass_of_types(arguments, stream);
  launch_sum_splits({.gram = arguments.gram,
                     .wide = false,
                     .entries = kSinglePassTiles * arguments.tile * arguments.tile,
                     .splits = arguments.splits},
                    stream);
}

}  // namespace repsim_fast
