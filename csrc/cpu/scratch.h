// Working memory of one call, on cache lines.
//
// A thread keeps the last few blocks it gave back: the allocator, asked for blocks of this size,
// tidies up what all others have freed meanwhile, which took 8 microseconds a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace repsim_fast {

struct ScratchBlock {
  void* memory = nullptr;
  size_t bytes = 0;
};

ScratchBlock take_scratch(size_t bytes);
void give_back_scratch(ScratchBlock block);

struct GiveBack {
  size_t bytes = 0;
  void operator()(void* memory) const { give_back_scratch({memory, bytes}); }
};
template <typename T>
using Scratch = std::unique_ptr<T[], GiveBack>;

// Uninitialised: every element is written before it is read.
template <typename T>
Scratch<T> scratch(int64_t count) {
  const ScratchBlock block = take_scratch(static_cast<size_t>(count) * sizeof(T));
  return Scratch<T>(static_cast<T*>(block.memory), GiveBack{block.bytes});
}

}  // namespace repsim_fast
