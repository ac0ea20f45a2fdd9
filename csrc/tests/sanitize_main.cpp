// Every CUDA kernel on small edge shapes against a plain double loop: the program that the
// sanitizers watch (sanitize.py). The tests of python_tests/csrc go further in shapes and accuracy.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cuda/gram/centered_gram.cuh"
#include "cuda/portability/portability.h"
#include "kernels/portability_probes.cuh"
#include "kernels/study.cuh"
#include "math/centering.h"
#include "math/triangle.h"
#include "tests/probe_kernels.cuh"
#include "tests/sanitize_pgd.h"
#include "tests/sanitize_svd.h"

namespace repsim_fast {
namespace {

int failures = 0;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  ++failures;
}

using Matrix = std::vector<double>;  // (n, columns), row by row

// Memory of exactly this many elements, 16-byte aligned like a tensor's; every byte 0xff (NaN).
template <typename T>
struct Buffer {
  explicit Buffer(int64_t count)
      : memory(static_cast<T*>(std::malloc(std::max<size_t>(1, bytes(count)))), &std::free) {
    std::memset(static_cast<void*>(memory.get()), 0xff, bytes(count));
  }
  static size_t bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(T); }
  T* get() const { return memory.get(); }
  T& operator[](int64_t i) const { return memory.get()[i]; }
  std::unique_ptr<T, decltype(&std::free)> memory;
};

Matrix random_matrix(int64_t n, int64_t p, double mean) {
  std::mt19937 generator(static_cast<unsigned>(n * 1000 + p));
  std::normal_distribution<double> normal(mean, 1.0);
  Matrix values(static_cast<size_t>(n * p));
  std::generate(values.begin(), values.end(), [&] { return normal(generator); });
  return values;
}

Matrix centred_gram(Matrix x, int64_t n, int64_t p, bool centre, GramCentering centering) {
  for (int64_t c = 0; centre && c < p; ++c) {
    double mean = 0;
    for (int64_t r = 0; r < n; ++r) mean += x[r * p + c] / static_cast<double>(n);
    for (int64_t r = 0; r < n; ++r) x[r * p + c] -= mean;
  }
  const bool unbiased = centering == GramCentering::kUnbiased;
  Matrix k(static_cast<size_t>(n * n)), sums(static_cast<size_t>(n));
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t c = 0; c < p; ++c) k[i * n + j] += x[i * p + c] * x[j * p + c];
      if (i != j || !unbiased) sums[i] += k[i * n + j];
    }
    total += sums[i];
  }
  if (centering == GramCentering::kNone) return k;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double& entry = k[i * n + j];
      const auto m = static_cast<double>(n);
      entry = unbiased ? u_centred(entry, sums[i], sums[j], total, m)
                       : double_centred(entry, sums[i], sums[j], total, m);
      if (unbiased && i == j) entry = 0;
    }
  }
  return k;
}

struct Case {
  int64_t n, p, tile, splits;
  bool transposed;
};

// In: type of the features; Out: operand type; T: accumulator. All three launchers in a row.
template <typename In, typename Out, typename T>
void check_gram(const Case& shape, ElementType x_type, ElementType operand_type, bool centre,
                GramCentering centering, bool packed, double tolerance) {
  const auto [n, p, tile, splits, transposed] = shape;
  const Matrix source = random_matrix(n, p, centre ? 3.0 : 0.0);
  Matrix seen(source.size());  // as rounded to In
  Buffer<In> x(n * p);
  const int64_t row_stride = transposed ? 1 : p, column_stride = transposed ? n : 1;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < p; ++c) {
      In& value = x[r * row_stride + c * column_stride];
      value = convert_to<In>(static_cast<decltype(to_math(In{}))>(source[r * p + c]));
      seen[r * p + c] = static_cast<double>(to_math(value));
    }
  }

  const int64_t pitch = feature_pitch(p, operand_type);
  Buffer<Out> features(n * pitch);
  launch_center_features({x.get(), x_type, n, p, row_stride, column_stride, centre, features.get(),
                          operand_type, pitch},
                         nullptr);
  const int64_t tiles = triangle_size((n + tile - 1) / tile);
  Buffer<T> gram(splits * tiles * tile * tile);
  launch_triangle_product({features.get(), operand_type, n, pitch, tile, splits, gram.get()},
                          nullptr);
  const bool unbiased = centering == GramCentering::kUnbiased;
  const int64_t entries = !packed ? n * n : unbiased ? triangle_size(n - 1) : triangle_size(n);
  Buffer<T> out(entries);
  Buffer<double> row_sums(n);
  launch_finish_gram(
      {gram.get(), sizeof(T) == 8, n, tile, centering, row_sums.get(), packed, out.get()}, nullptr);

  const Matrix expected = centred_gram(seen, n, p, centre, centering);
  double error = 0, size = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < (packed ? i + 1 : n); ++j) {
      if (packed && unbiased && i == j) continue;
      const double weight = packed && i != j ? std::sqrt(2.0) : 1.0;
      const int64_t index = !packed    ? i * n + j
                            : unbiased ? triangle_index(i - 1, j)
                                       : triangle_index(i, j);
      const double want = weight * expected[i * n + j];
      error += std::pow(static_cast<double>(out[index]) - want, 2);
      size += want * want;
    }
  }
  const std::string what = "n " + std::to_string(n) + " p " + std::to_string(p) + " tile " +
                           std::to_string(tile) + " splits " + std::to_string(splits) + " types " +
                           std::to_string(static_cast<int>(x_type)) + " " +
                           std::to_string(static_cast<int>(operand_type)) + " centering " +
                           std::to_string(static_cast<int>(centering)) + " packed " +
                           std::to_string(packed) + ": error " + std::to_string(std::sqrt(error));
  expect(std::sqrt(error) <= tolerance * std::sqrt(size) + 1e-30, what);  // false for NaN
}

// A way to the products in one pass.
struct Launcher {
  void (*launch)(const SinglePassArguments&, void* stream);
  int64_t tiles = kSinglePassTiles;
  int64_t tile = 0;  // 0: single_pass_tile
};

// The single pass, then the finish.
template <typename In, typename Operand>
void check_single_pass(int64_t n, int64_t p, int64_t splits, const Launcher& product,
                       ElementType x_type, ElementType operand_type, double tolerance) {
  const Matrix source = random_matrix(n, p, 3.0);
  Matrix seen(source.size());
  // Rows of whole vectors; the last one ends with its last feature.
  const int64_t row_stride = (p + 7) / 8 * 8;
  Buffer<In> x((n - 1) * row_stride + p);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < p; ++c) {
      In& value = x[r * row_stride + c];
      value = convert_to<In>(static_cast<float>(source[r * p + c]));
      seen[r * p + c] = static_cast<double>(to_math(value));
    }
  }
  const int64_t tile = product.tile > 0 ? product.tile : single_pass_tile(n, operand_type);
  Buffer<float> gram(splits * product.tiles * tile * tile), out(n * n);
  product.launch(
      {x.get(), x_type, n, p, row_stride, /*centre=*/true, operand_type, tile, splits, gram.get()},
      nullptr);
  Buffer<double> row_sums(n);
  launch_finish_gram({gram.get(), /*wide=*/false, n, tile, GramCentering::kUnbiased, row_sums.get(),
                      /*packed=*/false, out.get()},
                     nullptr);
  const Matrix expected = centred_gram(seen, n, p, /*centre=*/true, GramCentering::kUnbiased);
  double error = 0, size = 0;
  for (int64_t i = 0; i < n * n; ++i) {
    error += std::pow(static_cast<double>(out[i]) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  expect(std::sqrt(error) <= tolerance * std::sqrt(size),
         "single pass, n " + std::to_string(n) + ": error " + std::to_string(std::sqrt(error)));
}

void check_block_sums() {
  constexpr int64_t kBlocks = 3;
  const Matrix values = random_matrix(kBlocks, 256, 0.0);
  Buffer<float> x(kBlocks * 256), sums(kBlocks);
  for (int64_t i = 0; i < kBlocks * 256; ++i) x[i] = static_cast<float>(values[i]);
  launch_block_sums(x.get(), kBlocks, sums.get(), nullptr);
  for (int64_t block = 0; block < kBlocks; ++block) {
    double sum = 0;
    for (int64_t i = 0; i < 256; ++i) sum += values[block * 256 + i];
    expect(std::abs(sums[block] - sum) < 1e-4, "block_sums");
  }
}

void check_async_copy() {
  Buffer<float> from(128), to(128);
  for (int i = 0; i < 128; ++i) from[i] = static_cast<float>(i);
  launch_async_copy(from.get(), to.get(), nullptr);
  expect(std::equal(from.get(), from.get() + 128, to.get()), "async_copy");
}

// Host threads that launch one kernel with sizes up and down.
void check_shared_limits() {
  constexpr int kHostThreads = 4, kKib = 1024;
  Buffer<int32_t> out(kHostThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kHostThreads; ++t) {
    threads.emplace_back([&out, t] {
      for (const int64_t kib : {1, 200, 49, 100}) {
        launch_large_shared_memory(t % 2 == 0 ? kib * kKib : (227 - kib) * kKib, out.get() + t,
                                   nullptr);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(std::all_of(out.get(), out.get() + kHostThreads, [](int32_t one) { return one == 1; }),
         "large_shared_memory");
}

void check_bulk_copy() {
  Buffer<float> from(2 * 40), to(2 * 4 * 32);  // two rectangles, beyond the matrix's edges
  for (int i = 0; i < 80; ++i) from[i] = static_cast<float>(i);
  study::launch_bulk_copy(from.get(), 2, 38, 40, study::BulkFault::kNone, to.get(), nullptr);
  for (int i = 0; i < 2 * 4 * 32; ++i) {
    const int row = i / 32 % 4, column = i / 128 * 32 + i % 32;
    const bool inside = row < 2 && column < 38;
    expect(to[i] == (inside ? static_cast<float>(row * 40 + column) : 0.0f), "bulk_copy");
  }
}

void check_warpgroup_products() {
  constexpr uint16_t kOne = 0x3f80, kTwo = 0x4000;  // bfloat16
  Buffer<uint16_t> rows(192 * 64);
  for (int i = 0; i < 192 * 64; ++i) rows[i] = i / 64 % 3 == 0 ? kTwo : kOne;
  Buffer<float> pair(64 * 128), single(64 * 64);
  study::launch_warpgroup_products(rows.get(), study::ProductFault::kNone, pair.get(), single.get(),
                                   nullptr);
  for (int i = 0; i < 64 * 128; ++i) {
    const int left = i / 128 % 3 == 0 ? 2 : 1, right = (64 + i % 128) % 3 == 0 ? 2 : 1;
    const auto expected = static_cast<float>(64 * left * right);
    expect(pair[i] == expected, "warpgroup_products");
    if (i % 128 < 64) expect(single[i / 128 * 64 + i % 128] == expected, "warpgroup_products");
  }
}

void check_grams() {
  using E = ElementType;
  using C = GramCentering;
  // Every kernel and branch once, with odd edges. Splits of few products only: their sums take a
  // block for 32 entries, most of the time of all kernels under the thread sanitizer.
  const Case one{1, 1, 64, 1, false}, few{5, 3, 64, 2, false}, odd{66, 17, 64, 1, true};
  check_gram<float, float, float>(one, E::kFloat32, E::kFloat32, true, C::kDouble, false, 2e-6);
  check_gram<double, double, double>(few, E::kFloat64, E::kFloat64, true, C::kDouble, false, 1e-13);
  check_gram<Half, float, float>(few, E::kFloat16, E::kFloat32, true, C::kUnbiased, true, 2e-6);
  check_gram<double, double, double>(odd, E::kFloat64, E::kFloat64, true, C::kUnbiased, false,
                                     1e-13);
  check_gram<Half, Tf32, float>(odd, E::kFloat16, E::kTf32, true, C::kDouble, true, 2e-3);
  check_gram<BFloat16, BFloat16, float>(odd, E::kBFloat16, E::kBFloat16, false, C::kNone, true,
                                        1e-5);
  const Case large{130, 40, 128, 1, false};
  check_gram<float, float, float>(large, E::kFloat32, E::kFloat32, true, C::kNone, false, 2e-6);
  check_gram<float, Tf32, float>(large, E::kFloat32, E::kTf32, true, C::kUnbiased, false, 2e-3);
  check_gram<float, BFloat16, float>(large, E::kFloat32, E::kBFloat16, true, C::kDouble, false,
                                     1e-2);
  for (const Launcher& product :
       {Launcher{launch_single_pass_product}, Launcher{study::launch_gram_bulk_copies}}) {
    check_single_pass<float, float>(21, 70, 2, product, E::kFloat32, E::kFloat32, 2e-6);
    check_single_pass<BFloat16, BFloat16>(67, 75, 1, product, E::kBFloat16, E::kBFloat16, 1e-2);
    check_single_pass<float, Tf32>(130, 33, 1, product, E::kFloat32, E::kTf32, 2e-3);
  }
  for (const Launcher& product : {Launcher{study::launch_gram_through_registers},
                                  Launcher{study::launch_gram_fragments, 1, 64},
                                  Launcher{study::launch_gram_strip_fragments, 3, 64}}) {
    check_single_pass<float, BFloat16>(21, 300, 1, product, E::kFloat32, E::kBFloat16, 1e-2);
    check_single_pass<BFloat16, BFloat16>(43, 75, 1, product, E::kBFloat16, E::kBFloat16, 1e-2);
  }
  const Launcher two_rows_of_tiles{study::launch_gram_strip_fragments, 3, 64};
  check_single_pass<float, BFloat16>(77, 70, 1, two_rows_of_tiles, E::kFloat32, E::kBFloat16, 1e-2);
  const Launcher warpgroups{study::launch_gram_warpgroups, 10, 64};
  check_single_pass<float, BFloat16>(130, 200, 1, warpgroups, E::kFloat32, E::kBFloat16, 1e-2);
  check_single_pass<BFloat16, BFloat16>(67, 400, 1, warpgroups, E::kBFloat16, E::kBFloat16, 1e-2);
}

}  // namespace
}  // namespace repsim_fast

int main(int count, char** arguments) {
  const std::string only = count > 1 ? arguments[1] : "";  // "probes", "grams" or both
  if (only != "grams") {
    repsim_fast::check_block_sums();
    repsim_fast::check_async_copy();
    repsim_fast::check_shared_limits();
    repsim_fast::check_bulk_copy();
    repsim_fast::check_warpgroup_products();
  }
  if (only != "probes") repsim_fast::check_grams();
  if (only.empty()) {
    repsim_fast::check_pgd_steps(repsim_fast::expect);
    repsim_fast::check_svds(repsim_fast::expect);
  }
  if (repsim_fast::failures == 0) std::printf("all kernels agree with the reference\n");
  return repsim_fast::failures == 0 ? 0 : 1;
}
