// The pybind11 module _C: what this build is. The operators register themselves with torch when
// the shared object is loaded; this file knows nothing of torch.
#include <pybind11/pybind11.h>

#include <string>

#include "cpu/simd_level.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled core of repsim_fast: description of the build.";
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
      "Instruction set the CPU kernels use on this processor.");
}
