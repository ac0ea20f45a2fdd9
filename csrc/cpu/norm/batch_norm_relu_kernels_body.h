// One instruction set's version of the loops of a batch norm with a ReLU after it.
// batch_norm_relu_kernels.cpp includes this file once for each level, inside a namespace and under
// the matching target pragma, with REPSIM_VECTOR_BYTES set; so it has no include guard and includes
// nothing.
//
// A matrix is walked from one end to the other, as memory is the fastest. Sums are of floats within
// a block, of doubles across blocks.

#define REPSIM_INLINE inline __attribute__((always_inline))
#define REPSIM_LAMBDA_INLINE __attribute__((always_inline))

constexpr int kLanes = REPSIM_VECTOR_BYTES / sizeof(float);
constexpr int64_t kStrip = kStripVectors * kLanes;
typedef float Values __attribute__((vector_size(REPSIM_VECTOR_BYTES)));
typedef uint32_t Bits __attribute__((vector_size(REPSIM_VECTOR_BYTES)));

// What is loaded at once, a vector's bytes: of bfloat16 the even entries and the odd ones.
template <typename T>
struct Step {
  static constexpr int kVectors = sizeof(float) / sizeof(T);
  static constexpr int kEntries = kVectors * kLanes;
  Values of[kVectors];
};

template <typename To, typename From>
REPSIM_INLINE To from_memory(const From* from) {
  To values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

REPSIM_INLINE Step<float> load(const float* from) { return {{from_memory<Values>(from)}}; }

REPSIM_INLINE Step<Bfloat16> load(const Bfloat16* from) {
  const Bits pairs = from_memory<Bits>(from);
  const Bits even = pairs << 16, odd = pairs & 0xffff0000;
  return {{from_memory<Values>(&even), from_memory<Values>(&odd)}};
}

REPSIM_INLINE void store(float* to, const Step<float>& step) {
  std::memcpy(to, step.of, sizeof(step.of));
}

// The upper half has the bfloat16 that is nearest, ties to even; a NaN stays one.
REPSIM_INLINE Bits rounded(Values values) {
  const Bits bits = from_memory<Bits>(&values);
  return values == values ? bits + 0x7fff + ((bits >> 16) & 1) : (bits | 0x400000);
}

REPSIM_INLINE void store(Bfloat16* to, const Step<Bfloat16>& step) {
  const Bits pairs = (rounded(step.of[0]) >> 16) | (rounded(step.of[1]) & 0xffff0000);
  std::memcpy(to, &pairs, sizeof(pairs));
}

// Of an array in the order of lanes.
REPSIM_INLINE Values at(const float* lanes, int64_t position) {
  return from_memory<Values>(lanes + position);
}

// The first count of some entries, and zeros.
template <typename T>
struct Padded {
  T entries[kStrip] = {};
  Padded(const T* from, int64_t count) { std::memcpy(entries, from, count * sizeof(T)); }
};

// to = f(position, values of from), entry by entry.
template <typename T, typename F, typename... From>
REPSIM_INLINE void mapped(int64_t period, int64_t count, T* to, F f, const From*... from) {
  const auto strip = [&](int64_t position, T* result, const auto*... given) REPSIM_LAMBDA_INLINE {
    for (int64_t s = 0; s < kStrip; s += Step<T>::kEntries) {
      [&](const auto&... steps) REPSIM_LAMBDA_INLINE {
        Step<T> found;
        for (int v = 0; v < Step<T>::kVectors; ++v) {
          found.of[v] = f(position + s + v * kLanes, steps.of[v]...);
        }
        store(result + s, found);
      }(load(given + s)...);
    }
  };
  int64_t first = 0, position = 0;
  for (; first + kStrip <= count; first += kStrip) {
    strip(position, to + first, (from + first)...);
    position += kStrip;
    if (position == period) position = 0;
  }
  if (first == count) return;
  T rest[kStrip];
  strip(position, rest, Padded<T>(from + first, count - first).entries...);
  std::memcpy(to + first, rest, (count - first) * sizeof(T));
}

// Two sums of the entries of each lane of a strip.
struct StripSums {
  Values first[kStripVectors] = {}, second[kStripVectors] = {};
};

// Of a strip and those one, two, ... periods further on: f(first, second, position, values of from)
// adds to both.
template <typename T, typename F, typename... From>
REPSIM_INLINE StripSums strip_sums(int64_t period, int64_t periods, int64_t position, F f,
                                   const From*... from) {
  StripSums sums;
  for (int64_t first = 0; first < periods * period; first += period) {
    for (int s = 0; s < kStripVectors; s += Step<T>::kVectors) {
      [&](const auto&... steps) REPSIM_LAMBDA_INLINE {
        for (int v = 0; v < Step<T>::kVectors; ++v) {
          f(sums.first[s + v], sums.second[s + v], position + (s + v) * kLanes, steps.of[v]...);
        }
      }(load(from + first + s * kLanes)...);
    }
  }
  return sums;
}

// Adds to sums of lanes those of the first count entries of a strip.
template <typename T>
REPSIM_INLINE void add(const StripSums& sums, int64_t count, double* first, double* second) {
  for (int vector = 0; vector < kStripVectors; ++vector) {
    for (int lane = 0; lane < kLanes; ++lane) {
      if (entry_of_lane<T>(kLanes, vector * kLanes + lane) >= count) continue;
      first[vector * kLanes + lane] += sums.first[vector][lane];
      second[vector * kLanes + lane] += sums.second[vector][lane];
    }
  }
}

// Adds to sums of lanes those of f over the entries.
template <typename T, typename F, typename... From>
REPSIM_INLINE void add_sums(int64_t period, int64_t count, double* first, double* second, F f,
                            const From*... from) {
  const int64_t periods = count / period;
  // A quarter of a cache of 48 KiB, with sums that are worth their way to memory.
  const int64_t bytes = period * static_cast<int64_t>(sizeof(T));
  const int64_t block = std::clamp<int64_t>((12 << 10) / bytes, 16, 64);
  for (int64_t done = 0; done < periods; done += block) {
    const int64_t now = std::min(block, periods - done);
    for (int64_t position = 0; position < period; position += kStrip) {
      const auto sums =
          strip_sums<T>(period, now, position, f, (from + done * period + position)...);
      add<T>(sums, kStrip, first + position, second + position);
    }
  }
  for (int64_t begin = periods * period, position = 0; begin < count;
       begin += kStrip, position += kStrip) {
    const int64_t left = std::min(kStrip, count - begin);
    const auto sums =
        strip_sums<T>(period, 1, position, f, Padded<T>(from + begin, left).entries...);
    add<T>(sums, left, first + position, second + position);
  }
}

template <typename T>
void deviations(const T* x, int64_t count, int64_t period, const float* pivot, double* sum,
                double* squares) {
  const auto deviation = [&](Values& first, Values& second, int64_t position, Values value)
                             REPSIM_LAMBDA_INLINE {
                               const Values away = value - at(pivot, position);
                               first += away;
                               second += away * away;
                             };
  add_sums<T>(period, count, sum, squares, deviation, x);
}

template <typename T>
void forward(const T* x, int64_t count, int64_t period, const Rectified& norm, T* y) {
  const auto rectified = [&](int64_t position, Values value) REPSIM_LAMBDA_INLINE {
    const Values away = value - at(norm.mean, position);
    const Values normal = away * at(norm.scale, position) + at(norm.shift, position);
    return normal <= 0 ? Values{} : normal;
  };
  mapped<T>(period, count, y, rectified, x);
}

// The gradient where the norm's value is above 0.
REPSIM_INLINE Values passed(Values gradient, Values away, const Rectified& norm, int64_t position) {
  const Values normal = away * at(norm.scale, position) + at(norm.shift, position);
  return normal <= 0 ? Values{} : gradient;
}

template <typename T>
void sums(const T* grad, const T* x, int64_t count, int64_t period, const Rectified& norm,
          double* sum, double* product) {
  const auto through = [&](Values& first, Values& second, int64_t position, Values gradient,
                           Values value) REPSIM_LAMBDA_INLINE {
    const Values away = value - at(norm.mean, position);
    const Values kept = passed(gradient, away, norm, position);
    first += kept;
    second += kept * away;
  };
  add_sums<T>(period, count, sum, product, through, grad, x);
}

template <typename T>
void backward(const T* grad, const T* x, int64_t count, int64_t period, const Rectified& norm,
              const float* slope, const float* offset, T* out) {
  const auto back = [&](int64_t position, Values gradient, Values value) REPSIM_LAMBDA_INLINE {
    const Values away = value - at(norm.mean, position);
    const Values kept = passed(gradient, away, norm, position);
    return kept * at(norm.scale, position) + (away * at(slope, position) + at(offset, position));
  };
  mapped<T>(period, count, out, back, grad, x);
}

template <typename T>
constexpr BatchNormReluKernels<T> kBatchNormReluKernels = {kLanes, deviations<T>, forward<T>,
                                                           sums<T>, backward<T>};

#undef REPSIM_LAMBDA_INLINE
#undef REPSIM_INLINE
