// The kernels of attack steps and random starts on small edge shapes, for the program that the
// sanitizers watch (sanitize.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/pgd/pgd_steps.cuh"
#include "math/projection.h"
#include "math/random_start.h"

namespace repsim_fast {

using Expect = std::function<void(bool, const std::string&)>;

// A batch on the heap, of exactly its size; the out of place result is NaN until it is written.
template <typename T>
struct PgdBatch {
  PgdBatch(int64_t n, int64_t d) : adv(size(n, d)), gradient(size(n, d)), x(size(n, d)) {
    std::mt19937 generator(static_cast<unsigned>(n * 10000 + d));
    std::normal_distribution<double> normal;
    for (size_t i = 0; i < x.size(); ++i) {
      const auto uniform = std::clamp(0.5 + 0.5 * normal(generator), 0.0, 1.0);
      x[i] = static_cast<T>(uniform);
      adv[i] = static_cast<T>(std::clamp(uniform + 0.1 * normal(generator), 0.0, 1.0));
      gradient[i] = i % 5 == 0 ? T{0} : static_cast<T>(normal(generator));
    }
    out.assign(x.size(), static_cast<T>(std::nan("")));
    problem = {n,          d,         adv.data(), gradient.data(), x.data(),
               out.data(), {0.7, {}}, {0.3, {}},  {0, {}, 1, 1},   {1, {}, 1, 1}};
  }
  static size_t size(int64_t n, int64_t d) { return static_cast<size_t>(n * d); }

  double length(int64_t row, Norm norm) const {
    double sum = 0, largest = 0;
    for (int64_t i = row * problem.d; i < (row + 1) * problem.d; ++i) {
      const double u = std::abs(static_cast<double>(out[i]) - static_cast<double>(x[i]));
      sum += norm == Norm::kL2 ? u * u : u;
      largest = std::max(largest, u);
    }
    return norm == Norm::kLinf ? largest : norm == Norm::kL2 ? std::sqrt(sum) : sum;
  }

  // The result lies in box and ball and is no NaN.
  void expect_feasible(const char* what, Norm norm, const Expect& expect) const {
    const std::string name =
        std::string(what) + " of " + std::to_string(problem.n) + " x " + std::to_string(problem.d);
    expect(std::all_of(out.begin(), out.end(), [](T v) { return v >= 0 && v <= 1; }),
           name + " leaves the box");
    for (int64_t row = 0; row < problem.n; ++row) {
      expect(length(row, norm) <= static_cast<double>(problem.eps[row]) * (1 + 1e-5) + 1e-6,
             name + " leaves the ball");
    }
  }

  std::vector<T> adv, gradient, x, out;
  StepProblem<T> problem;
};

template <typename T>
void check_steps_of(int64_t n, int64_t d, const Expect& expect) {
  PgdBatch<T> batch(n, d);
  const StepProblem<T>& problem = batch.problem;
  const auto scratch = [](int64_t bytes) {
    return std::make_unique<std::byte[]>(static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  };

  launch_linf_step(problem, nullptr);
  for (size_t i = 0; i < batch.x.size(); ++i) {
    expect(batch.out[i] == linf_entry<T>(batch.adv[i], batch.gradient[i], batch.x[i], T{0.7f},
                                         problem.eps.value, 0, 1),
           "linf step of " + std::to_string(d));
  }

  const auto l2 = scratch(l2_scratch_bytes<T>(n, d));
  launch_l2_step(problem, /*clip_first=*/true, l2.get(), nullptr);
  batch.expect_feasible("l2 step", Norm::kL2, expect);

  // Its threads grow with d, and their cost under the thread sanitizer with their square; 2561
  // doubles are beyond shared memory.
  if (d <= 2561) {
    const auto l1 = scratch(l1_scratch_bytes<T>(n, d));
    launch_l1_step(problem, PerSample<T>{static_cast<T>(0.1), nullptr}, l1.get(), nullptr);
    batch.expect_feasible("l1 step", Norm::kL1, expect);
  }

  for (const Norm norm : {Norm::kLinf, Norm::kL2, Norm::kL1}) {
    const auto sums = scratch(random_scratch_bytes(n, d, norm));
    launch_random_start(problem, norm, {7, 1}, sums.get(), nullptr);
    batch.expect_feasible("random start", norm, expect);
  }
}

// Every kernel: rows of single entries and of packs, in registers and shared memory and beyond.
inline void check_pgd_steps(const Expect& expect) {
  check_steps_of<float>(3, 37, expect);
  check_steps_of<float>(2, 132, expect);
  check_steps_of<double>(2, 514, expect);
  check_steps_of<double>(1, 2561, expect);
  check_steps_of<float>(1, 8200, expect);
  check_steps_of<double>(1, 4097, expect);

  const std::vector<double> gradient = {1e300, -1e-300, 0, std::nan(""), 1e-310, -2e-310};
  std::vector<float> narrowed(gradient.size());
  launch_narrow_gradient(gradient.data(), 2, 3, narrowed.data(), nullptr);
  expect(narrowed[0] > 0 && narrowed[1] < 0 && narrowed[2] == 0 && narrowed[4] > 0,
         "narrowed gradients keep their signs");
}

}  // namespace repsim_fast
