#include "cpu/simd_level.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if REPSIM_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace repsim_fast {
namespace {

#if REPSIM_X86
// Tiles of bfloat16 that the processor has and the system lets this process use, which has to ask:
// their 8 KiB would be saved at every switch otherwise.
bool has_amx() {
#if defined(__linux__)
  uint32_t eax, ebx, ecx, edx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr uint32_t kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((edx & kAmxBf16) == 0 || (edx & kAmxTile) == 0) return false;
  constexpr uint32_t kAvx512Bf16 = 1u << 5;
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0 || (eax & kAvx512Bf16) == 0)
    return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(2)
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

SimdLevel find_hardware_level() {
#if REPSIM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni && has_amx()) return SimdLevel::kAmx;
  if (vnni) return SimdLevel::kAvx512Vnni;
  if (avx512) return SimdLevel::kAvx512;
  if (avx2) return SimdLevel::kAvx2;
#endif
  return SimdLevel::kBaseline;
}

SimdLevel hardware_level() {
  static const SimdLevel level = find_hardware_level();
  return level;
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
  for (const SimdLevel level : {SimdLevel::kBaseline, SimdLevel::kAvx2, SimdLevel::kAvx512,
                                SimdLevel::kAvx512Vnni, SimdLevel::kAmx}) {
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
    case SimdLevel::kAmx:
      return "amx";
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
