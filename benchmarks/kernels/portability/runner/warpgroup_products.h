// Products by warpgroups on the CPU, for the tests. Include
// kernels/portability/warpgroup_products.h instead.
//
// As early and as late as the hardware may: operands are read when their products are asked for and
// once more in the wait, and if they have changed by then, that is an error. In between the sums
// are NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace repsim_fast {

inline bool warpgroup_products_available() { return true; }

// Whether every thread asks for it before the barrier cannot be seen here.
inline void share_with_units() {}

namespace runner {

struct UnitRow {
  uint32_t words[8];  // of 32 bytes
  bool operator==(const UnitRow&) const = default;
};

// Products under way of one thread.
struct Products {
  float* d;
  std::vector<float> sums;
  const std::byte *a, *b;
  std::vector<UnitRow> operands;
};

struct WarpgroupProducts : Extension {
  std::vector<std::vector<Products>> groups{1};  // oldest first, the last one still open
  bool begun = false;

  void check_end(const char* name) const override {
    for (const auto& group : groups) {
      if (!group.empty()) {
        throw std::logic_error(std::string(name) + ": a thread ended with unfinished products");
      }
    }
  }
};

inline WarpgroupProducts& warpgroup_products() {
  return this_thread->extensions.get<WarpgroupProducts>();
}

// As the units read it: they swizzle addresses, not rows.
inline UnitRow read_row(const std::byte* first, unsigned row) {
  UnitRow result;
  for (unsigned half = 0; half < 2; ++half) {
    const auto address =
        reinterpret_cast<uintptr_t>(first) + row * uintptr_t{kUnitRowBytes} + half * 16;
    const uintptr_t place = address ^ (address >> 7 & 7) << 4;
    std::memcpy(result.words + half * 4, reinterpret_cast<const void*>(place), 16);
  }
  return result;
}

// What this thread's sums need: its two rows of a, then of b two rows for each four sums.
inline std::vector<UnitRow> read_operands(const std::byte* a, const std::byte* b, size_t count) {
  const unsigned row = threadIdx.x % kWarpgroupSize / kWarpSize * 16 + lane() / 4;
  std::vector<UnitRow> rows{read_row(a, row), read_row(a, row + 8)};
  for (unsigned j = 0; j < count / 4; ++j) {
    for (unsigned c = 0; c < 2; ++c) rows.push_back(read_row(b, j * 8 + lane() % 4 * 2 + c));
  }
  return rows;
}

// d + a b^T, rounded once, towards zero like the sums of multiply_tile.
inline void add_products(std::vector<float>& d, const std::vector<UnitRow>& operands) {
  for (size_t i = 0; i < d.size(); ++i) {
    const UnitRow &left = operands[i / 2 % 2], &right = operands[2 + i / 4 * 2 + i % 2];
    double sum = d[i];
    for (unsigned word = 0; word < 8; ++word) {
      sum += word_product<BFloat16>(left.words[word], right.words[word]);
    }
    d[i] = static_cast<float>(sum);
    if (std::abs(static_cast<double>(d[i])) > std::abs(sum)) d[i] = std::nextafter(d[i], 0.0f);
  }
}

}  // namespace runner

inline void begin_products() {
  runner::sync_warp();
  runner::warpgroup_products().begun = true;
}

template <int kCount>
void multiply_rows(float (&d)[kCount], const void* a, const void* b) {
  static_assert(kCount == 32 || kCount == 64);
  runner::WarpgroupProducts& state = runner::warpgroup_products();
  if (!state.begun) {
    throw std::logic_error("multiply_rows: begin_products comes before it");
  }
  for (const void* rows : {a, b}) {
    if (reinterpret_cast<uintptr_t>(rows) % 1024 / 32 > 3 ||
        reinterpret_cast<uintptr_t>(rows) % 32 != 0) {
      throw std::logic_error("multiply_rows: not a row of a multiple of 8, and 0 to 96 bytes");
    }
  }
  // Sums of products under way go on from those, not from the NaN that they show.
  std::vector<float> sums(d, d + kCount);
  for (const auto& group : state.groups) {
    for (const runner::Products& earlier : group) {
      if (earlier.d == d) sums = earlier.sums;
    }
  }
  const auto *left = static_cast<const std::byte*>(a), *right = static_cast<const std::byte*>(b);
  auto operands = runner::read_operands(left, right, kCount);
  runner::add_products(sums, operands);
  std::fill(d, d + kCount, std::numeric_limits<float>::quiet_NaN());
  state.groups.back().push_back({d, std::move(sums), left, right, std::move(operands)});
}

inline void commit_products() {
  runner::warpgroup_products().groups.emplace_back();
  runner::warpgroup_products().begun = false;
}

template <int kPending>
void wait_products() {
  auto& groups = runner::warpgroup_products().groups;
  while (groups.size() > kPending + 1) {
    for (const runner::Products& products : groups.front()) {
      const auto& [d, sums, left, right, operands] = products;
      if (runner::read_operands(left, right, sums.size()) != operands) {
        throw std::logic_error("wait_products: operands were written before their products were");
      }
      std::copy(sums.begin(), sums.end(), d);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace repsim_fast
