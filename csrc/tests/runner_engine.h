// What both engines of the runner share.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>

#include "cuda/portability/portability.h"

namespace repsim_fast::runner {

// The kernels of several host threads run one after another.
inline std::mutex one_launch;

constexpr std::align_val_t kSharedAlignment{1024};

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete[](memory, kSharedAlignment); }
};

// Exactly the bytes asked for, so that the address sanitizer sees an access behind them.
inline std::unique_ptr<std::byte[], AlignedDelete> block_memory(size_t bytes) {
  return std::unique_ptr<std::byte[], AlignedDelete>(
      static_cast<std::byte*>(::operator new[](bytes, kSharedAlignment)));
}

inline void check_shape(const char* name, const LaunchShape& shape) {
  const dim3& grid = shape.grid;
  const bool threads_ok =
      shape.threads > 0 && shape.threads % kWarpSize == 0 && shape.threads <= 1024;
  const bool grid_ok = grid.x > 0 && grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65535 &&
                       grid.z > 0 && grid.z <= 65535;
  const bool shared_ok = shape.shared_bytes <= most_shared_bytes(name, current_device(name));
  if (!threads_ok || !grid_ok || !shared_ok) {
    throw std::runtime_error(std::string("CUDA kernel ") + name +
                             ": a GPU would refuse this launch: grid " + std::to_string(grid.x) +
                             " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) +
                             ", " + std::to_string(shape.threads) + " threads, " +
                             std::to_string(shape.shared_bytes) + " bytes of shared memory");
  }
}

template <typename Visit>
void for_each_block(const dim3& grid, Visit visit) {
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) visit(dim3(x, y, z));
    }
  }
}

}  // namespace repsim_fast::runner
