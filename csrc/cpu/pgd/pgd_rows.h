// How the CPU's attack steps walk over rows: parts with one kind of bounds, chunks for threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/pgd_problem.h"
#include "cpu/pgd/pgd_kernels.h"

namespace repsim_fast {

// Entries of a chunk: the four arrays of a step in it fill half of a 512 KiB cache; a multiple of
// kRandomBlock.
constexpr int64_t kChunk = int64_t{1} << 14;

// A thread's share must be worth its start (some microseconds).
constexpr int64_t kThreadEntries = int64_t{1} << 15;

constexpr int64_t chunks_of(int64_t d) { return (d + kChunk - 1) / kChunk; }

// f(first, last): samples, shared among threads.
template <typename F>
void for_samples(int64_t n, int64_t d, F f) {
  const int64_t grain = std::max<int64_t>(1, kThreadEntries / std::max<int64_t>(d, 1));
  torch::stable::parallel_for(0, n, grain, f);
}

// f(sample, chunk, begin, end): all chunks of all samples, shared among threads.
template <typename F>
void for_chunks(int64_t n, int64_t d, F f) {
  const int64_t chunks = chunks_of(d);
  const int64_t grain = std::max<int64_t>(1, kThreadEntries / std::min(d, kChunk));
  torch::stable::parallel_for(0, n * chunks, grain, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t chunk = task % chunks, begin = chunk * kChunk;
      f(task / chunks, chunk, begin, std::min(d, begin + kChunk));
    }
  });
}

// Whether single samples are enough work for all threads.
inline bool enough_samples(int64_t n, int64_t d) {
  return d <= kChunk || n >= static_cast<int64_t>(torch::stable::get_num_threads());
}

// The bounds of every row, ready for the kernels: numbers where they are constant over long runs,
// otherwise one of each for every entry of a row.
template <typename T>
class RowBounds {
 public:
  RowBounds(const Bound<T>& low, const Bound<T>& high, int64_t d) : low_(low), high_(high) {
    if (low.values == nullptr && high.values == nullptr) {
      run_ = d;
      return;
    }
    run_ = low.values != nullptr ? low.run : high.run;
    const bool same_runs = low.values == nullptr || high.values == nullptr || low.run == high.run;
    if (same_runs && run_ >= kShortestRun) return;
    images_.resize(static_cast<size_t>(2 * d));
    for (int64_t i = 0; i < d; ++i) {
      images_[static_cast<size_t>(i)] = low[i];
      images_[static_cast<size_t>(d + i)] = high[i];
    }
    lows_ = images_.data();
    highs_ = lows_ + d;
  }
  RowBounds(const RowBounds&) = delete;
  RowBounds& operator=(const RowBounds&) = delete;

  // f(begin, count, box) for the parts of entries [begin, end) of a row.
  template <typename F>
  void for_parts(int64_t begin, int64_t end, F f) const {
    if (lows_ != nullptr) {
      f(begin, end - begin, Box<T>{T{0}, T{0}, lows_ + begin, highs_ + begin, true});
      return;
    }
    while (begin < end) {
      const int64_t stop = std::min(end, (begin / run_ + 1) * run_);
      f(begin, stop - begin, Box<T>{low_[begin], high_[begin], nullptr, nullptr, false});
      begin = stop;
    }
  }

 private:
  // Shorter ones are not worth a call each.
  static constexpr int64_t kShortestRun = 64;

  Bound<T> low_, high_;
  int64_t run_;
  std::vector<T> images_;
  const T* lows_ = nullptr;
  const T* highs_ = nullptr;
};

}  // namespace repsim_fast
