// Bulk copies on the CPU, for the tests. Include kernels/portability/bulk_copies.h instead of this.
//
// As late as the hardware may: a rectangle is spoilt (0xff) when its copy is asked for and filled
// when the first thread waits for it. What a GPU would answer by hanging or by overwriting
// something is an error here.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace repsim_fast {

using TensorMap = RectangleLayout;

inline TensorMap make_tensor_map(const RectangleLayout& layout) {
  check_layout(layout);
  return layout;
}

template <typename... Parameters>
bool copies_in_bulk(void (*)(Parameters...)) {
  return true;
}

// Its state is the runner's: on a GPU it is 8 opaque bytes, too.
struct alignas(8) CopyBarrier {
  uint64_t unused;
};

namespace runner {

// Bulk copies under way at one barrier in shared memory.
struct Transfers {
  unsigned phase = 0;      // complete ones
  bool announced = false;  // of the current phase
  int64_t missing = 0;     // bytes announced, but not yet asked for
  std::vector<std::function<void()>> copies;
};

// Of a block.
struct BulkCopies : Extension {
  std::map<const void*, Transfers> at;  // by barrier

  void check_end(const char* name) const override {
    for (const auto& [barrier, transfers] : at) {
      if (transfers.announced) {
        throw std::logic_error(std::string(name) + ": a block ended with unfinished bulk copies");
      }
    }
  }
};

inline BulkCopies& bulk_copies() { return this_thread->block->extensions.get<BulkCopies>(); }

inline void fill_rectangle(std::byte* to, const TensorMap& map, int64_t row, int64_t column) {
  const int64_t box_row_bytes = map.box_columns * map.element_bytes;
  for (int64_t r = 0; r < map.box_rows; ++r, to += box_row_bytes) {
    std::memset(to, 0, static_cast<size_t>(box_row_bytes));
    if (row + r >= map.rows || column >= map.columns) continue;
    const int64_t inside =
        map.columns - column < map.box_columns ? map.columns - column : map.box_columns;
    const auto* from = static_cast<const std::byte*>(map.matrix) + (row + r) * map.row_bytes;
    std::memcpy(to, from + column * map.element_bytes,
                static_cast<size_t>(inside * map.element_bytes));
  }
}

inline Transfers& transfers_of(const CopyBarrier& barrier) {
  const auto found = bulk_copies().at.find(&barrier);
  if (found == bulk_copies().at.end()) {
    throw std::logic_error("a copy barrier is used before init_barrier");
  }
  return found->second;
}

}  // namespace runner

inline void init_barrier(CopyBarrier& barrier) {
  const std::lock_guard lock(runner::this_thread->block->mutex);
  if (!runner::bulk_copies().at.try_emplace(&barrier).second) {
    throw std::logic_error("init_barrier: this barrier has been initialised before");
  }
}

inline void expect_bytes(CopyBarrier& barrier, int64_t bytes) {
  const std::lock_guard lock(runner::this_thread->block->mutex);
  runner::Transfers& transfers = runner::transfers_of(barrier);
  if (transfers.announced) {
    throw std::logic_error("expect_bytes: the phase before is not known to be complete");
  }
  transfers.announced = true;
  transfers.missing += bytes;
}

inline void copy_rectangle(void* to, const TensorMap& map, int64_t row, int64_t column,
                           CopyBarrier& barrier) {
  if (reinterpret_cast<uintptr_t>(to) % 128 != 0) {
    throw std::logic_error("copy_rectangle: the address is not a multiple of 128 bytes");
  }
  const int64_t bytes = map.box_rows * map.box_columns * map.element_bytes;
  std::memset(to, 0xff, static_cast<size_t>(bytes));
  const std::lock_guard lock(runner::this_thread->block->mutex);
  runner::Transfers& transfers = runner::transfers_of(barrier);
  if (transfers.missing < bytes) {
    throw std::logic_error("copy_rectangle: more bytes than expect_bytes announced");
  }
  transfers.missing -= bytes;
  transfers.copies.push_back([to, map, row, column] {
    runner::fill_rectangle(static_cast<std::byte*>(to), map, row, column);
  });
}

inline void wait_phase(CopyBarrier& barrier, unsigned parity) {
  runner::BlockState& block = *runner::this_thread->block;
  runner::wait_until([&block, &transfers = runner::transfers_of(barrier), parity] {
    const std::lock_guard lock(block.mutex);
    if (transfers.phase % 2 == parity && transfers.announced && transfers.missing == 0) {
      for (const auto& copy : transfers.copies) copy();
      transfers.copies.clear();
      transfers.announced = false;
      ++transfers.phase;
    }
    return transfers.phase % 2 != parity;
  });
}

}  // namespace repsim_fast
