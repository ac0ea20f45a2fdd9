// The words that operators take as strings, parsed once; an unknown one names the argument.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <string>

namespace repsim_fast {

// What is done to the Gram matrix K = X X^T of n samples (rows of X).
enum class Centering {
  kNone,      // K of the features as they are
  kFeatures,  // each feature's mean removed first
  kDouble,    // H K H, H = I - 11^T/n: biased HSIC (Gretton et al. 2005)
  kUnbiased,  // U-centred with a zero diagonal: HSIC_1 (Szekely and Rizzo 2014; Song et al. 2012)
};

enum class Precision { kFloat64, kFloat32, kTf32, kBFloat16 };

inline Centering parse_centering(const std::string& word) {
  if (word == "none") return Centering::kNone;
  if (word == "features") return Centering::kFeatures;
  if (word == "double") return Centering::kDouble;
  if (word == "unbiased") return Centering::kUnbiased;
  STD_TORCH_CHECK(false, "centering: expected none, features, double or unbiased, got ", word);
  return Centering::kNone;
}

inline Precision parse_precision(const std::string& word) {
  if (word == "float64") return Precision::kFloat64;
  if (word == "float32") return Precision::kFloat32;
  if (word == "tf32") return Precision::kTf32;
  if (word == "bfloat16") return Precision::kBFloat16;
  STD_TORCH_CHECK(false, "precision: expected float64, float32, tf32 or bfloat16, got ", word);
  return Precision::kFloat32;
}

// Entries of the packed lower triangle: without the diagonal where that is zero.
inline int64_t packed_size(int64_t n, Centering centering) {
  return centering == Centering::kUnbiased ? n * (n - 1) / 2 : n * (n + 1) / 2;
}

// Samples that the estimator needs.
inline int64_t minimum_samples(Centering centering) {
  return centering == Centering::kUnbiased ? 4 : 1;
}

}  // namespace repsim_fast
