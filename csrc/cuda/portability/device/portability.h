// The portability layer under nvcc. Include cuda/portability/portability.h instead of this.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdexcept>
#include <string>

#include "cuda/portability/shared_limits.h"

// Asynchronous copies and products by matrix units came with compute capability 8.0. Code for an
// older card (7.5) copies and multiplies without them: the same numbers up to rounding, slowly.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define REPSIM_BEFORE_SM80
#endif

#define REPSIM_PRAGMA(text) _Pragma(#text)
#define REPSIM_UNROLL _Pragma("unroll")
#define REPSIM_UNROLL_BY(count) REPSIM_PRAGMA(unroll count)

namespace repsim_fast {

using Half = __half;
using BFloat16 = __nv_bfloat16;

// ---- launch

struct LaunchShape {
  dim3 grid;
  unsigned threads;  // of a block, a multiple of kWarpSize
  size_t shared_bytes;
  void* stream;  // cudaStream_t
};

inline void check_launch(const char* name, cudaError_t error) {
  if (error == cudaSuccess) return;
  const char* hint = error == cudaErrorNoKernelImageForDevice
                         ? ": this build has no code for the card; `repsim-fast info` says more"
                         : "";
  throw std::runtime_error(std::string("CUDA kernel ") + name + ": " + cudaGetErrorString(error) +
                           hint);
}

inline int current_device(const char* name) {
  int device = 0;
  check_launch(name, cudaGetDevice(&device));
  return device;
}

inline size_t most_shared_bytes(const char* name, int device) {
  int bytes = 0;
  check_launch(name,
               cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<size_t>(bytes);
}

inline void set_shared_limit(const char* name, const void* kernel, size_t bytes) {
  check_launch(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(bytes)));
}

// Starts the kernel and throws std::runtime_error, naming it, if that is refused.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments... arguments) {
  allow_shared_bytes(name, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  kernel<<<shape.grid, shape.threads, shape.shared_bytes,
           static_cast<cudaStream_t>(shape.stream)>>>(static_cast<Parameters>(arguments)...);
  check_launch(name, cudaGetLastError());
}

// ---- shared memory

// The block's shared memory; the launch asks for sizeof(Shared) bytes.
template <typename Shared>
__device__ inline Shared& shared_memory() {
  extern __shared__ __align__(1024) unsigned char block_memory[];
  return *reinterpret_cast<Shared*>(block_memory);
}

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- whole vectors

// 16 aligned bytes to global memory by one instruction, which the compiler may take apart where it
// has the choice.
template <typename Vector>
__device__ inline void store_16(void* to, const Vector& vector) {
  static_assert(sizeof(Vector) == 16 && alignof(Vector) == 16);
  const uint4 words = *reinterpret_cast<const uint4*>(&vector);
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}

// ---- asynchronous copies (sm_80)

// Copies the first `bytes` (0 .. 16) of 16 aligned bytes from global to shared memory and writes
// zeros for the rest. Finished after the wait_copies that covers its group, and then only for this
// thread: other threads need a barrier after that.
__device__ inline void copy_async_16(void* to, const void* from, int bytes) {
#if defined(REPSIM_BEFORE_SM80)
  uint4 words{};
  if (bytes == 16) {
    words = *static_cast<const uint4*>(from);
  } else {
    REPSIM_UNROLL
    for (int i = 0; i < 16; ++i) {
      if (i < bytes) {
        reinterpret_cast<unsigned char*>(&words)[i] = static_cast<const unsigned char*>(from)[i];
      }
    }
  }
  *static_cast<uint4*>(to) = words;
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
#endif
}

// Closes this thread's current group of copies.
__device__ inline void commit_copies() {
#if !defined(REPSIM_BEFORE_SM80)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the kPending newest groups are unfinished.
template <int kPending>
__device__ inline void wait_copies() {
#if !defined(REPSIM_BEFORE_SM80)
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// ---- tile multiply (sm_80; load_matrices sm_75)

// Loads four 8 x 16-byte matrices. Lane l gives the 16-byte aligned shared address of row l % 8 of
// matrix l / 8, and receives the 4-byte word l % 4 of row l / 4 of each matrix.
__device__ inline void load_matrices(uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

// d (16, 8) += a (16, 32 bytes) b (8, 32 bytes)^T by one warp: 16 features of bfloat16 or 8 of
// tf32. a is loaded as row blocks (0, 8) of bytes 0..15, then of bytes 16..31; b as bytes
// 0..15, 16..31. d: lane l holds d[l / 4][2 (l % 4) + {0, 1}], then the same of row l / 4 + 8.
template <typename Operand>
__device__ inline void multiply_tile(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#if defined(REPSIM_BEFORE_SM80)

// sum + the product of one 4-byte word of a and one of b.
template <typename Operand>
__device__ inline float add_product(float sum, uint32_t a, uint32_t b);
template <>
__device__ inline float add_product<BFloat16>(float sum, uint32_t a, uint32_t b) {
  sum = fmaf(__uint_as_float(a << 16), __uint_as_float(b << 16), sum);
  return fmaf(__uint_as_float(a & 0xffff0000u), __uint_as_float(b & 0xffff0000u), sum);
}
template <>
__device__ inline float add_product<Tf32>(float sum, uint32_t a, uint32_t b) {
  return fmaf(__uint_as_float(a & 0xffffe000u), __uint_as_float(b & 0xffffe000u), sum);
}

template <typename Operand>
__device__ inline void multiply_tile(float (&d)[4], const uint32_t (&a)[4],
                                     const uint32_t (&b)[2]) {
  const unsigned lane = threadIdx.x % kWarpSize, row = lane / 4, column = lane % 4 * 2;
  REPSIM_UNROLL
  for (unsigned half = 0; half < 2; ++half) {  // of the 32 bytes
    REPSIM_UNROLL_BY(1)
    for (unsigned word = 0; word < 4; ++word) {
      uint32_t left[2], right[2];
      REPSIM_UNROLL
      for (unsigned i = 0; i < 2; ++i) {
        left[i] = __shfl_sync(kFullWarp, a[half * 2 + i], static_cast<int>(row * 4 + word));
        right[i] = __shfl_sync(kFullWarp, b[half], static_cast<int>((column + i) * 4 + word));
      }
      REPSIM_UNROLL
      for (unsigned e = 0; e < 4; ++e) d[e] = add_product<Operand>(d[e], left[e / 2], right[e % 2]);
    }
  }
}

#else

template <>
__device__ inline void multiply_tile<BFloat16>(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ inline void multiply_tile<Tf32>(float (&d)[4], const uint32_t (&a)[4],
                                           const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

// ---- conversions

// The type that an element is computed in.
__device__ inline double to_math(double value) { return value; }
__device__ inline float to_math(float value) { return value; }
__device__ inline float to_math(Half value) { return __half2float(value); }
__device__ inline float to_math(BFloat16 value) { return __bfloat162float(value); }

// Rounds to nearest; ties to even for bfloat16, away from zero for tf32.
template <typename Out, typename In>
__device__ inline Out convert_to(In value) {
  return static_cast<Out>(value);
}
template <>
__device__ inline BFloat16 convert_to<BFloat16, float>(float value) {
  return __float2bfloat16_rn(value);
}

__device__ inline uint32_t float_bits(float value) { return __float_as_uint(value); }
__device__ inline float bits_float(uint32_t bits) { return __uint_as_float(bits); }

template <>
__device__ inline Tf32 convert_to<Tf32, float>(float value) {
#if defined(REPSIM_BEFORE_SM80)
  const uint32_t rounded = (__float_as_uint(value) + 0x1000u) & 0xffffe000u;
  return {isfinite(value) ? __uint_as_float(rounded) : value};
#else
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return {__uint_as_float(bits)};
#endif
}

}  // namespace repsim_fast
