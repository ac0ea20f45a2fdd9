// The L1 step, a block for a row: the k-th largest gradient by its digits, the sparse move, and the
// threshold of the projection by bracketed Newton. A row's working values stay in shared memory if
// they fit. Longer rows have them in scratch: 1.2 MB for 3 x 224 x 224 floats, beside 2.4 MB of
// images. A row on every multiprocessor is more than caches hold: its 38 passes or so go to memory.
#include <bit>
#include <cstdint>
#include <type_traits>

#include "cuda/pgd/pgd_rows.cuh"
#include "cuda/pgd/pgd_steps.cuh"
#include "cuda/portability/portability.h"
#include "math/projection.h"

namespace repsim_fast {
namespace {

constexpr int kMaximumThreads = 1024;

// Working values of a row that go to shared memory: with the sums a block stays under the 48 KiB
// that every kernel has.
constexpr int64_t kSharedBytes = int64_t{40} << 10;

// Digits of the radix selection: 8 counters of 8 bits in one 64-bit word.
constexpr int kDigitBits = 3, kDigits = 1 << kDigitBits;
constexpr int kCounterBits = 8, kCounterLimit = 255;

template <typename T>
struct L1Shared {
  double sums[kMaximumWarps];
  ShrinkSums shrink_sums[kMaximumWarps];
  T largest[kMaximumWarps];
  int64_t warp_counts[kMaximumWarps][kDigits];
  int64_t counts[kDigits];
  alignas(16) T values[1];  // two a row's entry, if they fit
};

template <typename T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Entries of the row with each next digit, among those whose leading bits are `prefix`; the same
// in every thread.
template <typename T>
__device__ inline void count_digits(const T* sizes, int64_t d, Bits<T> prefix, int shift,
                                    L1Shared<T>& shared) {
  uint32_t counts[kDigits] = {};
  const auto flush = [&](uint64_t packed) {
    REPSIM_UNROLL
    for (int digit = 0; digit < kDigits; ++digit) {
      counts[digit] += static_cast<uint32_t>(packed >> (digit * kCounterBits) & kCounterLimit);
    }
  };
  uint64_t packed = 0;
  int added = 0;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
    const Bits<T> bits = std::bit_cast<Bits<T>>(sizes[i]) >> shift;
    const auto digit = static_cast<int>(bits % kDigits);
    packed += bits / kDigits == prefix ? uint64_t{1} << (digit * kCounterBits) : 0;
    if (++added == kCounterLimit) {
      flush(packed);
      packed = 0;
      added = 0;
    }
  }
  flush(packed);
  REPSIM_UNROLL
  for (int digit = 0; digit < kDigits; ++digit) {
    const auto count = warp_sum(static_cast<int64_t>(counts[digit]));
    if (threadIdx.x % kWarpSize == 0) shared.warp_counts[threadIdx.x / kWarpSize][digit] = count;
  }
  __syncthreads();
  if (threadIdx.x < kDigits) {
    int64_t count = 0;
    for (unsigned warp = 0; warp < blockDim.x / kWarpSize; ++warp) {
      count += shared.warp_counts[warp][threadIdx.x];
    }
    shared.counts[threadIdx.x] = count;
  }
  __syncthreads();
}

template <typename T>
struct Selection {
  T least;
  int64_t count;
};

// The k-th largest of d sizes >= 0 (or the smallest positive number, if that is 0) and how many
// sizes are not below it: digit by digit from the top, as floats >= 0 are ordered like their bits.
template <typename T>
__device__ inline Selection<T> select_largest(const T* sizes, int64_t d, int64_t k,
                                              L1Shared<T>& shared) {
  constexpr int kBits = 8 * sizeof(T);
  Bits<T> prefix = 0;
  int64_t above = 0, here = d;  // sizes with larger leading bits, and with these
  int shift = (kBits + kDigitBits - 1) / kDigitBits * kDigitBits;
  // Ends early where all that share the leading bits are wanted.
  while (shift > 0 && above + here != k) {
    shift -= kDigitBits;
    count_digits(sizes, d, prefix, shift, shared);
    int digit = kDigits - 1;
    while (above + shared.counts[digit] < k) above += shared.counts[digit--];
    here = shared.counts[digit];
    prefix = prefix * kDigits + static_cast<Bits<T>>(digit);
    __syncthreads();
  }
  const Bits<T> least = prefix << shift;
  if (least == 0) {  // zeros are among them
    const Bits<T> smallest = 1;
    double positive = 0;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) positive += sizes[i] > 0 ? 1 : 0;
    return {std::bit_cast<T>(smallest), static_cast<int64_t>(block_sum(positive, shared.sums))};
  }
  return {std::bit_cast<T>(least), above + here};
}

// The threshold of the projection; see ThresholdSearch.
template <typename T>
__device__ inline double find_threshold(const T* lengths, const T* rooms, int64_t d, T largest,
                                        T eps, L1Shared<T>& shared) {
  ThresholdSearch<T> search(static_cast<double>(eps),
                            static_cast<double>(block_max(largest, shared.largest)));
  bool done = false;
  while (!done) {
    const T threshold = search.at();
    ShrinkSums sums;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      const T rest = lengths[i] - threshold, c = rooms[i];
      const T positive = rest > 0 ? rest : T{0};
      sums.total += static_cast<double>(positive > c ? c : positive);
      sums.above += rest > 0 && rest <= c ? 1 : 0;
      sums.below += rest >= 0 && rest < c ? 1 : 0;
    }
    done = search.update(block_sum(sums, shared.shrink_sums));
  }
  return search.value();
}

// One row a block at a time; entry i always belongs to the same thread.
template <typename T>
__global__ void __launch_bounds__(kMaximumThreads, 1)
    l1_step_kernel(StepProblem<T> problem, PerSample<T> fraction,
                   T* scratch) {  // (n, 2, d), or null: in shared memory
  auto& shared = shared_memory<L1Shared<T>>();
  const int64_t d = problem.d;
  for (int64_t row = blockIdx.x; row < problem.n; row += gridDim.x) {
    const int64_t start = row * d;
    T* lengths = scratch != nullptr ? scratch + 2 * start : shared.values;
    T* rooms = lengths + d;
    const T size = problem.size[row];

    T least = 0, step = 0;
    if (problem.gradient != nullptr) {
      for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
        lengths[i] = l1_size<T, T>(problem.adv[start + i], problem.gradient[start + i],
                                   size < 0 ? T{-1} : T{1}, bound_at(problem.low, i),
                                   bound_at(problem.high, i));
      }
      auto k = static_cast<int64_t>(fraction[row] * static_cast<T>(d));
      k = k < 1 ? 1 : k > d ? d : k;
      const Selection<T> chosen = select_largest(lengths, d, k, shared);
      least = chosen.least;
      step = size / static_cast<T>(chosen.count > 0 ? chosen.count : 1);
    }

    T largest = 0;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      const T x = problem.x[start + i];
      T v = problem.adv[start + i];
      if (problem.gradient != nullptr) {
        v = l1_moved<T>(v, problem.gradient[start + i], lengths[i], least, step);
      }
      const T u = v - x, length = magnitude<T>(u);
      problem.out[start + i] = v;
      lengths[i] = length;
      rooms[i] = room<T>(u, x, bound_at(problem.low, i), bound_at(problem.high, i));
      largest = length > largest ? length : largest;
    }

    const double threshold = find_threshold(lengths, rooms, d, largest, problem.eps[row], shared);
    const T high_part = static_cast<T>(threshold);
    const T low_part = static_cast<T>(threshold - static_cast<double>(high_part));
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      problem.out[start + i] =
          l1_entry<T>(problem.out[start + i], problem.x[start + i], high_part, low_part,
                      bound_at(problem.low, i), bound_at(problem.high, i));
    }
  }
}

}  // namespace

template <typename T>
int64_t l1_scratch_bytes(int64_t n, int64_t d) {
  const int64_t row = 2 * d * static_cast<int64_t>(sizeof(T));
  return row <= kSharedBytes ? 0 : n * row;
}

template <typename T>
void launch_l1_step(const StepProblem<T>& problem, const PerSample<T>& fraction, void* scratch,
                    void* stream) {
  if (problem.n == 0 || problem.d == 0) return;
  constexpr int64_t kEntriesPerThread = 8;
  const int64_t threads = std::min<int64_t>(
      ceil_quotient(ceil_quotient(problem.d, kEntriesPerThread), kWarpSize) * kWarpSize,
      kMaximumThreads);
  const bool in_shared = l1_scratch_bytes<T>(problem.n, problem.d) == 0;
  const size_t values = in_shared ? static_cast<size_t>(2 * problem.d) * sizeof(T) : 0;
  launch("l1_step", l1_step_kernel<T>,
         {.grid = dim3(static_cast<unsigned>(std::min<int64_t>(problem.n, 0x7fffffff))),
          .threads = static_cast<unsigned>(threads),
          .shared_bytes = sizeof(L1Shared<T>) + values,
          .stream = stream},
         problem, fraction, in_shared ? nullptr : static_cast<T*>(scratch));
}

template int64_t l1_scratch_bytes<float>(int64_t, int64_t);
template int64_t l1_scratch_bytes<double>(int64_t, int64_t);
template void launch_l1_step<float>(const StepProblem<float>&, const PerSample<float>&, void*,
                                    void*);
template void launch_l1_step<double>(const StepProblem<double>&, const PerSample<double>&, void*,
                                     void*);

}  // namespace repsim_fast
