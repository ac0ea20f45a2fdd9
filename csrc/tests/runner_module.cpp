// Test-only Python module: every launcher, with its kernels on the CPU. Pointers are those of CPU
// tensors (Tensor.data_ptr()), which python_tests/csrc keeps alive and of the right size. The
// kernel study's module comes with it, for pybind11 takes longer to read than either.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/gram/centered_gram.cuh"
#include "cuda/gram/gram_plan.h"
#include "kernels/study_module.h"
#include "math/triangle.h"
#include "tests/enumeration.h"
#include "tests/pointer.h"
#include "tests/probe_kernels.cuh"

namespace py = pybind11;
using namespace repsim_fast;  // NOLINT: a test module

namespace pybind11::detail {

template <>
struct type_caster<GramCentering> : EnumerationCaster<GramCentering> {};
template <>
struct type_caster<GramProducts> : EnumerationCaster<GramProducts> {};

}  // namespace pybind11::detail

PYBIND11_MODULE(_cuda_runner, m) {
  m.doc() = "CUDA launchers of repsim_fast, executed on the CPU";

  define_enumeration<ElementType>(m, "ElementType",
                                  {{"float64", ElementType::kFloat64},
                                   {"float32", ElementType::kFloat32},
                                   {"float16", ElementType::kFloat16},
                                   {"bfloat16", ElementType::kBFloat16},
                                   {"tf32", ElementType::kTf32}});
  define_enumeration<GramCentering>(m, "GramCentering",
                                    {{"none", GramCentering::kNone},
                                     {"double", GramCentering::kDouble},
                                     {"unbiased", GramCentering::kUnbiased}});
  define_enumeration<GramProducts>(m, "GramProducts",
                                   {{"single_pass", GramProducts::kSinglePass},
                                    {"tiles", GramProducts::kTiles},
                                    {"vendor", GramProducts::kVendor}});
  py::class_<GramPlan>(m, "GramPlan")
      .def_readonly("products", &GramPlan::products)
      .def_readonly("tile", &GramPlan::tile)
      .def_readonly("tiles", &GramPlan::tiles)
      .def_readonly("splits", &GramPlan::splits)
      .def_readonly("panels", &GramPlan::panels);

  m.def(
      "plan_gram",
      [](int64_t n, int64_t p, ElementType x_type, ElementType operand_type,
         bool single_pass_layout, int64_t multiprocessors, int64_t shared_bytes) {
        return plan_gram(
            {n, p, x_type, operand_type, single_pass_layout, multiprocessors, shared_bytes});
      },
      py::kw_only(), py::arg("n"), py::arg("p"), py::arg("x_type"), py::arg("operand_type"),
      py::arg("single_pass_layout"), py::arg("multiprocessors"), py::arg("shared_bytes"));
  m.def("single_pass_tile", &single_pass_tile);
  m.def("single_pass_splits", &single_pass_splits, py::kw_only(), py::arg("p"), py::arg("x_type"),
        py::arg("tile"), py::arg("multiprocessors"));
  m.def("feature_pitch", &feature_pitch);
  m.def("triangle_position", [](int64_t index) {
    const TrianglePosition position = triangle_position(index);
    return py::make_tuple(position.row, position.column);
  });

  m.def(
      "center_features",
      [](uintptr_t x, ElementType x_type, int64_t n, int64_t p, int64_t row_stride,
         int64_t column_stride, bool centre, uintptr_t features, ElementType operand_type) {
        launch_center_features({pointer(x), x_type, n, p, row_stride, column_stride, centre,
                                pointer(features), operand_type, feature_pitch(p, operand_type)},
                               nullptr);
      },
      py::kw_only(), py::arg("x"), py::arg("x_type"), py::arg("n"), py::arg("p"),
      py::arg("row_stride"), py::arg("column_stride"), py::arg("centre"), py::arg("features"),
      py::arg("operand_type"));
  m.def(
      "triangle_product",
      [](uintptr_t features, ElementType operand_type, int64_t n, int64_t pitch, int64_t tile,
         int64_t splits, uintptr_t gram) {
        launch_triangle_product(
            {pointer(features), operand_type, n, pitch, tile, splits, pointer(gram)}, nullptr);
      },
      py::kw_only(), py::arg("features"), py::arg("operand_type"), py::arg("n"), py::arg("pitch"),
      py::arg("tile"), py::arg("splits"), py::arg("gram"));
  m.def(
      "single_pass_product",
      [](uintptr_t x, ElementType x_type, int64_t n, int64_t p, int64_t row_stride, bool centre,
         ElementType operand_type, int64_t tile, int64_t splits, uintptr_t gram) {
        launch_single_pass_product({pointer(x), x_type, n, p, row_stride, centre, operand_type,
                                    tile, splits, pointer(gram)},
                                   nullptr);
      },
      py::kw_only(), py::arg("x"), py::arg("x_type"), py::arg("n"), py::arg("p"),
      py::arg("row_stride"), py::arg("centre"), py::arg("operand_type"), py::arg("tile"),
      py::arg("splits"), py::arg("gram"));
  m.def(
      "finish_gram",
      [](uintptr_t gram, bool wide, int64_t n, int64_t tile, GramCentering centering,
         uintptr_t row_sums, bool packed, uintptr_t out) {
        launch_finish_gram({pointer(gram), wide, n, tile, centering, pointer<double>(row_sums),
                            packed, pointer(out)},
                           nullptr);
      },
      py::kw_only(), py::arg("gram"), py::arg("wide"), py::arg("n"), py::arg("tile"),
      py::arg("centering"), py::arg("row_sums"), py::arg("packed"), py::arg("out"));

  m.def("block_sums", [](uintptr_t values, int64_t blocks, uintptr_t sums) {
    launch_block_sums(pointer<float>(values), blocks, pointer<float>(sums), nullptr);
  });
  m.def("async_copy", [](uintptr_t from, uintptr_t to) {
    launch_async_copy(pointer<float>(from), pointer<float>(to), nullptr);
  });
  m.def("async_copy_without_wait", [](uintptr_t from, uintptr_t to) {
    launch_async_copy_without_wait(pointer<float>(from), pointer<float>(to), nullptr);
  });
  m.def("early_async_copy", [](uintptr_t from, uintptr_t to) {
    launch_early_async_copy(pointer<float>(from), pointer<float>(to), nullptr);
  });
  m.def("divergent_barrier", [] { launch_divergent_barrier(nullptr); });
  m.def("greedy_shared_memory", [] { launch_greedy_shared_memory(nullptr); });
  m.def(
      "large_shared_memory",
      [](int64_t bytes, uintptr_t out) {
        launch_large_shared_memory(bytes, pointer<int32_t>(out), nullptr);
      },
      py::call_guard<py::gil_scoped_release>());
  m.def("lower_shared_limit", &lower_shared_limit);
}
