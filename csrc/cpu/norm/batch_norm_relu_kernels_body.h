// One instruction set's version of the loops of a batch norm with a ReLU after it.
// batch_norm_relu_kernels.cpp includes this file once for each level, inside a namespace and under
// the matching target pragma, with REPSIM_VECTOR_BYTES set; so it has no include guard and includes
// nothing.
//
// Channels are walked a vector at a time, within blocks of rows that stay in the nearest cache, so
// that memory is read once however often a block is. Sums are of floats within a block, of doubles
// across blocks.

#define REPSIM_INLINE inline __attribute__((always_inline))

// A whole vector of channels, and one channel.
struct Wide {
  static constexpr int kCount = REPSIM_VECTOR_BYTES / sizeof(float);
  typedef float Values __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
  typedef uint32_t Bits __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
  typedef uint16_t Halves __attribute__((vector_size(REPSIM_VECTOR_BYTES / 2)));
};
struct Single {
  static constexpr int kCount = 1;
  typedef float Values;
  typedef uint32_t Bits;
  typedef uint16_t Halves;
};

template <typename To, typename From>
REPSIM_INLINE To from_memory(const From* from) {
  To values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

template <typename To, typename From>
REPSIM_INLINE To converted(From values) {
  if constexpr (std::is_arithmetic_v<From>) {
    return static_cast<To>(values);
  } else {
    return __builtin_convertvector(values, To);
  }
}

template <typename Shape>
REPSIM_INLINE typename Shape::Values load(const float* from) {
  return from_memory<typename Shape::Values>(from);
}

template <typename Shape>
REPSIM_INLINE typename Shape::Values load(const Bfloat16* from) {
  const auto halves = from_memory<typename Shape::Halves>(from);
  const auto bits = converted<typename Shape::Bits>(halves) << 16;
  return from_memory<typename Shape::Values>(&bits);
}

template <typename Shape>
REPSIM_INLINE void store(float* to, typename Shape::Values values) {
  std::memcpy(to, &values, sizeof(values));
}

// Rounded to the nearest, ties to even; a NaN stays one.
template <typename Shape>
REPSIM_INLINE void store(Bfloat16* to, typename Shape::Values values) {
  typedef typename Shape::Bits Bits;
  const Bits bits = from_memory<Bits>(&values);
  const Bits rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const Bits kept = values == values ? rounded : (bits | 0x400000);
  const auto halves = converted<typename Shape::Halves>(Bits(kept >> 16));
  std::memcpy(to, &halves, sizeof(halves));
}

// f(shape, channel): by vectors, at the end one by one.
template <typename F>
REPSIM_INLINE void for_channels(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + Wide::kCount <= channels; c += Wide::kCount) f(Wide{}, c);
  for (; c < channels; ++c) f(Single{}, c);
}

// f(first, count): blocks of rows of a quarter of a cache of 48 KiB.
template <typename T, typename F>
REPSIM_INLINE void for_blocks(int64_t rows, int64_t channels, F f) {
  const int64_t row_bytes = std::max<int64_t>(1, channels) * static_cast<int64_t>(sizeof(T));
  const int64_t block = std::clamp<int64_t>((12 << 10) / row_bytes, 16, 256);
  for (int64_t first = 0; first < rows; first += block) f(first, std::min(block, rows - first));
}

// f(row, slot): rows [0, count), four at a time into as many sums.
template <typename F>
REPSIM_INLINE void for_rows(int64_t count, F f) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4) {
    f(r, 0);
    f(r + 1, 1);
    f(r + 2, 2);
    f(r + 3, 3);
  }
  for (; r < count; ++r) f(r, 0);
}

template <typename Values>
REPSIM_INLINE Values total(const Values (&sums)[4]) {
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// f(lane, value): of a vector's entries.
template <typename Shape, typename F>
REPSIM_INLINE void for_lanes(typename Shape::Values values, F f) {
  float entries[Shape::kCount];
  std::memcpy(entries, &values, sizeof(values));
  for (int lane = 0; lane < Shape::kCount; ++lane) f(lane, entries[lane]);
}

template <typename T>
void moments(const T* x, int64_t rows, int64_t channels, double* mean, double* squares) {
  std::fill_n(mean, channels, 0.0);
  std::fill_n(squares, channels, 0.0);
  for_blocks<T>(rows, channels, [&](int64_t first, int64_t count) {
    const double before = static_cast<double>(first), now = static_cast<double>(count);
    for_channels(channels, [&](auto shape, int64_t c) {
      using Shape = decltype(shape);
      using Values = typename Shape::Values;
      const T* at = x + first * channels + c;
      Values sums[4] = {};
      for_rows(count, [&](int64_t r, int slot) { sums[slot] += load<Shape>(at + r * channels); });
      const Values middle = total(sums) / static_cast<float>(count);
      Values rest[4] = {}, deviations[4] = {};
      for_rows(count, [&](int64_t r, int slot) {
        const Values away = load<Shape>(at + r * channels) - middle;
        rest[slot] += away;
        deviations[slot] += away * away;
      });
      double middles[Shape::kCount], rests[Shape::kCount];
      for_lanes<Shape>(middle, [&](int lane, float value) { middles[lane] = value; });
      for_lanes<Shape>(total(rest), [&](int lane, float value) { rests[lane] = value / now; });
      // Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm", 1979.
      for_lanes<Shape>(total(deviations), [&](int lane, float value) {
        const double step = middles[lane] + rests[lane] - mean[c + lane];
        mean[c + lane] += step * (now / (before + now));
        squares[c + lane] +=
            value - now * rests[lane] * rests[lane] + step * step * (before * now / (before + now));
      });
    });
  });
}

// The norm of a vector of channels.
template <typename Shape>
struct Channels {
  typename Shape::Values mean, scale, shift;
  REPSIM_INLINE Channels(const Rectified& norm, int64_t c)
      : mean(load<Shape>(norm.mean + c)),
        scale(load<Shape>(norm.scale + c)),
        shift(load<Shape>(norm.shift + c)) {}
};

template <typename T>
void forward(const T* x, int64_t rows, int64_t channels, const Rectified& norm, T* y) {
  for_blocks<T>(rows, channels, [&](int64_t first, int64_t count) {
    for_channels(channels, [&](auto shape, int64_t c) {
      using Shape = decltype(shape);
      using Values = typename Shape::Values;
      const Channels<Shape> of(norm, c);
      const int64_t at = first * channels + c;
      for (int64_t r = 0; r < count; ++r) {
        const Values value = (load<Shape>(x + at + r * channels) - of.mean) * of.scale + of.shift;
        store<Shape>(y + at + r * channels, value <= 0 ? Values{} : value);
      }
    });
  });
}

// The gradient where the norm's value is above 0.
template <typename Shape, typename Values>
REPSIM_INLINE Values passed(Values grad, Values away, const Channels<Shape>& of) {
  return away * of.scale + of.shift <= 0 ? Values{} : grad;
}

template <typename T>
void sums(const T* grad, const T* x, int64_t rows, int64_t channels, const Rectified& norm,
          double* sum, double* product) {
  std::fill_n(sum, channels, 0.0);
  std::fill_n(product, channels, 0.0);
  for_blocks<T>(rows, channels, [&](int64_t first, int64_t count) {
    for_channels(channels, [&](auto shape, int64_t c) {
      using Shape = decltype(shape);
      using Values = typename Shape::Values;
      const Channels<Shape> of(norm, c);
      const int64_t at = first * channels + c;
      Values gradients[4] = {}, products[4] = {};
      for_rows(count, [&](int64_t r, int slot) {
        const Values away = load<Shape>(x + at + r * channels) - of.mean;
        const Values through = passed<Shape>(load<Shape>(grad + at + r * channels), away, of);
        gradients[slot] += through;
        products[slot] += through * away;
      });
      for_lanes<Shape>(total(gradients), [&](int lane, float v) { sum[c + lane] += v; });
      for_lanes<Shape>(total(products), [&](int lane, float v) { product[c + lane] += v; });
    });
  });
}

template <typename T>
void backward(const T* grad, const T* x, int64_t rows, int64_t channels, const Rectified& norm,
              const float* slope, const float* offset, T* out) {
  for_blocks<T>(rows, channels, [&](int64_t first, int64_t count) {
    for_channels(channels, [&](auto shape, int64_t c) {
      using Shape = decltype(shape);
      using Values = typename Shape::Values;
      const Channels<Shape> of(norm, c);
      const Values slopes = load<Shape>(slope + c), offsets = load<Shape>(offset + c);
      const int64_t at = first * channels + c;
      for (int64_t r = 0; r < count; ++r) {
        const Values away = load<Shape>(x + at + r * channels) - of.mean;
        const Values through = passed<Shape>(load<Shape>(grad + at + r * channels), away, of);
        store<Shape>(out + at + r * channels, through * of.scale + (away * slopes + offsets));
      }
    });
  });
}

template <typename T>
constexpr BatchNormReluKernels<T> kBatchNormReluKernels = {moments<T>, forward<T>, sums<T>,
                                                           backward<T>};

#undef REPSIM_INLINE
