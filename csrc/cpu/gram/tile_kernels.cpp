#include "cpu/gram/tile_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "cpu/compiler.h"
#include "cpu/simd_level.h"

namespace repsim_fast {

namespace baseline {
#define REPSIM_VECTOR_BYTES 16
#include "cpu/gram/tile_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace baseline

#if REPSIM_X86

REPSIM_TARGET_BEGIN("avx2,fma")
namespace avx2 {
#define REPSIM_VECTOR_BYTES 32
#include "cpu/gram/tile_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace avx2
REPSIM_TARGET_END

REPSIM_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace avx512 {
#define REPSIM_VECTOR_BYTES 64
#include "cpu/gram/tile_kernels_body.h"
#undef REPSIM_VECTOR_BYTES
}  // namespace avx512
REPSIM_TARGET_END

#endif  // REPSIM_X86

template <typename T>
const TileKernels<T>& tile_kernels() {
#if REPSIM_X86
  if (simd_level() >= SimdLevel::kAvx512) return avx512::kKernels<T>;
  if (simd_level() >= SimdLevel::kAvx2) return avx2::kKernels<T>;
#endif
  return baseline::kKernels<T>;
}

template const TileKernels<float>& tile_kernels<float>();
template const TileKernels<double>& tile_kernels<double>();

}  // namespace repsim_fast
