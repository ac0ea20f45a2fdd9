// The portability layer under nvcc. Include cuda/portability/portability.h instead of this.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdexcept>
#include <string>

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
  throw std::runtime_error(std::string("CUDA kernel ") + name + ": " + cudaGetErrorString(error));
}

// Starts the kernel and throws std::runtime_error, naming it, if that is refused.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments... arguments) {
  constexpr size_t kUnraisedSharedBytes = 48 * 1024;  // more is granted only on request
  if (shape.shared_bytes > kUnraisedSharedBytes) {
    check_launch(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(shape.shared_bytes)));
  }
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

// ---- asynchronous copies (sm_80)

// Copies the first `bytes` (0 .. 16) of 16 aligned bytes from global to shared memory and writes
// zeros for the rest. Finished after the wait_copies that covers its group, and then only for this
// thread: other threads need a barrier after that.
__device__ inline void copy_async_16(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
}

// Closes this thread's current group of copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the kPending newest groups are unfinished.
template <int kPending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- tile multiply (sm_80)

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
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return {__uint_as_float(bits)};
}

}  // namespace repsim_fast
