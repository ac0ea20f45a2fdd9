// Enumerations in Python as its own enum.IntEnum: each py::enum_ takes 1.7 s to compile.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <utility>

namespace repsim_fast {

// The class in Python, which lives as long as the process.
template <typename Enum>
inline pybind11::handle python_enumeration;

template <typename Enum>
void define_enumeration(pybind11::module_& module, const char* name,
                        std::initializer_list<std::pair<const char*, Enum>> values) {
  pybind11::dict numbers;
  for (const auto& [word, value] : values) numbers[word] = static_cast<int>(value);
  pybind11::object made = pybind11::module_::import("enum").attr("IntEnum")(name, numbers);
  module.attr(name) = made;
  python_enumeration<Enum> = made.release();
}

// To be derived from by pybind11's type_caster of each enumeration.
template <typename Enum>
struct EnumerationCaster {
  PYBIND11_TYPE_CASTER(Enum, pybind11::detail::const_name("an enumeration"));

  bool load(pybind11::handle source, bool) {
    if (!pybind11::isinstance(source, python_enumeration<Enum>)) return false;
    value = static_cast<Enum>(PyLong_AsLong(source.ptr()));
    return true;
  }
  static pybind11::handle cast(Enum source, pybind11::return_value_policy, pybind11::handle) {
    return python_enumeration<Enum>(static_cast<int>(source)).release();
  }
};

}  // namespace repsim_fast
