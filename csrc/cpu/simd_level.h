// The instruction set that the CPU kernels use, chosen once at run time.
#pragma once

// Whether there are vectors of several widths to choose from.
#if defined(__x86_64__)
#define REPSIM_X86 1
#else
#define REPSIM_X86 0
#endif

namespace repsim_fast {

enum class SimdLevel { kBaseline, kAvx2, kAvx512, kAvx512Vnni };

// The best level of this processor; the environment variable REPSIM_SIMD (baseline, avx2, avx512,
// avx512_vnni) lowers it, so that tests reach every code path on one machine.
SimdLevel simd_level();

const char* simd_level_name(SimdLevel level);

}  // namespace repsim_fast
