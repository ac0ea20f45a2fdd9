#include "cuda/gram/single_pass.cuh"

namespace repsim_fast {

void launch_single_pass_product(const SinglePassArguments& arguments, void* stream) {
  single_pass<AsyncStrips>(arguments, stream);
}

}  // namespace repsim_fast
