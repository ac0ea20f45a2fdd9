// Version 5 of the Gram: one warp holds the whole triangle of 64 samples and takes its own columns
// of x from global memory to registers, to be centred there and multiplied. A sum over features
// may take them in any order, and a left operand of the matrix units is laid out like two right
// ones: so 16 bytes of a row, wherever they come from, are operands as they are.
#include <cstring>
#include <stdexcept>

#include "cuda/portability/portability.h"
#include "kernels/study.cuh"

namespace repsim_fast::study {
namespace {

constexpr int kRows = 64;
constexpr int kPieces = kRows / 8;  // of 8 rows: lane l has row l / 4 of each
constexpr int kWarps = 8;           // with up to 255 registers a thread
constexpr int kThreads = kWarps * static_cast<int>(kWarpSize);

struct Shared {
  float gram[kRows][kRows];
};

// 16 bytes of a row.
template <typename In>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(In));
  In value[kSize];
};

// Lane l's vectors: columns (4 chunk + l % 4) kSize .. of rows l / 4 + 8 i; zeros outside.
template <typename In>
__device__ void load_chunk(Vector<In> (&vectors)[kPieces], const In* x, int64_t n, int64_t p,
                           int64_t row_stride, int64_t chunk) {
  constexpr int kSize = Vector<In>::kSize;
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int64_t column = (chunk * 4 + lane % 4) * kSize;
  REPSIM_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    const int row = lane / 4 + i * 8;
    const In* source = x + row * row_stride + column;
    if (row < n && column + kSize <= p) {
      vectors[i] = *reinterpret_cast<const Vector<In>*>(source);
    } else {
      REPSIM_UNROLL
      for (int e = 0; e < kSize; ++e) {
        vectors[i].value[e] = row < n && column + e < p ? source[e] : convert_to<In>(0.0f);
      }
    }
  }
}

// Feature e of every row, less its mean; rows from n on stay zero. Relative to the first row, so
// that a common mean far from zero costs nothing.
template <typename In>
__device__ void centred_feature(float (&values)[kPieces], const Vector<In> (&vectors)[kPieces],
                                int e, int64_t n, bool centre) {
  const unsigned lane = threadIdx.x % kWarpSize;
  REPSIM_UNROLL
  for (int i = 0; i < kPieces; ++i) values[i] = to_math(vectors[i].value[e]);
  if (!centre) return;
  const float origin = __shfl_sync(kFullWarp, values[0], lane % 4);
  float sum = 0;
  REPSIM_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    const bool inside = lane / 4 + i * 8 < n;
    values[i] = inside ? values[i] - origin : 0.0f;
    sum += values[i];
  }
  REPSIM_UNROLL
  for (unsigned mask = 4; mask < kWarpSize; mask *= 2) sum += __shfl_xor_sync(kFullWarp, sum, mask);
  const float mean = sum / static_cast<float>(n);
  REPSIM_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    if (lane / 4 + i * 8 < n) values[i] -= mean;
  }
}

__device__ inline uint32_t pack(float low, float high) {
  const BFloat16 pair[2] = {convert_to<BFloat16>(low), convert_to<BFloat16>(high)};
  uint32_t word;
  std::memcpy(&word, pair, sizeof(word));
  return word;
}

template <typename In>
__global__ void __launch_bounds__(kThreads, 1)
    gram_fragments_kernel(const In* x,  // (n, p), rows row_stride apart
                          int64_t n, int64_t p, int64_t row_stride, bool centre,
                          float* gram) {  // (gridDim.x, kRows, kRows)
  auto& shared = shared_memory<Shared>();
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  constexpr int kColumns = 4 * Vector<In>::kSize;
  const int64_t chunks = (p + kColumns - 1) / kColumns;

  // Piece (i, j), 16 x 8 entries: rows 16 i .., columns 8 j ..; j <= 2 i + 1 reach the triangle.
  float sum[kPieces / 2][kPieces][4] = {};
  Vector<In> next[kPieces];
  int64_t chunk = int64_t{blockIdx.x} * kWarps + warp;
  load_chunk(next, x, n, p, row_stride, chunk);
  for (; chunk < chunks; chunk += int64_t{gridDim.x} * kWarps) {
    Vector<In> now[kPieces];
    REPSIM_UNROLL
    for (int i = 0; i < kPieces; ++i) now[i] = next[i];
    load_chunk(next, x, n, p, row_stride, chunk + int64_t{gridDim.x} * kWarps);

    REPSIM_UNROLL
    for (int step = 0; step < Vector<In>::kSize; step += 4) {  // 16 features: 4 of each lane
      uint32_t words[kPieces][2];
      REPSIM_UNROLL
      for (int w = 0; w < 2; ++w) {
        float low[kPieces], high[kPieces];
        centred_feature(low, now, step + 2 * w, n, centre);
        centred_feature(high, now, step + 2 * w + 1, n, centre);
        REPSIM_UNROLL
        for (int i = 0; i < kPieces; ++i) words[i][w] = pack(low[i], high[i]);
      }
      REPSIM_UNROLL
      for (int i = 0; i < kPieces / 2; ++i) {
        const uint32_t left[4] = {words[2 * i][0], words[2 * i + 1][0], words[2 * i][1],
                                  words[2 * i + 1][1]};
        REPSIM_UNROLL
        for (int j = 0; j <= 2 * i + 1; ++j) multiply_tile<BFloat16>(sum[i][j], left, words[j]);
      }
    }
  }

  // The warps' sums, always in the same order.
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kRows; i += kThreads) {
    shared.gram[i / kRows][i % kRows] = 0;
  }
  for (int w = 0; w < kWarps; ++w) {
    __syncthreads();
    if (w != warp) continue;
    REPSIM_UNROLL
    for (int i = 0; i < kPieces / 2; ++i) {
      REPSIM_UNROLL
      for (int j = 0; j <= 2 * i + 1; ++j) {
        REPSIM_UNROLL
        for (int e = 0; e < 4; ++e) {
          shared.gram[i * 16 + e / 2 * 8 + lane / 4][j * 8 + lane % 4 * 2 + e % 2] += sum[i][j][e];
        }
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kRows; i += kThreads) {
    gram[int64_t{blockIdx.x} * kRows * kRows + i] = shared.gram[i / kRows][i % kRows];
  }
}

template <typename In>
void launch_type(const SinglePassArguments& arguments, void* stream) {
  launch("gram_fragments", gram_fragments_kernel<In>,
         {.grid = dim3(static_cast<unsigned>(arguments.splits)),
          .threads = kThreads,
          .shared_bytes = sizeof(Shared),
          .stream = stream},
         static_cast<const In*>(arguments.x), arguments.n, arguments.p, arguments.row_stride,
         arguments.centre, static_cast<float*>(arguments.gram));
}

}  // namespace

void launch_gram_fragments(const SinglePassArguments& arguments, void* stream) {
  if (arguments.n > kRows || arguments.operand_type != ElementType::kBFloat16) {
    throw std::invalid_argument("gram_fragments: expected n <= 64 and bfloat16 operands");
  }
  if (arguments.x_type == ElementType::kFloat32) {
    launch_type<float>(arguments, stream);
  } else {
    launch_type<BFloat16>(arguments, stream);
  }
  launch_sum_splits(
      {.gram = arguments.gram, .wide = false, .entries = kRows * kRows, .splits = arguments.splits},
      stream);
}

}  // namespace repsim_fast::study
