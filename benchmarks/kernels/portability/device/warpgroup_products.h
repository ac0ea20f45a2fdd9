// Products by warpgroups under nvcc. Include kernels/portability/warpgroup_products.h instead of
// this.
#pragma once

namespace repsim_fast {

// The code that runs must have been compiled for sm_90a, which the build says by REPSIM_SM90A: any
// other has only the traps below.
inline bool warpgroup_products_available() {
#if defined(REPSIM_SM90A)
  int device = 0, major = 0, minor = 0;
  check_launch("warpgroup products", cudaGetDevice(&device));
  check_launch("warpgroup products",
               cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check_launch("warpgroup products",
               cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return major == 9 && minor == 0;
#else
  return false;
#endif
}

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ inline void share_with_units() { __trap(); }
__device__ inline void begin_products() { __trap(); }
template <int kCount>
__device__ inline void multiply_rows(float (&)[kCount], const void*, const void*) {
  __trap();
}
__device__ inline void commit_products() { __trap(); }
template <int kPending>
__device__ inline void wait_products() {
  __trap();
}

#else

__device__ inline void share_with_units() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// What the units are told of rows: their address, 1024 bytes from eight rows to the next eight, and
// that pieces of 16 bytes are swizzled in rows of 128 (PTX ISA, "Matrix descriptor").
__device__ inline uint64_t unit_rows(const void* first) {
  constexpr uint64_t kEightRows = uint64_t{8 * kUnitRowBytes >> 4} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;  // of rows that are swizzled whole
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return (shared_address(first) & 0x3ffff) >> 4 | kUnused | kEightRows | kSwizzle128;
}

// The operands of asm must be written out: %0 to %63 are the thread's sums.
#define REPSIM_SUMS_8(i)                                                                      \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define REPSIM_SUMS_32(i) \
  REPSIM_SUMS_8(i), REPSIM_SUMS_8(i + 8), REPSIM_SUMS_8(i + 16), REPSIM_SUMS_8(i + 24)

__device__ inline void multiply_rows(float (&d)[32], const void* a, const void* b) {
  asm volatile(
      "{ .reg .pred add; setp.ne.b32 add, %34, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, add, 1, 1, 0, 0; }"
      : REPSIM_SUMS_32(0)
      : "l"(unit_rows(a)), "l"(unit_rows(b)), "r"(1)
      : "memory");
}

__device__ inline void multiply_rows(float (&d)[64], const void* a, const void* b) {
  asm volatile(
      "{ .reg .pred add; setp.ne.b32 add, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, 0, 0; }"
      : REPSIM_SUMS_32(0), REPSIM_SUMS_32(32)
      : "l"(unit_rows(a)), "l"(unit_rows(b)), "r"(1)
      : "memory");
}

#undef REPSIM_SUMS_8
#undef REPSIM_SUMS_32

__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int kPending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace repsim_fast
