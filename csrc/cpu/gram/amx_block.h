// A block of features of all samples in AMX's tiles: as the blocks of gram_block.h.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cpu/gram/amx_tile_kernels.h"
#include "cpu/gram/gram_block.h"

namespace repsim_fast {

// Products of bfloat16. A block is packed as a whole, then multiplied.
class AmxBlock {
 public:
  using Element = float;
  static constexpr int64_t kDepth = kAmxDepth, kUnit = kAmxDepthUnit;

  explicit AmxBlock(int64_t n)
      : n_(n),
        as_rows_(scratch<std::byte>(ceil_div(n, kPanel) * kAmxPanelBytes)),
        as_columns_(scratch<std::byte>(ceil_div(n, kPanel) * kAmxPanelBytes)) {
    kernels_.begin(before_);
  }
  ~AmxBlock() { kernels_.end(before_); }
  AmxBlock(const AmxBlock&) = delete;
  AmxBlock& operator=(const AmxBlock&) = delete;

  template <typename In>
  void begin(const In* x, int64_t row_stride, int64_t first, int64_t depth, bool shift) {
    coming_ = {x + first, row_stride, depth, shift, &AmxBlock::pack_of<In>};
  }

  void pack() { (this->*coming_.pack)(); }

  void multiply(int64_t i, int64_t j, float* tile) {
    kernels_.multiply(as_rows_.get() + i * kAmxPanelBytes, as_columns_.get() + j * kAmxPanelBytes,
                      depth_, std::min(kPanel, n_ - i * kPanel), i == j, tile);
  }

 private:
  struct Coming {
    const void* x = nullptr;
    int64_t row_stride = 0, depth = 0;
    bool shift = false;
    void (AmxBlock::*pack)() = nullptr;
  };

  template <typename In>
  void pack_of() {
    if constexpr (std::is_same_v<In, float>) {
      pack_by(kernels_.floats);
    } else if constexpr (std::is_same_v<In, torch::headeronly::Half>) {
      pack_by(kernels_.halves);
    } else {
      pack_by(kernels_.bfloat16);
    }
  }

  template <typename In>
  void pack_by(const AmxTileKernels::Reading<In>& reading) {
    const In* x = static_cast<const In*>(coming_.x);
    const int64_t stride = coming_.row_stride;
    depth_ = coming_.depth;
    if (coming_.shift) {
      reading.find_shift(x, shift_step(n_) * stride, shift_samples(n_), depth_, shift_);
    } else {
      std::fill_n(shift_, kDepth, 0.0f);
    }
    reading.pack(x, stride, n_, depth_, shift_, as_rows_.get(), as_columns_.get());
  }

  const AmxTileKernels& kernels_ = *amx_tile_kernels();
  AmxConfiguration before_;
  int64_t n_, depth_ = 0;
  Scratch<std::byte> as_rows_, as_columns_;  // panels
  Coming coming_;
  alignas(64) float shift_[kDepth];
};

}  // namespace repsim_fast
