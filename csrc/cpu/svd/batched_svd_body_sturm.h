// math/sturm.h for a vector of abscissae at once (part of batched_svd_body.h).
//
// kTogether: the lanes are different matrices, the squares interleaved like them. Otherwise the
// lanes are different singular values of one matrix.

// Vectors counted at once: independent chains that hide the latency of a step. Sixteen registers
// hold two, thirty-two four.
constexpr int kSturmVectors = REPSIM_VECTOR_BYTES == 64 ? 4 : 2;

// rescaling_factor in every lane
template <typename T>
REPSIM_INLINE Vec<T> rescaling_factors(Vec<T> a, Vec<T> b) {
  constexpr int kMantissa = std::numeric_limits<T>::digits - 1;
  constexpr Integer<T> kExponent = std::numeric_limits<Integer<T>>::max() >> kMantissa << kMantissa;
  const IntegerVec<T> a_bits = (IntegerVec<T>)a & kExponent, b_bits = (IntegerVec<T>)b & kExponent;
  return (Vec<T>)(kExponent - (Integer<T>{1} << kMantissa) - (a_bits > b_bits ? a_bits : b_bits));
}

template <typename T, bool kTogether>
REPSIM_INLINE Vec<T> sturm_square(const T* squares, int64_t i) {
  if constexpr (kTogether) return load(squares + i * kLanes<T>);
  return broadcast(squares[i]);
}

// above[t] = number of singular values > x[t].
template <typename T, bool kTogether, int kVectors>
void count_above(const Vec<T> (&x)[kVectors], const T* squares, int64_t n,
                 IntegerVec<T> (&above)[kVectors]) {
  constexpr int kSign = sizeof(T) * 8 - 1;
  static_assert(kSturmRescale == 4);
  // Two steps at a time take turns as the newer minor, so that nothing is moved.
  Vec<T> even[kVectors], odd[kVectors];
  IntegerVec<T> changes[kVectors] = {};
  const auto step = [](Vec<T> x, Vec<T> square, Vec<T>& before, Vec<T> minor,
                       IntegerVec<T>& changes) __attribute__((always_inline)) {
    before = x * minor - square * before;
    changes += ((IntegerVec<T>)before ^ (IntegerVec<T>)minor) >> kSign;  // -1 for a change
  };
#pragma GCC unroll 4
  for (int t = 0; t < kVectors; ++t) {
    even[t] = broadcast(T{1});
    odd[t] = x[t];
  }
  const int64_t steps = 2 * n - 1;
  for (int64_t i = 0; i + 1 < steps; i += 2) {
    const Vec<T> first = sturm_square<T, kTogether>(squares, i);
    const Vec<T> second = sturm_square<T, kTogether>(squares, i + 1);
#pragma GCC unroll 4
    for (int t = 0; t < kVectors; ++t) {
      step(x[t], first, even[t], odd[t], changes[t]);
      step(x[t], second, odd[t], even[t], changes[t]);
    }
    if (i % kSturmRescale == kSturmRescale - 2) {
#pragma GCC unroll 4
      for (int t = 0; t < kVectors; ++t) {
        const Vec<T> factor = rescaling_factors<T>(even[t], odd[t]);
        even[t] *= factor;
        odd[t] *= factor;
      }
    }
  }
  const Vec<T> final = sturm_square<T, kTogether>(squares, steps - 1);
#pragma GCC unroll 4
  for (int t = 0; t < kVectors; ++t) {
    step(x[t], final, even[t], odd[t], changes[t]);
    above[t] = -changes[t];
  }
}

// Counts at the multiples of 2^-bits narrow every interval for the cost of about one bisection.
constexpr int grid_bits(int64_t n) {
  int bits = 0;
  while ((int64_t{1} << bits) < n) ++bits;
  return bits;
}

// values[t] in lane l: the singular value of rank (first + t) if together, else first + t * lanes +
// l.
template <typename T, bool kTogether, int kVectors>
void bisect(const T* squares, int64_t n, int64_t first, const T* grid_counts, int bits,
            Vec<T> (&values)[kVectors]) {
  Vec<T> low[kVectors], high[kVectors], middle[kVectors];
  IntegerVec<T> rank[kVectors], above[kVectors];
#pragma GCC unroll 4
  for (int t = 0; t < kVectors; ++t) {
    const auto number = static_cast<Integer<T>>(kTogether ? first + t : first + t * kLanes<T>);
    rank[t] = (kTogether ? IntegerVec<T>{} : lane_numbers<T>()) + number;
    low[t] = Vec<T>{};
    high[t] = broadcast(T{1});
  }
  const T width = std::ldexp(T{1}, -bits);
  for (int64_t g = 1; g < int64_t{1} << bits; ++g) {
    const Vec<T> x = broadcast(static_cast<T>(g) * width);
    const Vec<T> count = sturm_square<T, kTogether>(grid_counts, g);
#pragma GCC unroll 4
    for (int t = 0; t < kVectors; ++t) {
      const auto more = count > __builtin_convertvector(rank[t], Vec<T>);
      low[t] = more ? x : low[t];
      high[t] = more || high[t] < x ? high[t] : x;
    }
  }
  for (int step = bits; step < kSturmBits<T>; ++step) {
#pragma GCC unroll 4
    for (int t = 0; t < kVectors; ++t) middle[t] = (low[t] + high[t]) * T(0.5);
    count_above<T, kTogether, kVectors>(middle, squares, n, above);
#pragma GCC unroll 4
    for (int t = 0; t < kVectors; ++t) {
      const auto more = above[t] > rank[t];
      low[t] = more ? middle[t] : low[t];
      high[t] = more ? high[t] : middle[t];
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kVectors; ++t) {
    values[t] = low[t] == Vec<T>{} ? low[t] : (low[t] + high[t]) * T(0.5);
  }
}

template <typename T, bool kTogether>
int64_t bidiagonal_values_workspace(int64_t n) {
  const int64_t lanes = kTogether ? kLanes<T> : 1;
  return round_up_to_lanes<T>(2 * n * lanes) +
         round_up_to_lanes<T>(std::max<int64_t>(int64_t{1} << grid_bits(n), kSturmVectors) *
                              (kTogether ? lanes : 1)) +
         kSturmVectors * kLanes<T>;
}

// Singular values, descending, of bidiagonal matrices: diagonal (n,), above (n - 1,), values (n,);
// interleaved if together.
template <typename T, bool kTogether>
void bidiagonal_values(const T* diagonal, const T* above, int64_t n, T* values, T* workspace) {
  constexpr int64_t kMatrices = kTogether ? kLanes<T> : 1;
  T* squares = workspace;
  T* grid_counts = squares + round_up_to_lanes<T>(2 * n * kMatrices);

  // The norm is at most the largest sum of a row of |T|.
  T bound[kMatrices] = {}, inverse[kMatrices];
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t l = 0; l < kMatrices; ++l) {
      const T here = std::abs(diagonal[i * kMatrices + l]);
      const T left = i > 0 ? std::abs(above[(i - 1) * kMatrices + l]) : T{0};
      const T right = i + 1 < n ? std::abs(above[i * kMatrices + l]) : T{0};
      bound[l] = std::max(bound[l], here + std::max(left, right));
    }
  }
  for (int64_t l = 0; l < kMatrices; ++l) inverse[l] = bound[l] > T{0} ? T{1} / bound[l] : T{0};
  const auto square = [](T x) { return std::max(x * x, kLeastSturmSquare<T>); };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t l = 0; l < kMatrices; ++l) {
      const int64_t entry = i * kMatrices + l;
      squares[2 * i * kMatrices + l] = square(diagonal[entry] * inverse[l]);
      if (i + 1 < n) squares[(2 * i + 1) * kMatrices + l] = square(above[entry] * inverse[l]);
    }
  }

  const int bits = grid_bits(n);
  const T width = std::ldexp(T{1}, -bits);
  constexpr int64_t kPerVector = kTogether ? 1 : kLanes<T>;
  for (int64_t g = 0; g < int64_t{1} << bits; g += kSturmVectors * kPerVector) {
    Vec<T> x[kSturmVectors];
    IntegerVec<T> count[kSturmVectors];
    for (int t = 0; t < kSturmVectors; ++t) {
      const Vec<T> offset =
          kTogether ? Vec<T>{} : __builtin_convertvector(lane_numbers<T>(), Vec<T>);
      x[t] = (offset + static_cast<T>(g + t * kPerVector)) * width;
    }
    count_above<T, kTogether, kSturmVectors>(x, squares, n, count);
    for (int t = 0; t < kSturmVectors; ++t) {
      store<T>(grid_counts + (g + t * kPerVector) * kMatrices,
               __builtin_convertvector(count[t], Vec<T>));
    }
  }

  const auto some = [&]<int kVectors>(std::integral_constant<int, kVectors>, int64_t first) {
    Vec<T> found[kVectors];
    bisect<T, kTogether, kVectors>(squares, n, first, grid_counts, bits, found);
    for (int t = 0; t < kVectors; ++t) {
      for (int64_t l = 0; l < kLanes<T>; ++l) {
        const int64_t rank = kTogether ? first + t : first + t * kLanes<T> + l;
        if (rank < n)
          values[kTogether ? rank * kMatrices + l : rank] = found[t][l] * bound[kTogether ? l : 0];
      }
    }
  };
  for (int64_t first = 0; first < n; first += kSturmVectors * kPerVector) {
    if (kSturmVectors > 2 && n - first <= 2 * kPerVector) {
      some(std::integral_constant<int, 2>{}, first);
    } else {
      some(std::integral_constant<int, kSturmVectors>{}, first);
    }
  }
}
