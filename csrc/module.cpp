// The pybind11 module _C: what this build is, and the way to a Gram without an operator's call. The
// operators register themselves with torch when the shared object is loaded.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/gram/centered_gram.h"
#include "cpu/simd_level.h"

namespace py = pybind11;

namespace repsim_fast {
namespace {

// Writes packed Grams of features of one kind, from address to address. Between the layers of a
// network the code that an operator's call goes through has left the caches, and such a call takes
// several times as long as in a loop: a share of a small Gram that is worth this way around it.
class GramWriter {
 public:
  GramWriter(const std::string& dtype, const std::string& centering, const std::string& precision)
      : type_(parse_type(dtype)),
        centering_(parse_centering(centering)),
        precision_(parse_precision(precision)) {
    STD_TORCH_CHECK(precision_ != Precision::kTf32, "precision: tf32 exists on CUDA only");
    STD_TORCH_CHECK((precision_ == Precision::kFloat64) == (type_ == ScalarType::Double),
                    "precision: ", precision, " does not go with ", dtype);
  }

  void write(uintptr_t features, int64_t n, int64_t p, uintptr_t out) const {
    STD_TORCH_CHECK(n >= minimum_samples(centering_), "n: centering needs at least ",
                    minimum_samples(centering_), " samples, got ", n);
    centered_gram_of({reinterpret_cast<const void*>(features), type_, p, n, p}, centering_,
                     /*packed=*/true, precision_, reinterpret_cast<void*>(out));
  }

 private:
  using ScalarType = torch::headeronly::ScalarType;

  static ScalarType parse_type(const std::string& word) {
    if (word == "float64") return ScalarType::Double;
    if (word == "float32") return ScalarType::Float;
    if (word == "float16") return ScalarType::Half;
    if (word == "bfloat16") return ScalarType::BFloat16;
    STD_TORCH_CHECK(false, "dtype: expected float64, float32, float16 or bfloat16, got ", word);
    return ScalarType::Float;
  }

  ScalarType type_;
  Centering centering_;
  Precision precision_;
};

}  // namespace
}  // namespace repsim_fast

using repsim_fast::GramWriter;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled core of repsim_fast.";
  m.def(
      "build_info",
      [] {
        py::dict info;
        info["compiler"] = REPSIM_CXX;
        info["compiler_flags"] = REPSIM_CXX_FLAGS;
        info["torch_target"] = REPSIM_TORCH_TARGET;
        info["torch_built_with"] = REPSIM_TORCH_BUILT_WITH;
        info["cuda"] = REPSIM_CUDA;
        info["cuda_architectures"] = REPSIM_CUDA_ARCHITECTURES;
        info["cuda_reason"] = REPSIM_CUDA_REASON;
        return info;
      },
      "Compilers, flags and targets this build was made with; empty strings where none.");
  m.def(
      "simd_level",
      [] { return std::string(repsim_fast::simd_level_name(repsim_fast::simd_level())); },
      "Instruction set that the CPU kernels use; ValueError if REPSIM_SIMD names none of "
      "simd_levels().");
  m.def(
      "simd_levels",
      [] {
        std::vector<std::string> names;
        for (const repsim_fast::SimdLevel level : repsim_fast::simd_levels()) {
          names.emplace_back(repsim_fast::simd_level_name(level));
        }
        return names;
      },
      "Instruction sets of this processor that the kernels know, the lowest first.");
  py::class_<GramWriter>(
      m, "GramWriter",
      "Writes packed centred Grams of contiguous CPU features, from address to address.")
      .def(py::init<const std::string&, const std::string&, const std::string&>(), py::arg("dtype"),
           py::arg("centering"), py::arg("precision"))
      .def("write", &GramWriter::write, py::arg("features"), py::arg("n"), py::arg("p"),
           py::arg("out"), py::call_guard<py::gil_scoped_release>(),
           "The Gram of features (n, p) to out, which has room for its packed entries.");
}
