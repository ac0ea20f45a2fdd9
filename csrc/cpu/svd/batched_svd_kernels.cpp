#include "cpu/svd/batched_svd_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "cpu/compiler.h"
#include "cpu/simd_level.h"
#include "math/householder.h"
#include "math/jacobi.h"
#include "math/sturm.h"

#if REPSIM_X86
#include <immintrin.h>
#endif

#define REPSIM_INLINE inline __attribute__((always_inline))

namespace repsim_fast {

namespace svd_baseline {
#define REPSIM_VECTOR_BYTES 16
#include "cpu/svd/batched_svd_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace svd_baseline

#if REPSIM_X86

REPSIM_TARGET_BEGIN("avx2,fma")
namespace svd_avx2 {
#define REPSIM_VECTOR_BYTES 32
#include "cpu/svd/batched_svd_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace svd_avx2
REPSIM_TARGET_END

REPSIM_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace svd_avx512 {
#define REPSIM_VECTOR_BYTES 64
#include "cpu/svd/batched_svd_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace svd_avx512
REPSIM_TARGET_END

#endif  // REPSIM_X86

template <typename T>
const SvdKernels<T>& svd_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512) return svd_avx512::kSvdKernels<T>;
  if (simd_level() >= SimdLevel::kAvx2) return svd_avx2::kSvdKernels<T>;
#endif
  return svd_baseline::kSvdKernels<T>;
}

template const SvdKernels<float>& svd_kernels<float>();
template const SvdKernels<double>& svd_kernels<double>();

}  // namespace repsim_fast
