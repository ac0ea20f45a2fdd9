// Python module of the kernel study, compiled with the launchers' test module, whose types it uses
// (csrc/tests/runner_module.cpp).
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/pgd/pgd_steps.cuh"
#include "kernels/portability_probes.cuh"
#include "kernels/study.cuh"
#include "tests/enumeration.h"
#include "tests/pointer.h"

namespace py = pybind11;
using namespace repsim_fast;  // NOLINT: a module of benchmarks

namespace pybind11::detail {

template <>
struct type_caster<ElementType> : EnumerationCaster<ElementType> {};
template <>
struct type_caster<study::BulkFault> : EnumerationCaster<study::BulkFault> {};
template <>
struct type_caster<study::ProductFault> : EnumerationCaster<study::ProductFault> {};

}  // namespace pybind11::detail

namespace {

// Version 4 is the package's own step, given one sample.
void linf_version(int version, int64_t count, uintptr_t adv, uintptr_t gradient, uintptr_t x,
                  uintptr_t out, float size, float eps) {
  if (version != 4) {
    return study::launch_linf_version(
        {version, count, pointer<const float>(adv), pointer<const float>(gradient),
         pointer<const float>(x), pointer<float>(out), size, eps},
        nullptr);
  }
  const StepProblem<float> problem{.n = 1,
                                   .d = count,
                                   .adv = pointer<const float>(adv),
                                   .gradient = pointer<const float>(gradient),
                                   .x = pointer<const float>(x),
                                   .out = pointer<float>(out),
                                   .size = {size, nullptr},
                                   .eps = {eps, nullptr},
                                   .low = {0, nullptr, 1, 1},
                                   .high = {1, nullptr, 1, 1}};
  launch_linf_step(problem, nullptr);
}

// Versions 2 to 7; splits and tile as plan_gram gives them, tile 64 for versions 5 to 7.
void gram_version(int version, uintptr_t x, ElementType x_type, int64_t n, int64_t p,
                  int64_t row_stride, bool centre, ElementType operand_type, int64_t tile,
                  int64_t splits, uintptr_t gram) {
  const SinglePassArguments arguments{.x = pointer<const void>(x),
                                      .x_type = x_type,
                                      .n = n,
                                      .p = p,
                                      .row_stride = row_stride,
                                      .centre = centre,
                                      .operand_type = operand_type,
                                      .tile = tile,
                                      .splits = splits,
                                      .gram = pointer<void>(gram)};
  switch (version) {
    case 2:
      return study::launch_gram_through_registers(arguments, nullptr);
    case 3:
      return launch_single_pass_product(arguments, nullptr);
    case 4:
      return study::launch_gram_bulk_copies(arguments, nullptr);
    case 5:
      return study::launch_gram_fragments(arguments, nullptr);
    case 6:
      return study::launch_gram_strip_fragments(arguments, nullptr);
    case 7:
      return study::launch_gram_warpgroups(arguments, nullptr);
    default:
      throw py::value_error("gram_version: there are 2 to 7");
  }
}

}  // namespace

PYBIND11_MODULE(_kernel_study, m) {
  m.doc() = "Numbered kernel versions of benchmarks/kernels";
  m.def("linf_version", &linf_version, py::kw_only(), py::arg("version"), py::arg("count"),
        py::arg("adv"), py::arg("gradient"), py::arg("x"), py::arg("out"), py::arg("size"),
        py::arg("eps"));
  m.def("gram_version", &gram_version, py::kw_only(), py::arg("version"), py::arg("x"),
        py::arg("x_type"), py::arg("n"), py::arg("p"), py::arg("row_stride"),
        py::arg("centre") = true, py::arg("operand_type") = ElementType::kBFloat16, py::arg("tile"),
        py::arg("splits"), py::arg("gram"));
  m.def("bulk_copies_available", &study::bulk_copies_available);
  m.def("warpgroups_available", &study::warpgroups_available);

  define_enumeration<study::BulkFault>(m, "BulkFault",
                                       {{"none", study::BulkFault::kNone},
                                        {"no_wait", study::BulkFault::kNoWait},
                                        {"too_late", study::BulkFault::kTooLate},
                                        {"too_few_bytes", study::BulkFault::kTooFewBytes},
                                        {"no_phase", study::BulkFault::kNoPhase}});
  m.def("bulk_copy", [](uintptr_t matrix, int64_t rows, int64_t columns, int64_t row_stride,
                        study::BulkFault fault, uintptr_t to) {
    study::launch_bulk_copy(pointer<float>(matrix), rows, columns, row_stride, fault,
                            pointer<float>(to), nullptr);
  });
  define_enumeration<study::ProductFault>(m, "ProductFault",
                                          {{"none", study::ProductFault::kNone},
                                           {"no_begin", study::ProductFault::kNoBegin},
                                           {"no_wait", study::ProductFault::kNoWait},
                                           {"too_early", study::ProductFault::kTooEarly},
                                           {"unfinished", study::ProductFault::kUnfinished}});
  m.def("warpgroup_products",
        [](uintptr_t rows, study::ProductFault fault, uintptr_t pair, uintptr_t single) {
          study::launch_warpgroup_products(pointer<uint16_t>(rows), fault, pointer<float>(pair),
                                           pointer<float>(single), nullptr);
        });
}
