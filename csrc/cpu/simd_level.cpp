#include "cpu/simd_level.h"

#include <cstdlib>
#include <cstring>

namespace repsim_fast {
namespace {

constexpr SimdLevel kLevels[] = {SimdLevel::kBaseline, SimdLevel::kAvx2, SimdLevel::kAvx512,
                                 SimdLevel::kAvx512Vnni};

SimdLevel hardware_level() {
#if REPSIM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512vnni")) return SimdLevel::kAvx512Vnni;
  if (avx512) return SimdLevel::kAvx512;
  if (avx2) return SimdLevel::kAvx2;
#endif
  return SimdLevel::kBaseline;
}

SimdLevel choose_level() {
  const SimdLevel hardware = hardware_level();
  const char* wanted = std::getenv("REPSIM_SIMD");
  if (wanted == nullptr) return hardware;
  for (SimdLevel level : kLevels) {
    if (std::strcmp(wanted, simd_level_name(level)) == 0) {
      return level < hardware ? level : hardware;
    }
  }
  return hardware;
}

}  // namespace

SimdLevel simd_level() {
  static const SimdLevel level = choose_level();
  return level;
}

const char* simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kAvx512Vnni:
      return "avx512_vnni";
    case SimdLevel::kAvx512:
      return "avx512";
    case SimdLevel::kAvx2:
      return "avx2";
    case SimdLevel::kBaseline:
      break;
  }
  return "baseline";
}

}  // namespace repsim_fast
