// The instruction set that the CPU kernels use, chosen once at run time.
#pragma once

#include <vector>

// Whether there are vectors of several widths to choose from.
#if defined(__x86_64__)
#define REPSIM_X86 1
#else
#define REPSIM_X86 0
#endif

namespace repsim_fast {

enum class SimdLevel { kBaseline, kAvx2, kAvx512, kAvx512Vnni, kAmx };

// Levels that this processor has, the lowest first.
std::vector<SimdLevel> simd_levels();

// The best of them, or the one that the environment variable REPSIM_SIMD names, so that tests reach
// every code path on one machine. Throws std::invalid_argument if that is none of them.
SimdLevel simd_level();

const char* simd_level_name(SimdLevel level);

}  // namespace repsim_fast
