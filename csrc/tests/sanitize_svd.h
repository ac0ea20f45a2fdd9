// The SVD kernels on small edge shapes, for the program that the sanitizers watch (sanitize.py).
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cuda/svd/batched_svd.cuh"
#include "math/jacobi.h"

namespace repsim_fast {

// Values, their sums, and factors of a ragged batch: one full matrix, one of rank one, one empty,
// one with NaN. `expect` is told what should hold.
template <typename T>
void check_svd(int64_t m, int64_t n, bool by_columns,
               const std::function<void(bool, const std::string&)>& expect) {
  constexpr int64_t kBatch = 4;
  const int64_t k = std::min(m, n);
  std::vector<T> a(static_cast<size_t>(kBatch * m * n));
  std::mt19937 generator(static_cast<unsigned>(m * 100 + n));
  std::normal_distribution<double> normal;
  for (T& entry : a) entry = static_cast<T>(normal(generator));
  for (int64_t e = 0; e < m * n; ++e) a[m * n + e] = 1;
  if (m * n > 0) a[3 * m * n] = std::nan("");
  const std::vector<int64_t> rows = {m, m, std::min<int64_t>(m, 1), m}, columns = {n, n, 0, n};
  const SvdSource source{
      a.data(),           sizeof(T) == 8, kBatch,        m, n, m * n, by_columns ? 1 : n,
      by_columns ? m : 1, rows.data(),    columns.data()};

  std::vector<T> values(kBatch * k), norms(kBatch), u(kBatch * m * k), s(kBatch * k);
  std::vector<T> vh(kBatch * k * n), dense(kBatch * m * n);
  std::vector<int32_t> unfinished(kBatch), invalid(kBatch);
  launch_singular_values(source, values.data(), nullptr, nullptr);
  launch_singular_values(source, nullptr, norms.data(), nullptr);
  launch_jacobi(source, {u.data(), s.data(), vh.data(), unfinished.data()}, kMaximumSweeps,
                nullptr);
  launch_gather_finite(source, dense.data(), invalid.data(), nullptr);

  const std::string what = "svd of " + std::to_string(m) + " x " + std::to_string(n) + ": ";
  const T tolerance =
      100 * std::numeric_limits<T>::epsilon() * std::sqrt(static_cast<T>(m * n) + T{1});
  for (int64_t b = 0; b < kBatch; ++b) {
    expect(unfinished[b] == 0, what + "convergence");
    expect(invalid[b] == (b == 3 && k > 0 ? 1 : 0), what + "finiteness");
    T sum = 0;
    for (int64_t i = 0; i < k; ++i) {
      sum += values[b * k + i];
      expect(b == 3 ? std::isnan(s[b * k + i])
                    : std::abs(s[b * k + i] - values[b * k + i]) <= tolerance,
             what + "values of both methods");
    }
    expect(b == 3 && k > 0 ? std::isnan(norms[b]) : std::abs(norms[b] - sum) <= k * tolerance,
           what + "norm");
    for (int64_t i = 0; i < m && b < 2; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        T entry = 0;
        for (int64_t r = 0; r < k; ++r) {
          entry += u[(b * m + i) * k + r] * s[b * k + r] * vh[(b * k + r) * n + j];
        }
        const T wanted = a[b * m * n + (by_columns ? j * m + i : i * n + j)];
        expect(std::abs(entry - wanted) <= tolerance, what + "product");
      }
    }
  }
}

inline void check_svds(const std::function<void(bool, const std::string&)>& expect) {
  check_svd<float>(1, 1, false, expect);
  check_svd<float>(5, 3, false, expect);
  check_svd<double>(3, 6, true, expect);
  check_svd<float>(34, 7, true, expect);  // two warps of rows
  check_svd<double>(0, 4, false, expect);
}

}  // namespace repsim_fast
