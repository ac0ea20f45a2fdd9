// A batch norm with a ReLU after it, and its gradient, on the CPU.
//
// Chunks of rows depend on the shape only, and their sums are added in order: the result has the
// same bits with any number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/norm/batch_norm_relu_kernels.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Entries that are worth a thread's start, and so many periods of strips of any processor's that
// sums of lanes are few beside what they are of.
constexpr int64_t kChunk = int64_t{1} << 17, kChunkPeriods = 16, kLongestStrip = 64;
constexpr int64_t kMaxChunks = 64;

struct Shape {
  int64_t rows, channels;

  // None is without a row where there are any.
  int64_t chunks() const {
    const int64_t period = std::lcm(std::max<int64_t>(1, channels), kLongestStrip);
    const int64_t entries = std::max(kChunk, kChunkPeriods * period);
    return std::max<int64_t>(1, std::min({rows * channels / entries, kMaxChunks, rows}));
  }
  int64_t begin(int64_t chunk) const { return rows * chunk / chunks(); }
  int64_t longest() const { return (rows + chunks() - 1) / chunks() * channels; }  // entries

  // f(chunk, first row, number of rows), shared among threads.
  template <typename F>
  void for_chunks(F f) const {
    torch::stable::parallel_for(0, chunks(), 1, [&](int64_t first, int64_t last) {
      for (int64_t chunk = first; chunk < last; ++chunk) {
        f(chunk, begin(chunk), begin(chunk + 1) - begin(chunk));
      }
    });
  }
};

// Numbers of channels in the order in which the kernels' lanes meet them.
template <typename T>
class Lanes {
 public:
  // A period need not be longer than what it is walked for.
  explicit Lanes(const Shape& shape) : channels_(shape.channels) {
    const int64_t lanes = batch_norm_relu_kernels<T>().lanes, strip = kStripVectors * lanes;
    std::vector<int64_t> entries(strip);
    for (int64_t lane = 0; lane < strip; ++lane) entries[lane] = entry_of_lane<T>(lanes, lane);
    channel_.resize(
        std::min(std::lcm(channels_, strip), (shape.longest() + strip - 1) / strip * strip));
    for (int64_t first = 0; first < period(); first += strip) {
      for (int64_t lane = 0; lane < strip; ++lane) {
        channel_[first + lane] = (first + entries[lane]) % channels_;
      }
    }
  }

  int64_t period() const { return static_cast<int64_t>(channel_.size()); }

  std::vector<float> in_order(const float* of_channels) const {
    std::vector<float> lanes(period());
    for (int64_t lane = 0; lane < period(); ++lane) lanes[lane] = of_channels[channel_[lane]];
    return lanes;
  }

  // Sums of channels from those that several chunks have of the lanes.
  std::vector<double> summed(const std::vector<double>& of_chunks) const {
    std::vector<double> lanes(period()), found(channels_);
    for (size_t first = 0; first < of_chunks.size(); first += lanes.size()) {
      for (int64_t lane = 0; lane < period(); ++lane) lanes[lane] += of_chunks[first + lane];
    }
    for (int64_t lane = 0; lane < period(); ++lane) found[channel_[lane]] += lanes[lane];
    return found;
  }

 private:
  int64_t channels_;
  std::vector<int64_t> channel_;  // of each lane
};

template <typename T>
const T* values(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* values(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

double inverse_deviation(float variance, double eps) {
  return 1 / std::sqrt(static_cast<double>(variance) + eps);
}

std::vector<float> scales(const Shape& shape, const Tensor& variance, const Tensor& weight,
                          double eps) {
  std::vector<float> found(shape.channels);
  for (int64_t c = 0; c < shape.channels; ++c) {
    found[c] = static_cast<float>(values<float>(weight)[c] *
                                  inverse_deviation(values<float>(variance)[c], eps));
  }
  return found;
}

// Two sums of each channel, of f(chunk's first row, number of rows, sums of lanes to add to).
template <typename T, typename F>
std::pair<std::vector<double>, std::vector<double>> channel_sums(const Shape& shape,
                                                                 const Lanes<T>& lanes, F f) {
  const int64_t period = lanes.period();
  std::vector<double> first(shape.chunks() * period), second(shape.chunks() * period);
  shape.for_chunks([&](int64_t chunk, int64_t row, int64_t count) {
    f(row, count, first.data() + chunk * period, second.data() + chunk * period);
  });
  return {lanes.summed(first), lanes.summed(second)};
}

// The mean of a sixteenth of each chunk: from there deviations are as good as from the mean of all,
// since where it is far away, by sorted rows for example, the variance is as large.
template <typename T>
std::vector<float> pivots(const T* x, const Shape& shape, const Lanes<T>& lanes) {
  const auto part = [](int64_t count) { return (count + 15) / 16; };
  const std::vector<float> nothing(lanes.period());
  const auto sums =
      channel_sums(shape, lanes, [&](int64_t row, int64_t count, double* sum, double* squares) {
        batch_norm_relu_kernels<T>().deviations(x + row * shape.channels,
                                                part(count) * shape.channels, lanes.period(),
                                                nothing.data(), sum, squares);
      });
  int64_t rows = 0;
  for (int64_t chunk = 0; chunk < shape.chunks(); ++chunk) {
    rows += part(shape.begin(chunk + 1) - shape.begin(chunk));
  }
  std::vector<float> found(shape.channels);
  for (int64_t c = 0; c < shape.channels; ++c) {
    found[c] = static_cast<float>(sums.first[c] / static_cast<double>(rows));
  }
  return found;
}

template <typename T>
void batch_moments(const T* x, const Shape& shape, const Lanes<T>& lanes, float* mean,
                   float* variance) {
  const std::vector<float> pivot = pivots(x, shape, lanes), in_order = lanes.in_order(pivot.data());
  const auto [sums, squares] =
      channel_sums(shape, lanes, [&](int64_t row, int64_t count, double* sum, double* square) {
        batch_norm_relu_kernels<T>().deviations(x + row * shape.channels, count * shape.channels,
                                                lanes.period(), in_order.data(), sum, square);
      });
  const double rows = static_cast<double>(shape.rows);
  for (int64_t c = 0; c < shape.channels; ++c) {
    const double step = sums[c] / rows, spread = squares[c] / rows - step * step;
    mean[c] = static_cast<float>(pivot[c] + step);
    variance[c] = static_cast<float>(spread < 0 ? 0 : spread);
  }
}

// A norm in the order of lanes.
template <typename T>
struct Norm {
  std::vector<float> mean, scale, shift;
  Norm(const Lanes<T>& lanes, const float* means, const float* scales, const float* shifts)
      : mean(lanes.in_order(means)), scale(lanes.in_order(scales)), shift(lanes.in_order(shifts)) {}
  Rectified rectified() const { return {mean.data(), scale.data(), shift.data()}; }
};

template <typename T>
void forward(const Tensor& x, const Shape& shape, const Lanes<T>& lanes, const Norm<T>& norm,
             Tensor& y) {
  shape.for_chunks([&](int64_t, int64_t row, int64_t count) {
    const int64_t at = row * shape.channels;
    batch_norm_relu_kernels<T>().forward(values<T>(x) + at, count * shape.channels, lanes.period(),
                                         norm.rectified(), values<T>(y) + at);
  });
}

// What a channel's gradient adds up to, also as it goes back through the moments of a batch.
struct Sums {
  std::vector<float> weight_grad, bias_grad, slopes, offsets;
  explicit Sums(int64_t channels)
      : weight_grad(channels), bias_grad(channels), slopes(channels), offsets(channels) {}
};

template <typename T>
Sums summed(const Tensor& grad, const Tensor& x, const Shape& shape, const Lanes<T>& lanes,
            const Norm<T>& norm, const std::vector<float>& scale, const Tensor& variance,
            double eps, bool constant) {
  const auto [sums, products] =
      channel_sums(shape, lanes, [&](int64_t row, int64_t count, double* sum, double* product) {
        const int64_t at = row * shape.channels;
        batch_norm_relu_kernels<T>().sums(values<T>(grad) + at, values<T>(x) + at,
                                          count * shape.channels, lanes.period(), norm.rectified(),
                                          sum, product);
      });
  const double rows = static_cast<double>(shape.rows);
  Sums found(shape.channels);
  for (int64_t c = 0; c < shape.channels; ++c) {
    const double inverse = inverse_deviation(values<float>(variance)[c], eps);
    found.weight_grad[c] = static_cast<float>(products[c] * inverse);
    found.bias_grad[c] = static_cast<float>(sums[c]);
    if (constant) continue;
    found.slopes[c] = static_cast<float>(-scale[c] * inverse * inverse * products[c] / rows);
    found.offsets[c] = static_cast<float>(-scale[c] * sums[c] / rows);
  }
  return found;
}

template <typename T>
void backward(const Tensor& grad, const Tensor& x, const Shape& shape, const Lanes<T>& lanes,
              const Norm<T>& norm, const Sums& sums, Tensor& out) {
  const std::vector<float> slopes = lanes.in_order(sums.slopes.data());
  const std::vector<float> offsets = lanes.in_order(sums.offsets.data());
  shape.for_chunks([&](int64_t, int64_t row, int64_t count) {
    const int64_t at = row * shape.channels;
    batch_norm_relu_kernels<T>().backward(values<T>(grad) + at, values<T>(x) + at,
                                          count * shape.channels, lanes.period(), norm.rectified(),
                                          slopes.data(), offsets.data(), values<T>(out) + at);
  });
}

// f(T{}): of a matrix's dtype.
template <typename F>
void of_dtype(const Tensor& x, F f) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::BFloat16:
      return f(Bfloat16{});
    default:
      STD_TORCH_CHECK(false, "x: expected float32 or bfloat16");
  }
}

void check_channels(const Tensor& vector, const Tensor& x) {
  STD_TORCH_CHECK(
      vector.dim() == 1 && vector.size(0) == x.size(1) && vector.scalar_type() == ScalarType::Float,
      "weight, bias, mean, variance: expected ", x.size(1), " float32 numbers");
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu(
    const Tensor& x,       // (rows, channels)
    const Tensor& weight,  // (channels), as all below
    const Tensor& bias, const std::optional<Tensor>& mean, const std::optional<Tensor>& variance,
    double eps) {
  STD_TORCH_CHECK(x.dim() == 2, "x: expected a matrix, got ", x.dim(), " dimensions");
  STD_TORCH_CHECK(mean.has_value() == variance.has_value(), "mean, variance: expected both");
  const Shape shape{x.size(0), x.size(1)};
  for (const Tensor& vector : {weight, bias, mean.value_or(weight), variance.value_or(weight)}) {
    check_channels(vector, x);
  }
  const Tensor rows = torch::stable::contiguous(x);
  const Tensor gain = torch::stable::contiguous(weight), shift = torch::stable::contiguous(bias);
  const std::vector<int64_t> sizes = {shape.rows, shape.channels}, vector = {shape.channels};
  Tensor y = torch::stable::new_empty(rows, sizes);
  Tensor means = torch::stable::new_empty(gain, vector);
  Tensor variances = torch::stable::new_empty(gain, vector);
  if (shape.channels == 0) return {y, means, variances};
  of_dtype(x, [&](auto kind) {
    using T = decltype(kind);
    const Lanes<T> lanes(shape);
    if (mean.has_value()) {
      const Tensor given = torch::stable::contiguous(*mean);
      const Tensor given_variance = torch::stable::contiguous(*variance);
      std::copy_n(values<float>(given), shape.channels, values<float>(means));
      std::copy_n(values<float>(given_variance), shape.channels, values<float>(variances));
    } else {
      batch_moments(values<T>(rows), shape, lanes, values<float>(means), values<float>(variances));
    }
    const std::vector<float> scale = scales(shape, variances, gain, eps);
    const Norm<T> norm(lanes, values<float>(means), scale.data(),
                       values<float>(std::as_const(shift)));
    forward(rows, shape, lanes, norm, y);
  });
  return {y, means, variances};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_backward(const Tensor& grad, const Tensor& x,
                                                            const Tensor& weight,
                                                            const Tensor& bias, const Tensor& mean,
                                                            const Tensor& variance, double eps,
                                                            bool constant, bool input_only) {
  STD_TORCH_CHECK(x.dim() == 2, "x: expected a matrix, got ", x.dim(), " dimensions");
  STD_TORCH_CHECK(grad.dim() == 2 && grad.size(0) == x.size(0) && grad.size(1) == x.size(1) &&
                      grad.scalar_type() == x.scalar_type(),
                  "grad: expected the shape and dtype of x");
  for (const Tensor& vector : {weight, bias, mean, variance}) check_channels(vector, x);
  const Shape shape{x.size(0), x.size(1)};
  const Tensor rows = torch::stable::contiguous(x), gradients = torch::stable::contiguous(grad);
  const Tensor gain = torch::stable::contiguous(weight), shift = torch::stable::contiguous(bias);
  const Tensor means = torch::stable::contiguous(mean);
  const Tensor variances = torch::stable::contiguous(variance);
  const std::vector<int64_t> sizes = {shape.rows, shape.channels}, vector = {shape.channels};
  Tensor out = torch::stable::new_empty(rows, sizes);
  Tensor weight_grad = torch::stable::new_empty(gain, vector);
  Tensor bias_grad = torch::stable::new_empty(gain, vector);
  if (shape.channels == 0) return {out, weight_grad, bias_grad};
  of_dtype(x, [&](auto kind) {
    using T = decltype(kind);
    const std::vector<float> scale = scales(shape, variances, gain, eps);
    const Lanes<T> lanes(shape);
    const Norm<T> norm(lanes, values<float>(means), scale.data(), values<float>(shift));
    // Sums of nothing but what nobody wants are not taken.
    const Sums sums = constant && input_only ? Sums(shape.channels)
                                             : summed(gradients, rows, shape, lanes, norm, scale,
                                                      variances, eps, constant);
    backward(gradients, rows, shape, lanes, norm, sums, out);
    std::copy_n(sums.weight_grad.data(), shape.channels, values<float>(weight_grad));
    std::copy_n(sums.bias_grad.data(), shape.channels, values<float>(bias_grad));
  });
  return {out, weight_grad, bias_grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CPU, m) {
  m.impl("batch_norm_relu", TORCH_BOX(&batch_norm_relu));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&batch_norm_relu_backward));
}

}  // namespace repsim_fast
