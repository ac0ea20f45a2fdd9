// Versions 2, 3 and 5 of the Linf step; 4 is the package's kernel.
#include <algorithm>
#include <stdexcept>

#include "cuda/pgd/pgd_rows.cuh"
#include "cuda/portability/portability.h"
#include "kernels/study.cuh"
#include "math/projection.h"

namespace repsim_fast::study {
namespace {

constexpr int kThreads = 256;

// Loads and stores that tell the caches not to keep the line.
template <int kWidth>
__device__ Pack<float, kWidth> load_once(const float* from) {
#if defined(__CUDACC__)
  static_assert(kWidth == 4);
  const float4 v = __ldcs(reinterpret_cast<const float4*>(from));
  return {{v.x, v.y, v.z, v.w}};
#else
  return load_pack<kWidth>(from);
#endif
}

template <int kWidth>
__device__ void store_once(float* to, const Pack<float, kWidth>& pack) {
#if defined(__CUDACC__)
  const auto& v = pack.entry;
  __stcs(reinterpret_cast<float4*>(to), make_float4(v[0], v[1], v[2], v[3]));
#else
  store_pack<kWidth>(to, pack);
#endif
}

// kWidth entries a pack, kPacks packs a thread, all loaded before the first is used.
template <int kWidth, int kPacks, bool kOnce>
__global__ void __launch_bounds__(kThreads) linf_version_kernel(LinfArguments a) {
  using Values = Pack<float, kWidth>;
  const auto load = [](const float* from) {
    if constexpr (kOnce) {
      return load_once<kWidth>(from);
    } else {
      return load_pack<kWidth>(from);
    }
  };
  const int64_t first =
      (int64_t{blockIdx.x} * kPacks * kThreads + static_cast<int64_t>(threadIdx.x)) * kWidth;
  Values adv[kPacks], gradient[kPacks], x[kPacks];
  REPSIM_UNROLL
  for (int k = 0; k < kPacks; ++k) {
    const int64_t at = first + int64_t{k} * kThreads * kWidth;
    if (at >= a.count) continue;
    adv[k] = load(a.adv + at);
    gradient[k] = load(a.gradient + at);
    x[k] = load(a.x + at);
  }
  REPSIM_UNROLL
  for (int k = 0; k < kPacks; ++k) {
    const int64_t at = first + int64_t{k} * kThreads * kWidth;
    if (at >= a.count) continue;
    Values out;
    REPSIM_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      out.entry[e] = linf_entry<float>(adv[k].entry[e], gradient[k].entry[e], x[k].entry[e], a.size,
                                       a.eps, 0.0f, 1.0f);
    }
    if constexpr (kOnce) {
      store_once<kWidth>(a.out + at, out);
    } else {
      store_pack<kWidth>(a.out + at, out);
    }
  }
}

template <int kWidth, int kPacks, bool kOnce>
void launch_version(const LinfArguments& arguments, void* stream) {
  const int64_t blocks = ceil_quotient(arguments.count, int64_t{kThreads} * kPacks * kWidth);
  launch("linf_version", linf_version_kernel<kWidth, kPacks, kOnce>,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .threads = kThreads,
          .shared_bytes = 0,
          .stream = stream},
         arguments);
}

}  // namespace

void launch_linf_version(const LinfArguments& arguments, void* stream) {
  if (arguments.count == 0) return;
  switch (arguments.version) {
    case 2:
      return launch_version<1, 1, false>(arguments, stream);
    case 3:
      return launch_version<4, 1, false>(arguments, stream);
    case 5:
      return launch_version<4, 2, true>(arguments, stream);
    default:
      throw std::invalid_argument("linf_version: there are 2, 3 and 5");
  }
}

}  // namespace repsim_fast::study
