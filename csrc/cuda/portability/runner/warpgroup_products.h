// Products by warpgroups on the CPU, for the tests. Include cuda/portability/warpgroup_products.h instead.
//
// As early and as late as the hardware may: products are computed when they are asked for and once
// more in their wait, and if their operands have changed by then, that is an error. In between the
// sums are NaN.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace repsim_fast {

inline bool warpgroup_products_available() { return true; }

// Whether every thread asks for it before the barrier cannot be seen here.
inline void share_with_units() {}

namespace runner {

// 32 bytes of a row, as the units read them: they swizzle addresses, not rows.
inline void read_row(uint32_t (&words)[8], const std::byte* first, unsigned row) {
  for (unsigned half = 0; half < 2; ++half) {
    const auto address =
        reinterpret_cast<uintptr_t>(first) + row * uintptr_t{kUnitRowBytes} + half * 16;
    const uintptr_t place = address ^ (address >> 7 & 7) << 4;
    std::memcpy(words + half * 4, reinterpret_cast<const void*>(place), 16);
  }
}

// This thread's entries of d + a b^T, rounded once, towards zero like those of multiply_tile.
inline void add_products(std::vector<float>& d, const std::byte* a, const std::byte* b) {
  const unsigned row = threadIdx.x % kWarpgroupSize / kWarpSize * 16 + lane() / 4;
  uint32_t left[2][8], right[8];
  for (unsigned half = 0; half < 2; ++half) read_row(left[half], a, row + half * 8);
  for (unsigned j = 0; j < d.size() / 4; ++j) {
    for (unsigned c = 0; c < 2; ++c) {
      read_row(right, b, j * 8 + lane() % 4 * 2 + c);
      for (unsigned half = 0; half < 2; ++half) {
        float& entry = d[j * 4 + half * 2 + c];
        double sum = entry;
        for (unsigned word = 0; word < 8; ++word) {
          sum += word_product<BFloat16>(left[half][word], right[word]);
        }
        entry = static_cast<float>(sum);
        if (std::abs(static_cast<double>(entry)) > std::abs(sum)) {
          entry = std::nextafter(entry, 0.0f);
        }
      }
    }
  }
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace runner

inline void begin_products() {
  runner::sync_warp();
  runner::this_thread->products_begun = true;
}

template <int kCount>
void multiply_rows(float (&d)[kCount], const void* a, const void* b) {
  static_assert(kCount == 32 || kCount == 64);
  runner::ThreadState& state = *runner::this_thread;
  if (!state.products_begun) {
    throw std::logic_error("multiply_rows: begin_products comes before it");
  }
  for (const void* rows : {a, b}) {
    if (reinterpret_cast<uintptr_t>(rows) % 1024 / 32 > 3 ||
        reinterpret_cast<uintptr_t>(rows) % 32 != 0) {
      throw std::logic_error("multiply_rows: not a row of a multiple of 8, and 0 to 96 bytes");
    }
  }
  // Sums of products under way go on from those, not from the NaN that they show.
  std::vector<float> before(d, d + kCount);
  for (const auto& group : state.product_groups) {
    for (const runner::Products& earlier : group) {
      if (earlier.d == d) before = earlier.after;
    }
  }
  runner::Products products{d, static_cast<const std::byte*>(a), static_cast<const std::byte*>(b),
                            before, before};
  runner::add_products(products.after, products.a, products.b);
  std::fill(d, d + kCount, std::numeric_limits<float>::quiet_NaN());
  state.product_groups.back().push_back(std::move(products));
}

inline void commit_products() {
  runner::this_thread->product_groups.emplace_back();
  runner::this_thread->products_begun = false;
}

template <int kPending>
void wait_products() {
  auto& groups = runner::this_thread->product_groups;
  while (groups.size() > kPending + 1) {
    for (runner::Products& products : groups.front()) {
      runner::add_products(products.before, products.a, products.b);
      if (!runner::same_bits(products.before, products.after)) {
        throw std::logic_error("wait_products: operands were written before their products were");
      }
      std::copy(products.after.begin(), products.after.end(), products.d);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace repsim_fast
