#include "cpu/scratch.h"

#include <algorithm>
#include <new>
#include <utility>

namespace repsim_fast {
namespace {

constexpr std::align_val_t kLine{64};

// What a thread keeps at most: 8 MiB.
constexpr int kBlocks = 8;
constexpr size_t kLargestKept = size_t{1} << 20;

class KeptBlocks {
 public:
  KeptBlocks() = default;
  KeptBlocks(const KeptBlocks&) = delete;
  KeptBlocks& operator=(const KeptBlocks&) = delete;
  ~KeptBlocks() {
    for (const ScratchBlock& block : blocks_) ::operator delete(block.memory, kLine);
  }

  // The smallest that is large enough, if it is not far too large.
  ScratchBlock take(size_t bytes) {
    ScratchBlock* best = nullptr;
    for (ScratchBlock& block : blocks_) {
      const bool fits = block.bytes >= bytes && block.bytes <= 2 * bytes;
      if (fits && (best == nullptr || block.bytes < best->bytes)) best = &block;
    }
    return best == nullptr ? ScratchBlock{} : std::exchange(*best, {});
  }

  // In the place of an empty one, or of the one that was there longest. Returns what has none.
  ScratchBlock keep(ScratchBlock block) {
    if (block.bytes > kLargestKept) return block;
    const auto empty = std::find_if(std::begin(blocks_), std::end(blocks_),
                                    [](const ScratchBlock& kept) { return kept.bytes == 0; });
    if (empty != std::end(blocks_)) return std::exchange(*empty, block);
    oldest_ = (oldest_ + 1) % kBlocks;
    return std::exchange(blocks_[oldest_], block);
  }

 private:
  ScratchBlock blocks_[kBlocks];
  int oldest_ = 0;
};

thread_local KeptBlocks kept;

}  // namespace

ScratchBlock take_scratch(size_t bytes) {
  const ScratchBlock block = kept.take(bytes);
  return block.bytes > 0 ? block : ScratchBlock{::operator new(bytes, kLine), bytes};
}

void give_back_scratch(ScratchBlock block) { ::operator delete(kept.keep(block).memory, kLine); }

}  // namespace repsim_fast
