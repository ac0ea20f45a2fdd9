// Vectors of one instruction set, the transpose of a square of them and the middle one of three. As
// tile_kernels_body.h, which includes it: once for each level, with REPSIM_VECTOR_BYTES set.

template <typename T>
struct Vector {
  static constexpr int kLanes = REPSIM_VECTOR_BYTES / sizeof(T);
  typedef T Type __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
  // In memory, at any entry; not for variables, whose references lose the alignment in Clang.
  typedef T Memory __attribute__((vector_size(REPSIM_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  // As many as a vector holds doubles.
  typedef T Few __attribute__((vector_size(REPSIM_VECTOR_BYTES / 8 * sizeof(T)), aligned(sizeof(T)),
                               may_alias));
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index
      __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
};

// Of two vectors, within each 128 bits: the low (or high) halves, unit by unit of kUnit elements in
// turn from a and from b. One instruction, as are the lanes below; a shuffle across lanes is not.
template <typename T, int kUnit, bool kHigh>
struct Interleaved {
  static constexpr int lane(int i) {
    constexpr int kQuad = 16 / sizeof(T);
    const int unit = i % kQuad / kUnit;  // even ones come from a
    return i / kQuad * kQuad + (kHigh ? kQuad / 2 : 0) + unit / 2 * kUnit + i % kUnit +
           unit % 2 * Vector<T>::kLanes;
  }
};

template <typename T, int kUnit, bool kHigh>
inline __attribute__((always_inline)) typename Vector<T>::Type interleave(
    typename Vector<T>::Type a, typename Vector<T>::Type b) {
  using From = Interleaved<T, kUnit, kHigh>;
  return REPSIM_SHUFFLE(a, b, From, typename Vector<T>::Index, Vector<T>::kLanes);
}

// Of the 128-bit lanes of a and then b: every other one, from the first or the second.
template <typename T, int kFirst>
struct EveryOtherLane {
  static constexpr int lane(int i) {
    constexpr int kQuad = 16 / sizeof(T);
    return (2 * (i / kQuad) + kFirst) * kQuad + i % kQuad;
  }
};

template <typename T, int kFirst>
inline __attribute__((always_inline)) typename Vector<T>::Type every_other_lane(
    typename Vector<T>::Type a, typename Vector<T>::Type b) {
  using From = EveryOtherLane<T, kFirst>;
  return REPSIM_SHUFFLE(a, b, From, typename Vector<T>::Index, Vector<T>::kLanes);
}

// In-register transpose of a kLanes x kLanes square: first of the small squares that fill 128 bits,
// then of the lanes of 128 bits.
template <typename T>
inline __attribute__((always_inline)) void transpose_square(typename Vector<T>::Type* rows) {
  using Vec = typename Vector<T>::Type;
  constexpr int kLanes = Vector<T>::kLanes, kQuad = 16 / sizeof(T), kGroups = kLanes / kQuad;
#pragma GCC unroll 16
  for (int g = 0; g < kLanes; g += kQuad) {
    if constexpr (kQuad == 2) {
      const Vec a = rows[g], b = rows[g + 1];
      rows[g] = interleave<T, 1, false>(a, b);
      rows[g + 1] = interleave<T, 1, true>(a, b);
    } else {
      const Vec low_ab = interleave<T, 1, false>(rows[g], rows[g + 1]);
      const Vec high_ab = interleave<T, 1, true>(rows[g], rows[g + 1]);
      const Vec low_cd = interleave<T, 1, false>(rows[g + 2], rows[g + 3]);
      const Vec high_cd = interleave<T, 1, true>(rows[g + 2], rows[g + 3]);
      rows[g] = interleave<T, 2, false>(low_ab, low_cd);
      rows[g + 1] = interleave<T, 2, true>(low_ab, low_cd);
      rows[g + 2] = interleave<T, 2, false>(high_ab, high_cd);
      rows[g + 3] = interleave<T, 2, true>(high_ab, high_cd);
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < kQuad; ++j) {
    if constexpr (kGroups == 2) {
      const Vec a = rows[j], b = rows[j + kQuad];
      rows[j] = every_other_lane<T, 0>(a, b);
      rows[j + kQuad] = every_other_lane<T, 1>(a, b);
    } else if constexpr (kGroups == 4) {
      const Vec a = rows[j], b = rows[j + kQuad], c = rows[j + 2 * kQuad], d = rows[j + 3 * kQuad];
      const Vec even_ab = every_other_lane<T, 0>(a, b), odd_ab = every_other_lane<T, 1>(a, b);
      const Vec even_cd = every_other_lane<T, 0>(c, d), odd_cd = every_other_lane<T, 1>(c, d);
      rows[j] = every_other_lane<T, 0>(even_ab, even_cd);
      rows[j + kQuad] = every_other_lane<T, 0>(odd_ab, odd_cd);
      rows[j + 2 * kQuad] = every_other_lane<T, 1>(even_ab, even_cd);
      rows[j + 3 * kQuad] = every_other_lane<T, 1>(odd_ab, odd_cd);
    }
  }
}

// Of three numbers in each lane the middle one.
template <typename T>
inline __attribute__((always_inline)) typename Vector<T>::Type middle_of_three(
    const typename Vector<T>::Type* three) {
  using Vec = typename Vector<T>::Type;
  const Vec low = three[0] < three[1] ? three[0] : three[1];
  const Vec high = three[0] < three[1] ? three[1] : three[0];
  const Vec below = high < three[2] ? high : three[2];
  return low < below ? below : low;
}
