#include "cpu/simd_level.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace repsim_fast {
namespace {

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
  const char* variable = std::getenv("REPSIM_SIMD");
  const std::string wanted = variable == nullptr ? "" : variable;
  if (wanted.empty()) return hardware_level();
  std::string names;
  for (const SimdLevel level : simd_levels()) {
    if (wanted == simd_level_name(level)) return level;
    names += (names.empty() ? "" : ", ") + std::string(simd_level_name(level));
  }
  throw std::invalid_argument("REPSIM_SIMD: expected a level that this processor has (" + names +
                              "), got " + wanted);
}

}  // namespace

std::vector<SimdLevel> simd_levels() {
  std::vector<SimdLevel> levels;
  for (const SimdLevel level :
       {SimdLevel::kBaseline, SimdLevel::kAvx2, SimdLevel::kAvx512, SimdLevel::kAvx512Vnni}) {
    if (level <= hardware_level()) levels.push_back(level);
  }
  return levels;
}

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
