// Vectors of one instruction set (part of batched_svd_body.h).

template <typename T>
struct Vector {
  typedef T Type __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
  // In memory, at any entry; not for variables, whose references lose the alignment in Clang.
  typedef T Memory __attribute__((vector_size(REPSIM_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Integer Integers __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
};
template <typename T>
using Vec = typename Vector<T>::Type;
template <typename T>
using Integer = typename Vector<T>::Integer;
template <typename T>
using IntegerVec = typename Vector<T>::Integers;  // also the type of masks: 0 or -1
template <typename T>
constexpr int kLanes = REPSIM_VECTOR_BYTES / sizeof(T);

template <typename T>
constexpr int64_t round_up_to_lanes(int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <typename T>
REPSIM_INLINE Vec<T> load(const T* from) {
  return *reinterpret_cast<const typename Vector<T>::Memory*>(from);
}
template <typename T>
REPSIM_INLINE void store(T* to, Vec<T> value) {
  *reinterpret_cast<typename Vector<T>::Memory*>(to) = value;
}
template <typename T>
REPSIM_INLINE Vec<T> broadcast(T value) {
  return Vec<T>{} + value;
}
template <typename T>
REPSIM_INLINE IntegerVec<T> lane_numbers() {
  IntegerVec<T> numbers{};
  for (int l = 0; l < kLanes<T>; ++l) numbers[l] = l;
  return numbers;
}

template <typename T>
REPSIM_INLINE Vec<T> square_root(Vec<T> x) {
#if REPSIM_X86 && REPSIM_VECTOR_BYTES == 64
  // The forms without a mask make GCC 12 warn of an uninitialised operand.
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
#elif REPSIM_X86 && REPSIM_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_sqrt_ps((__m256)x);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm256_sqrt_pd((__m256d)x);
#elif REPSIM_X86
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm_sqrt_ps((__m128)x);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm_sqrt_pd((__m128d)x);
#else
  for (int l = 0; l < kLanes<T>; ++l) x[l] = std::sqrt(x[l]);
  return x;
#endif
}

template <typename T>
REPSIM_INLINE Vec<T> absolute(Vec<T> x) {
  return (Vec<T>)((IntegerVec<T>)x & std::numeric_limits<Integer<T>>::max());
}
template <typename T>
REPSIM_INLINE bool any(IntegerVec<T> mask) {
  Integer<T> all = 0;
  for (int l = 0; l < kLanes<T>; ++l) all |= mask[l];
  return all != 0;
}

// Lane l of the result: a[l] + a[l ^ kStep] where bit kStep of l is clear, else the same of b.
template <typename T, int kStep, bool kHigh>
struct Neighbour {
  static constexpr int lane(int l) {
    const int from_b = (l & kStep) != 0 ? kLanes<T> : 0;
    return from_b + (kHigh ? l | kStep : l & ~kStep);
  }
};
template <typename T, int kStep>
REPSIM_INLINE Vec<T> add_neighbours(Vec<T> a, Vec<T> b) {
  using Low = Neighbour<T, kStep, false>;
  using High = Neighbour<T, kStep, true>;
  return REPSIM_SHUFFLE(a, b, Low, IntegerVec<T>, kLanes<T>) +
         REPSIM_SHUFFLE(a, b, High, IntegerVec<T>, kLanes<T>);
}
template <typename T, int kStep>
REPSIM_INLINE Vec<T> add_strided(Vec<T> x) {
  if constexpr (kStep >= kLanes<T>) {
    return x;
  } else {
    return add_strided<T, 2 * kStep>(add_neighbours<T, kStep>(x, x));
  }
}
template <typename T>
REPSIM_INLINE T sum_lanes(Vec<T> x) {
  return add_strided<T, 1>(x)[0];
}
// sums[c] = sum of the lanes of x[c].
template <typename T>
REPSIM_INLINE void sum_lanes_of_four(const Vec<T> (&x)[4], T* sums) {
  const Vec<T> a = add_neighbours<T, 1>(x[0], x[1]), b = add_neighbours<T, 1>(x[2], x[3]);
  if constexpr (kLanes<T> == 2) {
    store(sums, a);
    store(sums + 2, b);
  } else {
    const Vec<T> all = add_strided<T, 4>(add_neighbours<T, 2>(a, b));
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sums[c] = all[c];
  }
}

// In-register transpose of a square: log2(lanes) rounds, each of which exchanges the off-diagonal
// quarters of all blocks of 2 * kHalf rows.
template <typename T, int kHalf, bool kHigh>
struct Exchanged {
  static constexpr int lane(int l) {
    const bool second = (l & kHalf) != 0;
    return (second ? kLanes<T> + l - kHalf : l) + (kHigh ? kHalf : 0);
  }
};
template <typename T, int kHalf = 1>
REPSIM_INLINE void transpose_square(Vec<T>* rows) {
  if constexpr (kHalf < kLanes<T>) {
    using Low = Exchanged<T, kHalf, false>;
    using High = Exchanged<T, kHalf, true>;
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if ((i & kHalf) != 0) continue;
      const Vec<T> a = rows[i], b = rows[i + kHalf];
      rows[i] = REPSIM_SHUFFLE(a, b, Low, IntegerVec<T>, kLanes<T>);
      rows[i + kHalf] = REPSIM_SHUFFLE(a, b, High, IntegerVec<T>, kLanes<T>);
    }
    transpose_square<T, 2 * kHalf>(rows);
  }
}

// make_reflector in every lane.
template <typename T>
struct Reflectors {
  Vec<T> tau, beta, scale;
};
template <typename T>
REPSIM_INLINE Reflectors<T> make_reflectors(Vec<T> first, Vec<T> tail_square) {
  const auto some = tail_square > broadcast(kNegligibleSquare<T>);
  const Vec<T> one = broadcast(T{1}), zero{};
  const Vec<T> norm = square_root<T>(first * first + tail_square);
  const Vec<T> beta = first > zero ? -norm : norm;
  return {.tau = some ? (beta - first) / (some ? beta : one) : zero,
          .beta = some ? beta : first,
          .scale = some ? one / (first - beta) : zero};
}

// jacobi_rotation in every lane; inner may be zero where `needed` is not set: no rotation there.
template <typename T>
struct Rotations {
  Vec<T> c, s;
};
template <typename T>
REPSIM_INLINE Rotations<T> jacobi_rotations(Vec<T> p_square, Vec<T> q_square, Vec<T> inner,
                                            IntegerVec<T> needed) {
  constexpr T kLargeCotangent = T{2} / std::numeric_limits<T>::epsilon();
  const Vec<T> one = broadcast(T{1}), zero{};
  const Vec<T> cotangent = (q_square - p_square) / (needed ? inner + inner : one);
  const Vec<T> size = absolute<T>(cotangent);
  const Vec<T> root =
      size > broadcast(kLargeCotangent) ? size : square_root<T>(one + cotangent * cotangent);
  const Vec<T> tangent = needed ? (cotangent < zero ? -one : one) / (size + root) : zero;
  const Vec<T> c = one / square_root<T>(one + tangent * tangent);
  return {c, c * tangent};
}
