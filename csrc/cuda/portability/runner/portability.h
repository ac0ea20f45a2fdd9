// The portability layer on the CPU, for the tests. Include cuda/portability/portability.h instead.
//
// What the words share is one barrier for a block and one for a warp, which an engine provides
// (tests/runner_fibres.cpp, tests/runner_threads.cpp); everything else is built on these here.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeindex>
#include <vector>

#include "cuda/portability/shared_limits.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __grid_constant__
#define REPSIM_UNROLL
#define REPSIM_UNROLL_BY(count)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline constinit thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace repsim_fast {

struct LaunchShape {
  dim3 grid;
  unsigned threads;  // of a block, a multiple of kWarpSize
  size_t shared_bytes;
  void* stream;  // unused
};

namespace runner {

// ---- provided by the engine that is linked in

// Runs the body once for every thread of every block; blocks one after another, in grid order.
void run(const char* name, const LaunchShape& shape, const std::function<void()>& body);
void sync_block();
void sync_warp();
// Lets other threads go on until the condition holds, which any thread may evaluate.
void wait_until(const std::function<bool()>& condition);

// What one CUDA thread owns in the runner.
struct PendingCopy {
  void* to;
  const void* from;
  int bytes;
};

struct WarpMailbox {
  // Two turns, so that one barrier an exchange is enough: a lane can only come to write a turn
  // again after all lanes have passed the barrier of the turn between.
  alignas(16) std::byte slot[2][kWarpSize][32];
};

// What words of another header keep of a thread or of a block (the kernel study has such).
struct Extension {
  virtual ~Extension() = default;
  // Throws when the thread, or the block, ends with something unfinished.
  virtual void check_end(const char* name) const = 0;
};

class Extensions {
 public:
  template <typename T>
  T& get() {
    auto& kept = kept_[typeid(T)];
    if (kept == nullptr) kept = std::make_unique<T>();
    return static_cast<T&>(*kept);
  }
  void check_end(const char* name) const {
    for (const auto& [type, kept] : kept_) kept->check_end(name);
  }
  void clear() { kept_.clear(); }

 private:
  std::map<std::type_index, std::unique_ptr<Extension>> kept_;
};

// What the threads of a block share beside their shared memory.
struct BlockState {
  std::mutex mutex;  // of the extensions
  Extensions extensions;
};

struct ThreadState {
  std::byte* shared = nullptr;
  size_t shared_bytes = 0;
  WarpMailbox* mailbox = nullptr;
  BlockState* block = nullptr;
  unsigned turn = 0;
  // Oldest first, the last one still open.
  std::vector<std::vector<PendingCopy>> copy_groups;
  Extensions extensions;
};

inline constinit thread_local ThreadState* this_thread = nullptr;

// To be called by the engine around the body of each thread.
inline void begin_thread(ThreadState& state) {
  state.turn = 0;
  state.copy_groups.assign(1, {});
  state.extensions.clear();
}
inline void end_thread(const char* name, const ThreadState& state) {
  for (const auto& group : state.copy_groups) {
    if (!group.empty()) {
      throw std::logic_error(std::string(name) + ": a thread ended with unfinished async copies");
    }
  }
  state.extensions.check_end(name);
}

// To be called by the engine after the last thread of each block.
inline void end_block(const char* name, BlockState& state) {
  state.extensions.check_end(name);
  state.extensions.clear();
}

inline unsigned lane() { return threadIdx.x % kWarpSize; }

// Shows each lane's value to the whole warp; all lanes take part.
template <typename T>
struct WarpView {
  const std::byte (*slots)[32];
  T operator[](unsigned lane) const {
    T value;
    std::memcpy(&value, slots[lane], sizeof(T));
    return value;
  }
};

template <typename T>
WarpView<T> exchange(const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 32);
  ThreadState& state = *this_thread;
  auto* slots = state.mailbox->slot[state.turn++ % 2];
  std::memcpy(slots[lane()], &value, sizeof(T));
  sync_warp();
  return {slots};
}

}  // namespace runner

// ---- launch

namespace runner {

// Of every kernel for which it has been set, a state of the process as on a GPU.
class SharedLimits {
 public:
  void set(const void* kernel, size_t bytes) {
    const std::lock_guard lock(mutex_);
    limits_[kernel] = bytes;
  }
  size_t of(const void* kernel) {
    const std::lock_guard lock(mutex_);
    const auto found = limits_.find(kernel);
    return found == limits_.end() ? kUnraisedSharedBytes : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<const void*, size_t> limits_;
};

inline SharedLimits& shared_limits() {
  static SharedLimits limits;
  return limits;
}

}  // namespace runner

inline int current_device(const char*) { return 0; }
inline size_t most_shared_bytes(const char*, int) { return size_t{227} << 10; }
inline void set_shared_limit(const char*, const void* kernel, size_t bytes) {
  runner::shared_limits().set(kernel, bytes);
}

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments... arguments) {
  const auto* address = reinterpret_cast<const void*>(kernel);
  allow_shared_bytes(name, address, shape.shared_bytes);
  if (shape.shared_bytes > runner::shared_limits().of(address)) {
    throw std::runtime_error(std::string("CUDA kernel ") + name + ": a GPU would refuse " +
                             std::to_string(shape.shared_bytes) +
                             " bytes of shared memory: they are more than the kernel's limit");
  }
  runner::run(name, shape, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

// ---- barriers and shuffles

// Without barriers every kernel races: how tests/sanitize.py shows that a race would be seen.
#if defined(REPSIM_DROP_BARRIERS)
inline void __syncthreads() {}
#else
inline void __syncthreads() { runner::sync_block(); }
#endif
inline void __syncwarp(unsigned = kFullWarp) { runner::sync_warp(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return runner::exchange(value)[runner::lane() ^ mask];
}
template <typename T>
T __shfl_sync(unsigned, T value, unsigned source) {
  return runner::exchange(value)[source % kWarpSize];
}

// ---- shared memory

// The engine fills it with 0xff bytes (NaN in every float type) before each block.
template <typename Shared>
Shared& shared_memory() {
  if (sizeof(Shared) > runner::this_thread->shared_bytes) {
    throw std::logic_error("the kernel uses more shared memory than its launch asked for");
  }
  return *reinterpret_cast<Shared*>(runner::this_thread->shared);
}

// ---- whole vectors

template <typename Vector>
void store_16(void* to, const Vector& vector) {
  static_assert(sizeof(Vector) == 16 && alignof(Vector) == 16);
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) {
    throw std::logic_error("store_16: the address is not a multiple of 16 bytes");
  }
  std::memcpy(to, &vector, 16);
}

// ---- asynchronous copies: as early and as late as the hardware may

// The destination is overwritten with 0xff now, for it may be written at once, and gets its data
// only in the wait, for it need not be written before: a kernel that reads too early, or reuses a
// buffer that is still read, computes NaN.
inline void copy_async_16(void* to, const void* from, int bytes) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 ||
      (bytes > 0 && reinterpret_cast<uintptr_t>(from) % 16 != 0)) {
    throw std::logic_error("copy_async_16: an address is not a multiple of 16 bytes");
  }
  if (bytes < 0 || bytes > 16) throw std::logic_error("copy_async_16: not 0 to 16 bytes");
  std::memset(to, 0xff, 16);
  runner::this_thread->copy_groups.back().push_back({to, from, bytes});
}

inline void commit_copies() { runner::this_thread->copy_groups.emplace_back(); }

template <int kPending>
void wait_copies() {
  auto& groups = runner::this_thread->copy_groups;
  while (groups.size() > kPending + 1) {
    for (const runner::PendingCopy& copy : groups.front()) {
      alignas(16) std::byte vector[16] = {};
      std::memcpy(vector, copy.from, static_cast<size_t>(copy.bytes));
      std::memcpy(copy.to, vector, 16);
    }
    groups.erase(groups.begin());
  }
}

// ---- types and conversions

// Not _Float16, which GCC 11 and Clang 14 do not have on every processor.
struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline double to_math(double value) { return value; }
inline float to_math(float value) { return value; }
inline float to_math(Half value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16, size = (value.bits & 0x7fffu) << 13;
  if (size >= 0x7c00u << 13) return std::bit_cast<float>(sign | 0x7f800000u | size);
  // From one exponent's bias to the other's, also of denormal numbers.
  const float scaled = std::bit_cast<float>(size) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}
inline float to_math(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

template <typename Out, typename In>
Out convert_to(In value) {
  return static_cast<Out>(value);
}
template <>
inline Half convert_to<Half, float>(float value) {
  if (std::isnan(value)) return {0x7fff};
  const int sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::abs(value);
  if (size >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};  // rounds to infinity
  const int unit = size < 0x1p-14f ? -24 : std::ilogb(size) - 10;    // exponent of the last bit
  const int units = static_cast<int>(std::nearbyint(std::ldexp(size, -unit)));
  return {static_cast<uint16_t>(sign | ((unit + 24) * 1024 + units))};
}
template <>
inline BFloat16 convert_to<BFloat16, float>(float value) {
  if (std::isnan(value)) return {0x7fff};
  const auto bits = std::bit_cast<uint32_t>(value);
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline uint32_t float_bits(float value) { return std::bit_cast<uint32_t>(value); }
inline float bits_float(uint32_t bits) { return std::bit_cast<float>(bits); }

template <>
inline Tf32 convert_to<Tf32, float>(float value) {
  if (!std::isfinite(value)) return {value};
  return {std::bit_cast<float>((std::bit_cast<uint32_t>(value) + 0x1000) & 0xffffe000u)};
}

// ---- tile multiply

inline void load_matrices(uint32_t (&words)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    throw std::logic_error("load_matrices: a row's address is not a multiple of 16 bytes");
  }
  const auto rows = runner::exchange(row);
  const unsigned lane = runner::lane();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const auto* source = static_cast<const std::byte*>(rows[matrix * 8 + lane / 4]);
    std::memcpy(&words[matrix], source + lane % 4 * 4, 4);
  }
}

namespace runner {

// The product of one 4-byte word of a and one of b.
template <typename Operand>
double word_product(uint32_t a, uint32_t b);

template <>
inline double word_product<BFloat16>(uint32_t a, uint32_t b) {
  const auto high = [](uint32_t word) -> double {
    return std::bit_cast<float>(word & 0xffff0000u);
  };
  return high(a << 16) * high(b << 16) + high(a) * high(b);
}
template <>
inline double word_product<Tf32>(uint32_t a, uint32_t b) {
  // The unit ignores the bits that tf32 has not.
  const auto read = [](uint32_t word) -> double {
    return std::bit_cast<float>(word & 0xffffe000u);
  };
  return read(a) * read(b);
}

struct Fragments {
  uint32_t a[4], b[2];
};

}  // namespace runner

// Exact within one call and rounded once, towards zero like the matrix units (Fasi, Higham,
// Mikaitis and Pranesh 2021, "Numerical behavior of NVIDIA tensor cores"); a GPU keeps somewhat
// fewer bits on the way.
template <typename Operand>
void multiply_tile(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  runner::Fragments mine{};
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const auto warp = runner::exchange(mine);
  const unsigned row = runner::lane() / 4, column = runner::lane() % 4 * 2;
  double sum[4] = {d[0], d[1], d[2], d[3]};
  for (unsigned word = 0; word < 8; ++word) {
    const runner::Fragments left = warp[row * 4 + word % 4];
    for (unsigned c = 0; c < 2; ++c) {
      const runner::Fragments right = warp[(column + c) * 4 + word % 4];
      for (unsigned half = 0; half < 2; ++half) {
        sum[half * 2 + c] +=
            runner::word_product<Operand>(left.a[half + word / 4 * 2], right.b[word / 4]);
      }
    }
  }
  for (unsigned e = 0; e < 4; ++e) {
    d[e] = static_cast<float>(sum[e]);
    if (std::abs(static_cast<double>(d[e])) > std::abs(sum[e])) d[e] = std::nextafter(d[e], 0.0f);
  }
}

}  // namespace repsim_fast
