// Random starts: one stream of numbers for CPU and CUDA, and its distributions.
//
// Every number is a function of (seed, offset, row, entry) alone: it depends neither on threads nor
// on the device nor on the rest of the batch. All products that meet a sum are explicit fused
// multiply-adds, so that no compiler can round them differently.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace repsim_fast {

struct RandomWords {
  uint32_t word[4];
};

// Which stream: the key of the generator, and the upper half of its counter.
struct RandomStream {
  uint64_t seed, offset;
};

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
// section 3.3 and table 2): ten rounds of a keyed bijection of 128-bit counters.
REPSIM_HOST_DEVICE inline RandomWords philox(RandomWords counter, uint32_t key0, uint32_t key1) {
  uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
#if defined(__CUDA_ARCH__)
#pragma unroll
#elif !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0, product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c1 = static_cast<uint32_t>(product1);
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;  // golden ratio
    key1 += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return {{c0, c1, c2, c3}};
}

// A row's entries take the words in blocks: entry e of the row takes word e / 32 % 4 of the group
// 32 (e / 128) + e % 32, so that 32 lanes that compute neighbouring groups write neighbouring
// entries, whether they are the lanes of a warp or of vectors.
constexpr int kRandomLanes = 32;
constexpr int kRandomBlock = 4 * kRandomLanes;

// Limits of a row and of a batch. The last group of words is not a row's entries' but its own.
constexpr int64_t kRandomEntries = int64_t{1} << 33;
constexpr int64_t kRandomRows = int64_t{1} << 32;
constexpr uint32_t kRandomRowGroup = 0xffffffffu;

REPSIM_HOST_DEVICE inline RandomWords random_words(RandomStream stream, uint32_t row,
                                                   uint32_t group) {
  const RandomWords counter = {{group, row, static_cast<uint32_t>(stream.offset),
                                static_cast<uint32_t>(stream.offset >> 32)}};
  return philox(counter, static_cast<uint32_t>(stream.seed),
                static_cast<uint32_t>(stream.seed >> 32));
}

// ---- distributions

// Uniform in (-1, 1): odd multiples of 2^-23, each as likely as its negative.
REPSIM_HOST_DEVICE inline float symmetric_uniform(uint32_t word) {
  const int32_t k = static_cast<int32_t>(word) >> 9;
  return static_cast<float>(2 * k + 1) * 0x1p-23f;
}

// Uniform in (0, 1]: floats as dense near 0 as their resolution allows.
REPSIM_HOST_DEVICE inline float positive_uniform(uint32_t word) {
  // By way of a signed integer, which vectors convert in one instruction.
  const float high = static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1p-24f;
  const float low = static_cast<float>(static_cast<int32_t>(word & 0xffu));
  return std::fma(low, 0x1p-32f, high + 0x1p-33f);
}

// Logarithm of a number in (0, 1]: with u = 2^e m, m in [sqrt(1/2), sqrt 2) and s = (m-1) / (m+1),
// log u = e log 2 + 2 artanh s, of which five terms leave 2e-9.
REPSIM_HOST_DEVICE inline float log_of_uniform(float u) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;  // bits of sqrt(1/2)
  const int32_t bits = std::bit_cast<int32_t>(u);
  const int32_t exponent = (bits - kSqrtHalf) >> 23;
  const float m = std::bit_cast<float>(bits - exponent * (1 << 23));
  const float s = (m - 1.0f) / (m + 1.0f);
  const float s2 = s * s;
  float series = std::fma(s2, 1.0f / 9, 1.0f / 7);
  series = std::fma(s2, series, 1.0f / 5);
  series = std::fma(s2, series, 1.0f / 3);
  series = std::fma(s2, series, 1.0f);
  constexpr float kLog2 = 0.69314718056f;
  return std::fma(s + s, series, static_cast<float>(exponent) * kLog2);
}

struct Point {
  float x, y;
};

// A point of the unit circle at a uniform angle: the top two bits choose the quadrant, the others
// an angle within a quarter turn around its middle, where a few Taylor terms leave 3e-8.
REPSIM_HOST_DEVICE inline Point circle_point(uint32_t word) {
  constexpr float kQuarterTurn = 1.57079632679f;
  const float turn = static_cast<float>(static_cast<int32_t>(word << 2)) * 0x1p-32f;
  const float a = turn * kQuarterTurn, a2 = a * a;
  float sine = std::fma(a2, 1.0f / 362880, -1.0f / 5040);
  sine = std::fma(a2, sine, 1.0f / 120);
  sine = std::fma(a2, sine, -1.0f / 6);
  sine = std::fma(a2 * sine, a, a);
  float cosine = std::fma(a2, 1.0f / 40320, -1.0f / 720);
  cosine = std::fma(a2, cosine, 1.0f / 24);
  cosine = std::fma(a2, cosine, -1.0f / 2);
  cosine = std::fma(a2, cosine, 1.0f);
  const bool odd = (word >> 30 & 1u) != 0, half_turn = (word >> 31) != 0;
  const float x = odd ? -sine : cosine, y = odd ? cosine : sine;
  return {half_turn ? -x : x, half_turn ? -y : y};
}

// -2 log u, the square of a Gaussian pair's radius (Box and Muller 1958): x and y of circle_point
// times its root are two independent standard normals.
REPSIM_HOST_DEVICE inline float square_radius(uint32_t word) {
  return -2.0f * log_of_uniform(positive_uniform(word));
}

// An exponential variable with a random sign. d of d + 1 exponentials over the sum of all are the
// spacings of sorted uniforms: uniform on the simplex, hence with signs uniform in the L1 ball.
REPSIM_HOST_DEVICE inline float signed_exponential(uint32_t word) {
  const float value = -log_of_uniform(positive_uniform(word & ~1u));
  return (word & 1u) != 0 ? -value : value;
}

// ---- scale of a row

// Factor that turns d Gaussian entries with this sum of squares into a point uniform in the unit
// L2 ball: radius U^(1/d).
REPSIM_HOST_DEVICE inline double l2_ball_factor(RandomStream stream, uint32_t row, int64_t d,
                                                double square_sum) {
  const RandomWords words = random_words(stream, row, kRandomRowGroup);
  const uint64_t bits = (uint64_t{words.word[0]} << 32 | words.word[1]) >> 11;
  const double u = (static_cast<double>(bits) + 0.5) * 0x1p-53;
  return square_sum > 0 ? std::exp(std::log(u) / static_cast<double>(d)) / std::sqrt(square_sum)
                        : 0.0;
}

// Factor that turns d signed exponentials with this sum of sizes into a point uniform in the unit
// L1 ball.
REPSIM_HOST_DEVICE inline double l1_ball_factor(RandomStream stream, uint32_t row, double sum) {
  const RandomWords words = random_words(stream, row, kRandomRowGroup);
  const float extra = -log_of_uniform(positive_uniform(words.word[2]));
  return 1.0 / (sum + static_cast<double>(extra));
}

}  // namespace repsim_fast
