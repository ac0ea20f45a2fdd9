// The L1 step: a sparse ascent direction (Tramèr and Boneh 2019, "Adversarial training and
// robustness for multiple perturbations", section 2) and the exact projection on ball and box.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "cpu/pgd/pgd_kernels.h"
#include "cpu/pgd/pgd_rows.h"
#include "cpu/pgd/pgd_steps.h"

namespace repsim_fast {
namespace {

// Numbers looked at to bracket the k-th largest of a row.
constexpr int64_t kSmallestSample = 128, kLargestSample = 1024;
constexpr int64_t kEntriesPerSample = 16;

// The bracket's width in standard deviations of a sampled rank, and a margin for small ranks:
// nearly every row is bracketed.
constexpr double kBracketDeviations = 3.0, kBracketMargin = 3.0;

template <typename T>
struct Selection {
  T least;        // the k-th largest size; the smallest positive one if fewer are positive
  int64_t count;  // sizes not below it: more than k where sizes tie
};

// The bracket begins here, so that it never holds zeros, of which there may be many. In threads
// that take denormal numbers for zeros that is the smallest normal one.
template <typename T>
T smallest_positive() {
  const volatile T denormal = std::numeric_limits<T>::denorm_min();
  return denormal > 0 ? std::numeric_limits<T>::denorm_min() : std::numeric_limits<T>::min();
}

// The k-th largest of d sizes >= 0, 1 <= k <= d, without sorting them: a few hundred are looked at
// first, and tell between which two the k-th largest lies (Floyd and Rivest 1975, "Expected time
// bounds for selection"); then one pass counts the larger ones and packs the others.
template <typename T>
class LargestOf {
 public:
  LargestOf(const T* sizes, int64_t d, T* scratch)  // (d,), (d + kPackSlack,)
      : sizes_(sizes), d_(d), scratch_(scratch) {}

  Selection<T> select(int64_t k) {
    const auto [low, high] = bracket(k);
    if (!between(k, low, high)) between(k, smallest_, kInfinity);
    return selection_;
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  // Two sizes that the k-th largest most likely lies between.
  std::pair<T, T> bracket(int64_t k) const {
    const int64_t count =
        std::clamp(d_ / kEntriesPerSample, std::min(d_, kSmallestSample), kLargestSample);
    T sample[kLargestSample];
    for (int64_t i = 0; i < count; ++i) sample[i] = sizes_[i * d_ / count];
    const double share = static_cast<double>(k) / static_cast<double>(d_);
    const double rank = share * static_cast<double>(count);
    const double margin = kBracketDeviations * std::sqrt(rank * (1.0 - share)) + kBracketMargin;
    const auto last = static_cast<int64_t>(rank + margin);
    if (last >= count) return {smallest_, kInfinity};
    std::nth_element(sample, sample + last, sample + count, std::greater<T>());
    const T low = std::max(sample[last], smallest_);
    if (rank <= margin) return {low, kInfinity};
    const auto first = static_cast<int64_t>(rank - margin);
    std::nth_element(sample, sample + first, sample + last, std::greater<T>());
    return {low, std::max(sample[first], low)};
  }

  // Whether the k-th largest lies in [low, high]; then the selection is made.
  bool between(int64_t k, T low, T high) {
    const auto counts = pgd_kernels<T>().pack_between(sizes_, d_, low, high, scratch_);
    T* end = scratch_ + counts.between;
    if (counts.above >= k) return false;
    if (counts.above + counts.between < k) {
      if (low > smallest_) return false;
      // Fewer than k are positive.
      const T least = counts.between > 0 ? *std::min_element(scratch_, end) : high;
      selection_ = {least, counts.above + counts.between};
      return true;
    }
    T* kth = scratch_ + (k - counts.above - 1);
    std::nth_element(scratch_, kth, end, std::greater<T>());
    selection_ = {*kth, k + std::count(kth + 1, end, *kth)};
    return true;
  }

  const T* sizes_;
  int64_t d_;
  T* scratch_;
  const T smallest_ = smallest_positive<T>();
  Selection<T> selection_{kInfinity, 0};
};

template <typename T>
class L1Step {
 public:
  L1Step(const StepProblem<T>& problem, const PerSample<T>& fraction)
      : problem_(problem), fraction_(fraction), bounds_(problem.low, problem.high, problem.d) {}

  void run() {
    for_samples(problem_.n, problem_.d, [&](int64_t first, int64_t last) {
      Entries moved(problem_.d), longer(problem_.d);
      for (int64_t sample = first; sample < last; ++sample) {
        const Moved sums = move(sample, moved, longer.lengths.get());
        shrink(sample, find_threshold(sample, sums, &moved, &longer));
      }
    });
  }

 private:
  using Moved = typename PgdKernels<T>::Moved;

  // What |out - x| and the box's room are for some entries of a row.
  struct Entries {
    explicit Entries(int64_t d)
        : lengths(std::make_unique_for_overwrite<T[]>(static_cast<size_t>(d + kPackSlack))),
          rooms(std::make_unique_for_overwrite<T[]>(static_cast<size_t>(d + kPackSlack))) {}
    std::unique_ptr<T[]> lengths, rooms;
  };

  // out = adv + sparse step; |out - x| and the box's rooms.
  Moved move(int64_t sample, const Entries& moved, T* scratch) {
    const int64_t d = problem_.d, row = sample * d;
    T* lengths = moved.lengths.get();
    T* rooms = moved.rooms.get();
    const T* gradient = problem_.gradient != nullptr ? problem_.gradient + row : nullptr;
    SparseMove<T> step{0, 0};
    if (gradient != nullptr) {
      const T size = problem_.size[sample];
      bounds_.for_parts(0, d, [&](int64_t first, int64_t count, const Box<T>& box) {
        kernels_.l1_sizes(problem_.adv + row + first, gradient + first, count, size < 0, box,
                          lengths + first);
      });
      const auto wanted = static_cast<int64_t>(fraction_[sample] * static_cast<T>(d));
      const Selection<T> chosen =
          LargestOf<T>(lengths, d, scratch).select(std::clamp<int64_t>(wanted, 1, d));
      step = {chosen.least, size / static_cast<T>(std::max<int64_t>(chosen.count, 1))};
    }
    Moved sums{{}, 0};
    bounds_.for_parts(0, d, [&](int64_t first, int64_t count, const Box<T>& box) {
      const int64_t at = row + first;
      const Moved part = kernels_.l1_move(problem_.adv + at, gradient ? gradient + first : nullptr,
                                          lengths + first, problem_.x + at, count, step, box,
                                          problem_.out + at, lengths + first, rooms + first);
      sums.sums.add(part.sums);
      sums.largest = std::max(sums.largest, part.largest);
    });
    std::fill_n(lengths + d, kPackSlack, T{0});
    std::fill_n(rooms + d, kPackSlack, T{0});
    return sums;
  }

  // Entries that have left the sums are dropped on the way: those that count are in one of the two,
  // and change over to the other when the threshold's lower bound has grown.
  double find_threshold(int64_t sample, const Moved& sums, Entries* some, Entries* longer) {
    ThresholdSearch<T> search(static_cast<double>(problem_.eps[sample]),
                              static_cast<double>(sums.largest));
    if (search.update(sums.sums)) return search.value();
    int64_t count = problem_.d;
    while (true) {
      const T here = search.at();
      const auto shrunk = kernels_.l1_sums(some->lengths.get(), some->rooms.get(), count, here,
                                           longer->lengths.get(), longer->rooms.get());
      if (search.update(shrunk.sums)) return search.value();
      if (search.lower() == here) {
        std::swap(some, longer);
        count = shrunk.longer;
      }
    }
  }

  void shrink(int64_t sample, double threshold) {
    const int64_t row = sample * problem_.d;
    const T high_part = static_cast<T>(threshold);
    const T low_part = static_cast<T>(threshold - static_cast<double>(high_part));
    bounds_.for_parts(0, problem_.d, [&](int64_t first, int64_t count, const Box<T>& box) {
      kernels_.l1_shrink(problem_.x + row + first, count, high_part, low_part, box,
                         problem_.out + row + first);
    });
  }

  const StepProblem<T>& problem_;
  const PerSample<T>& fraction_;
  const RowBounds<T> bounds_;
  const PgdKernels<T>& kernels_ = pgd_kernels<T>();
};

}  // namespace

template <typename T>
void l1_step(const StepProblem<T>& problem, const PerSample<T>& fraction) {
  L1Step<T>(problem, fraction).run();
}

template void l1_step<float>(const StepProblem<float>&, const PerSample<float>&);
template void l1_step<double>(const StepProblem<double>&, const PerSample<double>&);

}  // namespace repsim_fast
