// The operators of attack steps and random starts for any device: arguments become raw rows, which
// a backend's kernels work on. No .cu includes this: it needs torch.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/pgd_problem.h"
#include "common/stable_checks.h"
#include "math/random_start.h"

namespace repsim_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---- memory layout

// Samples follow one another, each without gaps, its entries in any order (NCHW, NHWC, ...).
inline bool in_rows(const Tensor& t) {
  if (t.is_contiguous()) return true;
  const int64_t n = t.size(0);
  if (n > 1 && t.stride(0) != t.numel() / n) return false;
  std::vector<std::pair<int64_t, int64_t>> dimensions;  // stride, size
  for (int64_t k = 1; k < t.dim(); ++k) {
    if (t.size(k) > 1) dimensions.emplace_back(t.stride(k), t.size(k));
  }
  std::sort(dimensions.begin(), dimensions.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dimensions) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// Of tensors of one shape.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  const auto sizes = a.sizes(), a_strides = a.strides(), b_strides = b.strides();
  for (size_t k = 0; k < sizes.size(); ++k) {
    if (sizes[k] > 1 && a_strides[k] != b_strides[k]) return false;
  }
  return true;
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  const auto sizes = a.sizes(), others = b.sizes();
  return std::equal(sizes.begin(), sizes.end(), others.begin(), others.end());
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index();
}

inline Tensor empty_as(const Tensor& layout, ScalarType type) {
  using torch::stable::detail::from;
  std::array<StableIValue, 6> stack{from(layout),       from(std::optional<ScalarType>(type)),
                                    from(std::nullopt), from(std::nullopt),
                                    from(std::nullopt), from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// t itself if it has this layout, which is in rows, and type, else a copy that has.
inline Tensor in_layout_of(const Tensor& layout, const Tensor& t, ScalarType type) {
  if (t.scalar_type() == type && same_layout(t, layout)) return t;
  Tensor copy = empty_as(layout, type);
  return torch::stable::copy_(copy, t);
}

// ---- arguments

template <typename T>
constexpr ScalarType kScalarType = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;

// A number, or a tensor in its place.
struct Value {
  double number;
  std::optional<Tensor> tensor;
};

template <typename T>
void check_value(const char* name, const Tensor& t, const Tensor& x) {
  STD_TORCH_CHECK(t.scalar_type() == kScalarType<T>, name, ": expected the dtype of x");
  STD_TORCH_CHECK(same_device(t, x), name, ": expected a tensor on the device of x");
}

// What a step was called with.
struct StepCall {
  std::optional<Tensor> adv;   // (n, ...), absent for random starts
  std::optional<Tensor> grad;  // (n, ...)
  Tensor x;                    // (n, ...)
  Value size, eps;             // tensors (n,)
  Value low, high;             // tensors of an image's shape, expanded or not
};

// The call as raw rows in the layout of `out`, and the tensors that hold them.
template <typename T>
class Rows {
 public:
  template <typename Narrow>
  Rows(const StepCall& call, const Tensor& out, Narrow narrow)
      : target_(out), out_(in_rows(out) ? out : empty_contiguous(out)) {
    const Tensor& x = call.x;
    problem_.n = x.size(0);
    problem_.d = problem_.n > 0 ? x.numel() / problem_.n : 0;
    problem_.x = hold(in_layout_of(out_, x, kScalarType<T>));
    problem_.out = static_cast<T*>(out_.mutable_data_ptr());
    if (call.adv.has_value()) problem_.adv = hold(in_layout_of(out_, *call.adv, kScalarType<T>));
    if (call.grad.has_value()) problem_.gradient = hold(gradient(*call.grad, narrow));
    problem_.size = per_sample("step_size", call.size);
    problem_.eps = per_sample("eps", call.eps);
    problem_.low = bound("low", call.low);
    problem_.high = bound("high", call.high);
  }

  const StepProblem<T>& problem() const { return problem_; }

  PerSample<T> per_sample(const char* name, const Value& value) {
    if (!value.tensor.has_value()) return {static_cast<T>(value.number), nullptr};
    const Tensor& t = *value.tensor;
    check_value<T>(name, t, out_);
    STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == problem_.n, name,
                    ": expected a number or one value for each of ", problem_.n, " samples");
    return {T{0}, hold(torch::stable::contiguous(t))};
  }

  // To be called when out is written.
  void finish() {
    if (out_.get() != target_.get()) torch::stable::copy_(target_, out_);
  }

 private:
  static Tensor empty_contiguous(const Tensor& t) {
    return torch::stable::new_empty(t, std::vector<int64_t>(t.sizes().begin(), t.sizes().end()));
  }

  const T* hold(Tensor t) {
    held_.push_back(std::move(t));
    return static_cast<const T*>(held_.back().const_data_ptr());
  }

  template <typename Narrow>
  Tensor gradient(const Tensor& grad, Narrow narrow) {
    if (kScalarType<T> == ScalarType::Float && grad.scalar_type() == ScalarType::Double) {
      const Tensor wide = in_layout_of(out_, grad, ScalarType::Double);
      Tensor narrowed = empty_as(out_, ScalarType::Float);
      narrow(wide, problem_.n, problem_.d, narrowed);
      return narrowed;
    }
    return in_layout_of(out_, grad, kScalarType<T>);
  }

  Bound<T> bound(const char* name, const Value& value) {
    if (!value.tensor.has_value()) return {static_cast<T>(value.number), nullptr, 1, 1};
    STD_TORCH_CHECK(problem_.d >> 32 == 0, name, ": expected a number for samples of ", problem_.d,
                    " entries");
    const Tensor& t = *value.tensor;
    check_value<T>(name, t, out_);
    STD_TORCH_CHECK(t.dim() + 1 == out_.dim(), name, ": expected the shape of an image");
    int64_t varying = 0, axis = 0;
    for (int64_t k = 0; k < t.dim(); ++k) {
      STD_TORCH_CHECK(t.size(k) == out_.size(k + 1), name, ": expected the shape of an image");
      if (t.size(k) > 1 && t.stride(k) != 0) {
        ++varying;
        axis = k;
      }
    }
    if (varying == 0) return {T{0}, hold(t), 1, 1};
    if (varying == 1 && t.stride(axis) == 1) {
      return {T{0}, hold(t), t.size(axis), out_.stride(axis + 1)};
    }
    Tensor layout = out_;
    Tensor image = empty_as(torch::stable::narrow(layout, 0, 0, 1), kScalarType<T>);
    Tensor source = t;
    torch::stable::copy_(image, torch::stable::unsqueeze(source, 0));
    return {T{0}, hold(image), problem_.d, 1};
  }

  StepProblem<T> problem_{};
  Tensor target_, out_;
  std::vector<Tensor> held_;
};

inline void check_state(const StepCall& call, const Tensor& out) {
  const Tensor& x = call.x;
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
                  "x: expected float32 or float64");
  STD_TORCH_CHECK(x.dim() >= 1, "x: expected a batch (n, ...)");
  const auto check = [&](const char* name, const Tensor& t, bool same_type) {
    STD_TORCH_CHECK(!same_type || t.scalar_type() == x.scalar_type(), name,
                    ": expected the dtype of x");
    STD_TORCH_CHECK(same_device(t, x), name, ": expected a tensor on the device of x");
    STD_TORCH_CHECK(same_shape(t, x), name, ": expected the shape of x");
  };
  check("x_adv", out, true);
  if (call.adv.has_value()) {
    check("x_adv", *call.adv, true);
    STD_TORCH_CHECK(x.numel() == 0 || out.const_data_ptr() != x.const_data_ptr(),
                    "x_adv: a step in place needs memory of its own, not that of x");
  }
  if (call.grad.has_value()) {
    check("grad", *call.grad, false);
    const ScalarType type = call.grad->scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
                        type == ScalarType::Half || type == ScalarType::BFloat16,
                    "grad: expected float64, float32, float16 or bfloat16");
  }
}

// ---- operators

// Backend(x): linf(problem), l2(problem, clip_first), l1(problem, fraction), random(problem, norm,
// stream), narrow(wide, n, d, narrowed).
template <typename Backend>
struct PgdOperators {
  // step(backend, rows): the kernel's work on rows of the call's dtype.
  template <typename Step>
  static void run(const StepCall& call, const Tensor& out, Step step) {
    check_state(call, out);
    if (call.x.numel() == 0) return;
    Backend backend(call.x);
    const auto narrow = [&](auto&... arguments) { backend.narrow(arguments...); };
    const auto typed = [&](auto zero) {
      Rows<decltype(zero)> rows(call, out, narrow);
      step(backend, rows);
      rows.finish();
    };
    if (call.x.scalar_type() == ScalarType::Double) {
      typed(double{});
    } else {
      typed(float{});
    }
  }

  // A step shortens a call: what is common to the operators, in the schemas' order.
  static StepCall call(const Tensor& x_adv, const std::optional<Tensor>& grad, const Tensor& x,
                       double size, const std::optional<Tensor>& sizes, double eps,
                       const std::optional<Tensor>& radii, double low,
                       const std::optional<Tensor>& lows, double high,
                       const std::optional<Tensor>& highs) {
    return {x_adv, grad, x, {size, sizes}, {eps, radii}, {low, lows}, {high, highs}};
  }

  static void linf_step_(Tensor x_adv, std::optional<Tensor> grad, Tensor x, double size,
                         std::optional<Tensor> sizes, double eps, std::optional<Tensor> radii,
                         double low, std::optional<Tensor> lows, double high,
                         std::optional<Tensor> highs) {
    linf(call(x_adv, grad, x, size, sizes, eps, radii, low, lows, high, highs), x_adv);
  }

  static Tensor linf_step(Tensor x_adv, std::optional<Tensor> grad, Tensor x, double size,
                          std::optional<Tensor> sizes, double eps, std::optional<Tensor> radii,
                          double low, std::optional<Tensor> lows, double high,
                          std::optional<Tensor> highs) {
    const Tensor out = torch::stable::empty_like(x);
    linf(call(x_adv, grad, x, size, sizes, eps, radii, low, lows, high, highs), out);
    return out;
  }

  static void l2_step_(Tensor x_adv, std::optional<Tensor> grad, Tensor x, double size,
                       std::optional<Tensor> sizes, double eps, std::optional<Tensor> radii,
                       double low, std::optional<Tensor> lows, double high,
                       std::optional<Tensor> highs, bool clip_first) {
    l2(call(x_adv, grad, x, size, sizes, eps, radii, low, lows, high, highs), x_adv, clip_first);
  }

  static Tensor l2_step(Tensor x_adv, std::optional<Tensor> grad, Tensor x, double size,
                        std::optional<Tensor> sizes, double eps, std::optional<Tensor> radii,
                        double low, std::optional<Tensor> lows, double high,
                        std::optional<Tensor> highs, bool clip_first) {
    const Tensor out = torch::stable::empty_like(x);
    l2(call(x_adv, grad, x, size, sizes, eps, radii, low, lows, high, highs), out, clip_first);
    return out;
  }

  static void l1_step_(Tensor x_adv, std::optional<Tensor> grad, Tensor x, double size,
                       std::optional<Tensor> sizes, double eps, std::optional<Tensor> radii,
                       double low, std::optional<Tensor> lows, double high,
                       std::optional<Tensor> highs, double fraction,
                       std::optional<Tensor> fractions) {
    l1(call(x_adv, grad, x, size, sizes, eps, radii, low, lows, high, highs), x_adv,
       {fraction, fractions});
  }

  static Tensor l1_step(Tensor x_adv, std::optional<Tensor> grad, Tensor x, double size,
                        std::optional<Tensor> sizes, double eps, std::optional<Tensor> radii,
                        double low, std::optional<Tensor> lows, double high,
                        std::optional<Tensor> highs, double fraction,
                        std::optional<Tensor> fractions) {
    const Tensor out = torch::stable::empty_like(x);
    l1(call(x_adv, grad, x, size, sizes, eps, radii, low, lows, high, highs), out,
       {fraction, fractions});
    return out;
  }

  static void random_start_(Tensor x_adv, Tensor x, std::string norm, double eps,
                            std::optional<Tensor> radii, double low, std::optional<Tensor> lows,
                            double high, std::optional<Tensor> highs, int64_t seed,
                            int64_t offset) {
    random({std::nullopt,
            std::nullopt,
            x,
            {0, std::nullopt},
            {eps, radii},
            {low, lows},
            {high, highs}},
           x_adv, norm, seed, offset);
  }

  static Tensor random_start(Tensor x, std::string norm, double eps, std::optional<Tensor> radii,
                             double low, std::optional<Tensor> lows, double high,
                             std::optional<Tensor> highs, int64_t seed, int64_t offset) {
    const Tensor out = torch::stable::empty_like(x);
    random_start_(out, x, norm, eps, radii, low, lows, high, highs, seed, offset);
    return out;
  }

  static void registered(torch::stable::detail::StableLibrary& m) {
    m.impl("pgd_linf_step", TORCH_BOX(&linf_step));
    m.impl("pgd_linf_step_", TORCH_BOX(&linf_step_));
    m.impl("pgd_l2_step", TORCH_BOX(&l2_step));
    m.impl("pgd_l2_step_", TORCH_BOX(&l2_step_));
    m.impl("pgd_l1_step", TORCH_BOX(&l1_step));
    m.impl("pgd_l1_step_", TORCH_BOX(&l1_step_));
    m.impl("random_start", TORCH_BOX(&random_start));
    m.impl("random_start_", TORCH_BOX(&random_start_));
  }

 private:
  static void linf(const StepCall& call, const Tensor& out) {
    run(call, out, [](Backend& backend, auto& rows) { backend.linf(rows.problem()); });
  }

  static void l2(const StepCall& call, const Tensor& out, bool clip_first) {
    run(call, out, [&](Backend& backend, auto& rows) { backend.l2(rows.problem(), clip_first); });
  }

  static void l1(const StepCall& call, const Tensor& out, const Value& fraction) {
    run(call, out, [&](Backend& backend, auto& rows) {
      backend.l1(rows.problem(), rows.per_sample("fraction", fraction));
    });
  }

  static void random(const StepCall& call, const Tensor& out, const std::string& word, int64_t seed,
                     int64_t offset) {
    STD_TORCH_CHECK(word == "linf" || word == "l2" || word == "l1",
                    "norm: expected linf, l2 or l1, got ", word);
    const Norm norm = word == "linf" ? Norm::kLinf : word == "l2" ? Norm::kL2 : Norm::kL1;
    const RandomStream stream{static_cast<uint64_t>(seed), static_cast<uint64_t>(offset)};
    run(call, out, [&](Backend& backend, auto& rows) {
      STD_TORCH_CHECK(rows.problem().d < kRandomEntries && rows.problem().n < kRandomRows,
                      "x: too large for one random stream");
      backend.random(rows.problem(), norm, stream);
    });
  }
};

}  // namespace repsim_fast
