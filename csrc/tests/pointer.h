// Addresses as Python has them.
#pragma once

#include <cstdint>

namespace repsim_fast {

template <typename T = void>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace repsim_fast
