// One instruction set's version of the attack steps' inner loops. pgd_kernels.cpp includes this
// file once for each level, inside a namespace and under the matching target pragma, with
// REPSIM_VECTOR_BYTES set; so it has no include guard and includes nothing but what is made for
// that.
//
// Vectors are spelled out: the compiler may not reorder sums, nor compute an entry's unused branch.

#define REPSIM_INLINE inline __attribute__((always_inline))

#include "math/projection_entries.h"

// A whole vector, and one entry.
template <typename T>
struct Wide {
  static constexpr int kCount = REPSIM_VECTOR_BYTES / sizeof(T);
  typedef T Values __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
  typedef T Memory __attribute__((vector_size(REPSIM_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index
      __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
};
template <typename T>
struct Single {
  typedef T Values;
  typedef T Memory;
};

// As many numbers as fit into a vector as doubles, in the storage type and as doubles.
template <typename T>
struct Lanes {
  static constexpr int kCount = REPSIM_VECTOR_BYTES / sizeof(double);
  typedef T Values __attribute__((vector_size(sizeof(T) * kCount)));
  typedef T Memory __attribute__((vector_size(sizeof(T) * kCount), aligned(sizeof(T)), may_alias));
  typedef double Sums __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
};

template <typename Shape, typename T>
REPSIM_INLINE typename Shape::Values load(const T* from) {
  return *reinterpret_cast<const typename Shape::Memory*>(from);
}

// The same, and fetches what comes a page later: there hardware prefetching begins anew.
template <typename Shape, typename T>
REPSIM_INLINE typename Shape::Values load_ahead(const T* from) {
  __builtin_prefetch(reinterpret_cast<const char*>(from) + 4096);
  return load<Shape>(from);
}

template <typename Shape, typename T>
REPSIM_INLINE void store(T* to, typename Shape::Values values) {
  *reinterpret_cast<typename Shape::Memory*>(to) = values;
}

template <typename Shape, typename T>
REPSIM_INLINE typename Shape::Values all(T value) {
  return typename Shape::Values{} + value;
}

// f(shape, i): entries [0, n), by vectors and at the end one by one.
template <typename T, typename F>
REPSIM_INLINE void for_entries(int64_t n, F f) {
  int64_t i = 0;
  for (; i + Wide<T>::kCount <= n; i += Wide<T>::kCount) f(Wide<T>{}, i);
  for (; i < n; ++i) f(Single<T>{}, i);
}

// out[i] = f(shape, i)
template <typename T, typename F>
REPSIM_INLINE void map_entries(T* out, int64_t n, F f) {
  for_entries<T>(n, [&](auto shape, int64_t i) { store<decltype(shape)>(out + i, f(shape, i)); });
}

template <bool kArrays, typename Shape, typename T>
REPSIM_INLINE typename Shape::Values lows(const Box<T>& box, int64_t i) {
  return kArrays ? load<Shape>(box.lows + i) : all<Shape>(box.low);
}

template <bool kArrays, typename Shape, typename T>
REPSIM_INLINE typename Shape::Values highs(const Box<T>& box, int64_t i) {
  return kArrays ? load<Shape>(box.highs + i) : all<Shape>(box.high);
}

template <bool kMoves, typename Shape, typename T>
REPSIM_INLINE typename Shape::Values gradients(const T* gradient, int64_t i) {
  if constexpr (kMoves) return load_ahead<Shape>(gradient + i);
  return typename Shape::Values{};
}

// ---- Linf

template <typename T, bool kMoves, bool kArrays>
void linf_loop(const T* adv, const T* gradient, const T* x, int64_t n, T size, T eps, Box<T> box,
               T* out) {
  map_entries<T>(out, n, [&](auto shape, int64_t i) {
    using S = decltype(shape);
    return linf_entry<typename S::Values>(load_ahead<S>(adv + i), gradients<kMoves, S>(gradient, i),
                                          load_ahead<S>(x + i), all<S>(size), all<S>(eps),
                                          lows<kArrays, S>(box, i), highs<kArrays, S>(box, i));
  });
}

template <typename T>
void linf(const T* adv, const T* gradient, const T* x, int64_t n, T size, T eps, const Box<T>& box,
          T* out) {
  const auto loop = gradient != nullptr
                        ? (box.arrays ? &linf_loop<T, true, true> : &linf_loop<T, true, false>)
                        : (box.arrays ? &linf_loop<T, false, true> : &linf_loop<T, false, false>);
  loop(adv, gradient, x, n, size, eps, box, out);
}

// Sum of term(shape, i) over entries [0, n). Floats are added as such over short runs only, so that
// no more than a few units in their last place are lost, and from there in double.
template <typename T, typename F>
REPSIM_INLINE double sum_of(int64_t n, F term) {
  using W = Wide<T>;
  constexpr int kRun = 16;  // vectors
  double totals[W::kCount] = {};
  int64_t i = 0;
  for (; i + kRun * W::kCount <= n; i += kRun * W::kCount) {
    typename W::Values sums[4] = {};
    for (int64_t at = i; at < i + kRun * W::kCount; at += 4 * W::kCount) {
      sums[0] += term(W{}, at);
      sums[1] += term(W{}, at + W::kCount);
      sums[2] += term(W{}, at + 2 * W::kCount);
      sums[3] += term(W{}, at + 3 * W::kCount);
    }
    const typename W::Values sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int lane = 0; lane < W::kCount; ++lane) totals[lane] += static_cast<double>(sum[lane]);
  }
  for (; i + W::kCount <= n; i += W::kCount) {
    const typename W::Values sum = term(W{}, i);
    for (int lane = 0; lane < W::kCount; ++lane) totals[lane] += static_cast<double>(sum[lane]);
  }
  double total = 0;
  for (int lane = 0; lane < W::kCount; ++lane) total += totals[lane];
  for (; i < n; ++i) total += static_cast<double>(term(Single<T>{}, i));
  return total;
}

// ---- L2

// Whether squares were summed up in T without harm: none has overflowed or was NaN, and those that
// may have underflowed do not matter.
template <typename T>
bool sum_is_safe(double squares) {
  return sizeof(T) == 4 ? squares > 1e-20 && squares < 1e38 : squares > 1e-280 && squares < 1e300;
}

template <typename T>
GradientSum<T> gradient_sum(const T* gradient, int64_t n) {
  const double squares = sum_of<T>(n, [&](auto shape, int64_t i) {
    const auto g = load<decltype(shape)>(gradient + i);
    return g * g;
  });
  if (sum_is_safe<T>(squares)) return {SquareSum<T>::of(squares), false};
  GradientSum<T> sum{{}, true};
  for (int64_t i = 0; i < n; ++i) sum.squares.add(finite<T, T>(gradient[i]));
  return sum;
}

enum class Move { kNone, kSafe, kUnsafe };

template <typename T, Move kMove, bool kClips, bool kArrays>
double l2_move_loop(const T* adv, const T* gradient, const T* x, int64_t n, Direction<T> direction,
                    Box<T> box, T* out) {
  const double squares = sum_of<T>(n, [&](auto shape, int64_t i) {
    using S = decltype(shape);
    using V = typename S::Values;
    V v = load<S>(adv + i);
    if constexpr (kMove != Move::kNone) {
      V g = load<S>(gradient + i);
      if constexpr (kMove == Move::kUnsafe) g = finite<T, V>(g);
      v += (g * direction.scale) * direction.factor;
    }
    if constexpr (kClips) v = clip<V>(v, lows<kArrays, S>(box, i), highs<kArrays, S>(box, i));
    store<S>(out + i, v);
    const V u = v - load<S>(x + i);
    return u * u;
  });
  if (sum_is_safe<T>(squares)) return squares;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double u = static_cast<double>(out[i] - x[i]);
    sum += u * u;
  }
  return sum;
}

template <typename T, Move kMove>
double l2_move_by(const T* adv, const T* gradient, const T* x, int64_t n, Direction<T> direction,
                  bool clipped, const Box<T>& box, T* out) {
  const auto loop = !clipped ? &l2_move_loop<T, kMove, false, false>
                             : (box.arrays ? &l2_move_loop<T, kMove, true, true>
                                           : &l2_move_loop<T, kMove, true, false>);
  return loop(adv, gradient, x, n, direction, box, out);
}

template <typename T>
double l2_move(const T* adv, const T* gradient, const T* x, int64_t n, Direction<T> direction,
               bool unsafe, bool clipped, const Box<T>& box, T* out) {
  const auto by = gradient == nullptr
                      ? &l2_move_by<T, Move::kNone>
                      : (unsafe ? &l2_move_by<T, Move::kUnsafe> : &l2_move_by<T, Move::kSafe>);
  return by(adv, gradient, x, n, direction, clipped, box, out);
}

template <typename T, bool kArrays>
void l2_shrink_loop(const T* x, int64_t n, T factor, Box<T> box, T* out) {
  map_entries<T>(out, n, [&](auto shape, int64_t i) {
    using S = decltype(shape);
    return l2_entry<typename S::Values>(load<S>(out + i), load<S>(x + i), all<S>(factor),
                                        lows<kArrays, S>(box, i), highs<kArrays, S>(box, i));
  });
}

template <typename T>
void l2_shrink(const T* x, int64_t n, T factor, const Box<T>& box, T* out) {
  const auto loop = box.arrays ? &l2_shrink_loop<T, true> : &l2_shrink_loop<T, false>;
  loop(x, n, factor, box, out);
}

// ---- L1

template <typename T, bool kArrays>
void l1_sizes_loop(const T* adv, const T* gradient, int64_t n, bool descend, Box<T> box, T* sizes) {
  const T sign = descend ? T{-1} : T{1};
  map_entries<T>(sizes, n, [&](auto shape, int64_t i) {
    using S = decltype(shape);
    return l1_size<T, typename S::Values>(load<S>(adv + i), load<S>(gradient + i), all<S>(sign),
                                          lows<kArrays, S>(box, i), highs<kArrays, S>(box, i));
  });
}

template <typename T>
void l1_sizes(const T* adv, const T* gradient, int64_t n, bool descend, const Box<T>& box,
              T* sizes) {
  const auto loop = box.arrays ? &l1_sizes_loop<T, true> : &l1_sizes_loop<T, false>;
  loop(adv, gradient, n, descend, box, sizes);
}

template <typename T>
typename PgdKernels<T>::Counts pack_between(const T* values, int64_t n, T low, T high, T* between) {
  int64_t above = 0, packed = 0, i = 0;
#if REPSIM_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<T, float>) {
    const __m512 lows = _mm512_set1_ps(low), highs = _mm512_set1_ps(high);
    for (; i + 16 <= n; i += 16) {
      const __m512 v = _mm512_loadu_ps(values + i);
      above += __builtin_popcount(_mm512_cmp_ps_mask(v, highs, _CMP_GT_OQ));
      const __mmask16 in =
          _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, lows, _CMP_GE_OQ), v, highs, _CMP_LE_OQ);
      _mm512_storeu_ps(between + packed, _mm512_maskz_compress_ps(in, v));
      packed += __builtin_popcount(in);
    }
  }
#endif
  for (; i < n; ++i) {
    between[packed] = values[i];
    packed += (values[i] >= low) & (values[i] <= high);
    above += values[i] > high;
  }
  return {above, packed};
}

// ShrinkSums of vectors of rests and rooms; like sum_of, in double after every run.
template <typename T>
class ShrinkTotals {
 public:
  using W = Wide<T>;
  using L = Lanes<T>;

  REPSIM_INLINE void add(typename W::Values rest, typename W::Values room) {
    const typename W::Values zero = {}, positive = rest > zero ? rest : zero;
    part_ += positive > room ? room : positive;
    above_ -= (rest > zero) & (rest <= room);
    below_ -= (rest >= zero) & (rest < room);
    if (++in_run_ == kRun) end_run();
  }

  REPSIM_INLINE ShrinkSums sums() {
    end_run();
    ShrinkSums sums;
    for (int lane = 0; lane < L::kCount; ++lane) sums.total += totals_[lane];
    for (int lane = 0; lane < W::kCount; ++lane) {
      sums.above += above_[lane];
      sums.below += below_[lane];
    }
    return sums;
  }

 private:
  static constexpr int kRun = 16;  // vectors

  REPSIM_INLINE void end_run() {
    T values[W::kCount];
    store<W>(values, part_);
    for (int lane = 0; lane < W::kCount; lane += L::kCount) {
      totals_ += __builtin_convertvector(load<L>(values + lane), typename L::Sums);
    }
    part_ = typename W::Values{};
    in_run_ = 0;
  }

  typename W::Values part_ = {};
  typename W::Index above_ = {}, below_ = {};
  typename L::Sums totals_ = {};
  int in_run_ = 0;
};

template <typename T, bool kMoves, bool kArrays>
typename PgdKernels<T>::Moved l1_move_loop(const T* adv, const T* gradient, const T* sizes,
                                           const T* x, int64_t n, SparseMove<T> move, Box<T> box,
                                           T* out, T* lengths, T* rooms) {
  using W = Wide<T>;
  const auto moved = [&](auto shape, int64_t i) {
    using S = decltype(shape);
    using V = typename S::Values;
    V v = load<S>(adv + i);
    if constexpr (kMoves) {
      v = l1_moved<V>(v, load<S>(gradient + i), load<S>(sizes + i), all<S>(move.least),
                      all<S>(move.size));
    }
    const V center = load<S>(x + i), u = v - center;
    store<S>(out + i, v);
    store<S>(lengths + i, magnitude<V>(u));
    store<S>(rooms + i, room<V>(u, center, lows<kArrays, S>(box, i), highs<kArrays, S>(box, i)));
  };
  ShrinkTotals<T> totals;
  typename W::Values most = {};
  int64_t i = 0;
  for (; i + W::kCount <= n; i += W::kCount) {
    moved(W{}, i);
    const auto length = load<W>(lengths + i);
    totals.add(length, load<W>(rooms + i));
    most = length > most ? length : most;
  }
  ShrinkSums sums = totals.sums();
  T largest = 0;
  for (int lane = 0; lane < W::kCount; ++lane) largest = std::max(largest, most[lane]);
  for (; i < n; ++i) {
    moved(Single<T>{}, i);
    const T length = lengths[i], c = rooms[i];
    if (!(length >= 0)) continue;  // NaN
    sums.total += static_cast<double>(std::min(length, c));
    sums.above += (length > 0) & (length <= c);
    sums.below += length < c;
    largest = std::max(largest, length);
  }
  return {sums, largest};
}

template <typename T>
typename PgdKernels<T>::Moved l1_move(const T* adv, const T* gradient, const T* sizes, const T* x,
                                      int64_t n, SparseMove<T> move, const Box<T>& box, T* out,
                                      T* lengths, T* rooms) {
  const auto loop =
      gradient != nullptr
          ? (box.arrays ? &l1_move_loop<T, true, true> : &l1_move_loop<T, true, false>)
          : (box.arrays ? &l1_move_loop<T, false, true> : &l1_move_loop<T, false, false>);
  return loop(adv, gradient, sizes, x, n, move, box, out, lengths, rooms);
}

// Appends the entries of one vector of lengths > threshold; returns their number.
template <typename T>
REPSIM_INLINE int64_t pack_longer(const T* lengths, const T* rooms, T threshold, T* longer_lengths,
                                  T* longer_rooms) {
#if REPSIM_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<T, float>) {
    const __m512 length = _mm512_loadu_ps(lengths), room = _mm512_loadu_ps(rooms);
    const __mmask16 longer = _mm512_cmp_ps_mask(length, _mm512_set1_ps(threshold), _CMP_GT_OQ);
    _mm512_storeu_ps(longer_lengths, _mm512_maskz_compress_ps(longer, length));
    _mm512_storeu_ps(longer_rooms, _mm512_maskz_compress_ps(longer, room));
    return __builtin_popcount(longer);
  }
#endif
  int64_t packed = 0;
  for (int lane = 0; lane < Wide<T>::kCount; ++lane) {
    longer_lengths[packed] = lengths[lane];
    longer_rooms[packed] = rooms[lane];
    packed += lengths[lane] > threshold;
  }
  return packed;
}

template <typename T>
typename PgdKernels<T>::Shrunk l1_sums(const T* lengths, const T* rooms, int64_t n, T threshold,
                                       T* longer_lengths, T* longer_rooms) {
  using W = Wide<T>;
  using Values = typename W::Values;
  const Values t = all<W>(threshold);
  ShrinkTotals<T> totals;
  int64_t packed = 0;
  for (int64_t i = 0; i < n; i += W::kCount) {
    totals.add(load<W>(lengths + i) - t, load<W>(rooms + i));
    packed += pack_longer(lengths + i, rooms + i, threshold, longer_lengths + packed,
                          longer_rooms + packed);
  }
  std::fill_n(longer_lengths + packed, kPackSlack, T{0});
  std::fill_n(longer_rooms + packed, kPackSlack, T{0});
  return {totals.sums(), packed};
}

template <typename T, bool kArrays>
void l1_shrink_loop(const T* x, int64_t n, T threshold, T threshold_rest, Box<T> box, T* out) {
  map_entries<T>(out, n, [&](auto shape, int64_t i) {
    using S = decltype(shape);
    return l1_entry<typename S::Values>(load<S>(out + i), load<S>(x + i), all<S>(threshold),
                                        all<S>(threshold_rest), lows<kArrays, S>(box, i),
                                        highs<kArrays, S>(box, i));
  });
}

template <typename T>
void l1_shrink(const T* x, int64_t n, T threshold, T threshold_rest, const Box<T>& box, T* out) {
  const auto loop = box.arrays ? &l1_shrink_loop<T, true> : &l1_shrink_loop<T, false>;
  loop(x, n, threshold, threshold_rest, box, out);
}

// ---- random starts

REPSIM_INLINE void square_roots(float* values) {  // kRandomLanes of them
#if REPSIM_X86 && REPSIM_VECTOR_BYTES == 64
  for (int i = 0; i < kRandomLanes; i += 16) {
    _mm512_storeu_ps(values + i, _mm512_maskz_sqrt_ps(0xffff, _mm512_loadu_ps(values + i)));
  }
#elif REPSIM_X86 && REPSIM_VECTOR_BYTES == 32
  for (int i = 0; i < kRandomLanes; i += 8) {
    _mm256_storeu_ps(values + i, _mm256_sqrt_ps(_mm256_loadu_ps(values + i)));
  }
#else
  for (int i = 0; i < kRandomLanes; ++i) values[i] = std::sqrt(values[i]);
#endif
}

inline void noise(Norm norm, RandomStream stream, uint32_t row, int64_t block, float* noise) {
  uint32_t words[4][kRandomLanes];
  const auto first = static_cast<uint32_t>(block * kRandomLanes);
  REPSIM_INDEPENDENT
  for (int lane = 0; lane < kRandomLanes; ++lane) {
    const RandomWords four = random_words(stream, row, first + static_cast<uint32_t>(lane));
    words[0][lane] = four.word[0];
    words[1][lane] = four.word[1];
    words[2][lane] = four.word[2];
    words[3][lane] = four.word[3];
  }
  const uint32_t* flat = &words[0][0];
  if (norm == Norm::kLinf) {
    for (int i = 0; i < kRandomBlock; ++i) noise[i] = symmetric_uniform(flat[i]);
  } else if (norm == Norm::kL1) {
    for (int i = 0; i < kRandomBlock; ++i) noise[i] = signed_exponential(flat[i]);
  } else {
    for (int pair = 0; pair < 2; ++pair) {
      const uint32_t* radii = words[2 * pair];
      const uint32_t* angles = words[2 * pair + 1];
      float* xs = noise + 2 * pair * kRandomLanes;
      float* ys = xs + kRandomLanes;
      float radius[kRandomLanes];
      for (int lane = 0; lane < kRandomLanes; ++lane) radius[lane] = square_radius(radii[lane]);
      square_roots(radius);
      REPSIM_INDEPENDENT
      for (int lane = 0; lane < kRandomLanes; ++lane) {
        const Point point = circle_point(angles[lane]);
        xs[lane] = radius[lane] * point.x;
        ys[lane] = radius[lane] * point.y;
      }
    }
  }
}

inline double noise_sum(Norm norm, const float* noise, int64_t n) {
  using L = Lanes<float>;
  typename L::Sums sums = {};
  int64_t i = 0;
  for (; i + L::kCount <= n; i += L::kCount) {
    const auto wide = __builtin_convertvector(load<L>(noise + i), typename L::Sums);
    if (norm == Norm::kL2) {
      sums += wide * wide;
    } else {
      sums += wide < 0.0 ? -wide : wide;
    }
  }
  double sum = 0;
  for (int lane = 0; lane < L::kCount; ++lane) sum += sums[lane];
  for (; i < n; ++i) {
    const double value = static_cast<double>(noise[i]);
    sum += norm == Norm::kL2 ? value * value : (value < 0 ? -value : value);
  }
  return sum;
}

template <typename T, bool kArrays>
void place_loop(const float* noise, const T* x, int64_t n, T factor, Box<T> box, T* out) {
  REPSIM_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const T moved = std::fma(static_cast<T>(noise[i]), factor, x[i]);
    out[i] = clip<T>(moved, kArrays ? box.lows[i] : box.low, kArrays ? box.highs[i] : box.high);
  }
}

template <typename T>
void place(const float* noise, const T* x, int64_t n, T factor, const Box<T>& box, T* out) {
  const auto loop = box.arrays ? &place_loop<T, true> : &place_loop<T, false>;
  loop(noise, x, n, factor, box, out);
}

template <typename T>
inline constexpr PgdKernels<T> kPgdKernels = {
    &linf<T>,    &gradient_sum<T>, &l2_move<T>,   &l2_shrink<T>, &l1_sizes<T>, &pack_between<T>,
    &l1_move<T>, &l1_sums<T>,      &l1_shrink<T>, &noise,        &noise_sum,   &place<T>};

#undef REPSIM_INLINE
