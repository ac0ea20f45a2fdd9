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
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/norm/batch_norm_relu_kernels.h"

namespace repsim_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Entries that are worth a thread's start.
constexpr int64_t kChunk = int64_t{1} << 17;
constexpr int64_t kMaxChunks = 64;

struct Shape {
  int64_t rows, channels;

  // None is without a row where there are any.
  int64_t chunks() const {
    return std::max<int64_t>(1, std::min({rows * channels / kChunk, kMaxChunks, rows}));
  }
  int64_t begin(int64_t chunk) const { return rows * chunk / chunks(); }

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

template <typename T>
void batch_moments(const T* x, const Shape& shape, float* mean, float* variance) {
  const int64_t channels = shape.channels;
  std::vector<double> means(shape.chunks() * channels), squares(shape.chunks() * channels);
  shape.for_chunks([&](int64_t chunk, int64_t first, int64_t count) {
    batch_norm_relu_kernels<T>().moments(x + first * channels, count, channels,
                                         means.data() + chunk * channels,
                                         squares.data() + chunk * channels);
  });
  for (int64_t c = 0; c < channels; ++c) {
    double middle = means[c], sum = squares[c];
    for (int64_t chunk = 1; chunk < shape.chunks(); ++chunk) {
      const double before = static_cast<double>(shape.begin(chunk));
      const double now = static_cast<double>(shape.begin(chunk + 1)) - before;
      const double step = means[chunk * channels + c] - middle;
      middle += step * (now / (before + now));
      sum += squares[chunk * channels + c] + step * step * (before * now / (before + now));
    }
    mean[c] = static_cast<float>(middle);
    variance[c] = static_cast<float>(sum / static_cast<double>(shape.rows));
  }
}

template <typename T>
void forward(const Tensor& x, const Shape& shape, const Rectified& norm, Tensor& y) {
  shape.for_chunks([&](int64_t, int64_t first, int64_t count) {
    const int64_t at = first * shape.channels;
    batch_norm_relu_kernels<T>().forward(values<T>(x) + at, count, shape.channels, norm,
                                         values<T>(y) + at);
  });
}

// What a channel's gradient adds up to, also as it goes back through the moments of a batch.
struct Sums {
  std::vector<float> weight_grad, bias_grad, slopes, offsets;
  explicit Sums(int64_t channels)
      : weight_grad(channels), bias_grad(channels), slopes(channels), offsets(channels) {}
};

template <typename T>
Sums summed(const Tensor& grad, const Tensor& x, const Shape& shape, const Rectified& norm,
            const Tensor& variance, double eps, bool constant) {
  const int64_t channels = shape.channels;
  const double rows = static_cast<double>(shape.rows);
  std::vector<double> sums(shape.chunks() * channels), products(shape.chunks() * channels);
  shape.for_chunks([&](int64_t chunk, int64_t first, int64_t count) {
    const int64_t at = first * channels;
    batch_norm_relu_kernels<T>().sums(values<T>(grad) + at, values<T>(x) + at, count, channels,
                                      norm, sums.data() + chunk * channels,
                                      products.data() + chunk * channels);
  });
  Sums found(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, product = 0;
    for (int64_t chunk = 0; chunk < shape.chunks(); ++chunk) {
      sum += sums[chunk * channels + c];
      product += products[chunk * channels + c];
    }
    const double inverse = inverse_deviation(values<float>(variance)[c], eps);
    found.weight_grad[c] = static_cast<float>(product * inverse);
    found.bias_grad[c] = static_cast<float>(sum);
    if (constant) continue;
    found.slopes[c] = static_cast<float>(-norm.scale[c] * inverse * inverse * product / rows);
    found.offsets[c] = static_cast<float>(-norm.scale[c] * sum / rows);
  }
  return found;
}

template <typename T>
void backward(const Tensor& grad, const Tensor& x, const Shape& shape, const Rectified& norm,
              const Sums& sums, Tensor& out) {
  shape.for_chunks([&](int64_t, int64_t first, int64_t count) {
    const int64_t at = first * shape.channels;
    batch_norm_relu_kernels<T>().backward(values<T>(grad) + at, values<T>(x) + at, count,
                                          shape.channels, norm, sums.slopes.data(),
                                          sums.offsets.data(), values<T>(out) + at);
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
  of_dtype(x, [&](auto kind) {
    using T = decltype(kind);
    if (mean.has_value()) {
      const Tensor given = torch::stable::contiguous(*mean);
      const Tensor given_variance = torch::stable::contiguous(*variance);
      std::copy_n(values<float>(given), shape.channels, values<float>(means));
      std::copy_n(values<float>(given_variance), shape.channels, values<float>(variances));
    } else {
      batch_moments(values<T>(rows), shape, values<float>(means), values<float>(variances));
    }
    const std::vector<float> scale = scales(shape, variances, gain, eps);
    forward<T>(rows, shape,
               {values<float>(means), scale.data(), values<float>(std::as_const(shift))}, y);
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
  of_dtype(x, [&](auto kind) {
    using T = decltype(kind);
    const std::vector<float> scale = scales(shape, variances, gain, eps);
    const Rectified norm = {values<float>(means), scale.data(), values<float>(shift)};
    // Sums of nothing but what nobody wants are not taken.
    const Sums sums = constant && input_only
                          ? Sums(shape.channels)
                          : summed<T>(gradients, rows, shape, norm, variances, eps, constant);
    backward<T>(gradients, rows, shape, norm, sums, out);
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
