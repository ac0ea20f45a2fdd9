#include "cpu/norm/batch_norm_relu_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/compiler.h"
#include "cpu/simd_level.h"

namespace repsim_fast {

static_assert(std::endian::native == std::endian::little, "pairs of bfloat16 are halves of words");

namespace norm_baseline {
#define REPSIM_VECTOR_BYTES 16
#include "cpu/norm/batch_norm_relu_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace norm_baseline

#if REPSIM_X86

REPSIM_TARGET_BEGIN("avx2,fma")
namespace norm_avx2 {
#define REPSIM_VECTOR_BYTES 32
#include "cpu/norm/batch_norm_relu_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace norm_avx2
REPSIM_TARGET_END

REPSIM_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace norm_avx512 {
#define REPSIM_VECTOR_BYTES 64
#include "cpu/norm/batch_norm_relu_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace norm_avx512
REPSIM_TARGET_END

#endif  // REPSIM_X86

template <typename T>
const BatchNormReluKernels<T>& batch_norm_relu_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512) return norm_avx512::kBatchNormReluKernels<T>;
  if (simd_level() >= SimdLevel::kAvx2) return norm_avx2::kBatchNormReluKernels<T>;
#endif
  return norm_baseline::kBatchNormReluKernels<T>;
}

template const BatchNormReluKernels<float>& batch_norm_relu_kernels<float>();
template const BatchNormReluKernels<Bfloat16>& batch_norm_relu_kernels<Bfloat16>();

}  // namespace repsim_fast
