// Test-only Python module: every launcher, with its kernels on the CPU. Pointers are those of CPU
// tensors (Tensor.data_ptr()), which python_tests/csrc keeps alive and of the right size.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/gram/centered_gram.cuh"
#include "cuda/gram/gram_plan.h"
#include "math/triangle.h"
#include "tests/probe_kernels.cuh"

namespace py = pybind11;
using namespace repsim_fast;  // NOLINT: a test module

namespace {

template <typename T = void>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

PYBIND11_MODULE(_cuda_runner, m) {
  m.doc() = "CUDA launchers of repsim_fast, executed on the CPU";

  py::enum_<ElementType>(m, "ElementType")
      .value("float64", ElementType::kFloat64)
      .value("float32", ElementType::kFloat32)
      .value("float16", ElementType::kFloat16)
      .value("bfloat16", ElementType::kBFloat16)
      .value("tf32", ElementType::kTf32);
  py::enum_<GramCentering>(m, "GramCentering")
      .value("none", GramCentering::kNone)
      .value("double", GramCentering::kDouble)
      .value("unbiased", GramCentering::kUnbiased);
  py::enum_<StripCopies>(m, "StripCopies")
      .value("async_", StripCopies::kAsync)
      .value("bulk", StripCopies::kBulk);
  py::enum_<GramProducts>(m, "GramProducts")
      .value("single_pass", GramProducts::kSinglePass)
      .value("warpgroups", GramProducts::kWarpgroups)
      .value("tiles", GramProducts::kTiles)
      .value("vendor", GramProducts::kVendor);
  py::class_<GramPlan>(m, "GramPlan")
      .def_readonly("products", &GramPlan::products)
      .def_readonly("tile", &GramPlan::tile)
      .def_readonly("tiles", &GramPlan::tiles)
      .def_readonly("splits", &GramPlan::splits)
      .def_readonly("panels", &GramPlan::panels)
      .def_readonly("copies", &GramPlan::copies);

  m.def(
      "plan_gram",
      [](int64_t n, int64_t p, ElementType x_type, ElementType operand_type,
         bool single_pass_layout, int64_t multiprocessors, int64_t shared_bytes, bool bulk_copies,
         bool warpgroups) {
        return plan_gram({n, p, x_type, operand_type, single_pass_layout, multiprocessors,
                          shared_bytes, bulk_copies, warpgroups});
      },
      py::kw_only(), py::arg("n"), py::arg("p"), py::arg("x_type"), py::arg("operand_type"),
      py::arg("single_pass_layout"), py::arg("multiprocessors"), py::arg("shared_bytes"),
      py::arg("bulk_copies") = false, py::arg("warpgroups") = false);
  py::class_<GramThresholds>(m, "GramThresholds")
      .def_readwrite("bulk_copy_samples", &GramThresholds::bulk_copy_samples)
      .def_readwrite("warpgroup_samples", &GramThresholds::warpgroup_samples);
  m.def(
      "gram_thresholds", []() -> GramThresholds& { return gram_thresholds; },
      py::return_value_policy::reference);
  m.def("single_pass_tile", &single_pass_tile);
  m.def("bulk_strips_available", &bulk_strips_available);
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
  const auto define_pass = [&m](const char* name, auto launcher) {
    m.def(
        name,
        [launcher](uintptr_t x, ElementType x_type, int64_t n, int64_t p, int64_t row_stride,
                   bool centre, ElementType operand_type, int64_t tile, int64_t splits,
                   uintptr_t gram, StripCopies copies) {
          launcher({pointer(x), x_type, n, p, row_stride, centre, operand_type, tile, splits,
                    pointer(gram), copies},
                   nullptr);
        },
        py::kw_only(), py::arg("x"), py::arg("x_type"), py::arg("n"), py::arg("p"),
        py::arg("row_stride"), py::arg("centre"), py::arg("operand_type"), py::arg("tile"),
        py::arg("splits"), py::arg("gram"), py::arg("copies") = StripCopies::kAsync);
  };
  define_pass("single_pass_product", &launch_single_pass_product);
  define_pass("warpgroup_product", &launch_warpgroup_product);
  m.def("warpgroup_product_available", &warpgroup_product_available);
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
  py::enum_<BulkFault>(m, "BulkFault")
      .value("none", BulkFault::kNone)
      .value("no_wait", BulkFault::kNoWait)
      .value("too_late", BulkFault::kTooLate)
      .value("too_few_bytes", BulkFault::kTooFewBytes)
      .value("no_phase", BulkFault::kNoPhase);
  m.def("bulk_copy", [](uintptr_t matrix, int64_t rows, int64_t columns, int64_t row_stride,
                        BulkFault fault, uintptr_t to) {
    launch_bulk_copy(pointer<float>(matrix), rows, columns, row_stride, fault, pointer<float>(to),
                     nullptr);
  });
  py::enum_<ProductFault>(m, "ProductFault")
      .value("none", ProductFault::kNone)
      .value("no_begin", ProductFault::kNoBegin)
      .value("no_wait", ProductFault::kNoWait)
      .value("too_early", ProductFault::kTooEarly)
      .value("unfinished", ProductFault::kUnfinished);
  m.def("warpgroup_products",
        [](uintptr_t rows, ProductFault fault, uintptr_t pair, uintptr_t single) {
          launch_warpgroup_products(pointer<uint16_t>(rows), fault, pointer<float>(pair),
                                    pointer<float>(single), nullptr);
        });
  m.def("divergent_barrier", [] { launch_divergent_barrier(nullptr); });
  m.def("greedy_shared_memory", [] { launch_greedy_shared_memory(nullptr); });
}
