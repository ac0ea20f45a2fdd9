#include "cpu/pgd/pgd_kernels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cpu/compiler.h"
#include "cpu/simd_level.h"

#if REPSIM_X86
#include <immintrin.h>
#endif

namespace repsim_fast {

namespace pgd_baseline {
#define REPSIM_VECTOR_BYTES 16
#include "cpu/pgd/pgd_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace pgd_baseline

#if REPSIM_X86

REPSIM_TARGET_BEGIN("avx2,fma")
namespace pgd_avx2 {
#define REPSIM_VECTOR_BYTES 32
#include "cpu/pgd/pgd_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace pgd_avx2
REPSIM_TARGET_END

REPSIM_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace pgd_avx512 {
#define REPSIM_VECTOR_BYTES 64
#include "cpu/pgd/pgd_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace pgd_avx512
REPSIM_TARGET_END

#endif  // REPSIM_X86

template <typename T>
const PgdKernels<T>& pgd_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512) return pgd_avx512::kPgdKernels<T>;
  if (simd_level() >= SimdLevel::kAvx2) return pgd_avx2::kPgdKernels<T>;
#endif
  return pgd_baseline::kPgdKernels<T>;
}

template const PgdKernels<float>& pgd_kernels<float>();
template const PgdKernels<double>& pgd_kernels<double>();

}  // namespace repsim_fast
