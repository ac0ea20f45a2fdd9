// What GCC and Clang spell differently: code for one instruction set, loops that may be vectorised,
// shuffles of vector types.
#pragma once

#include <utility>

#define REPSIM_PRAGMA(text) _Pragma(#text)

// Functions between REPSIM_TARGET_BEGIN("avx2,fma") and REPSIM_TARGET_END are compiled for these
// instructions.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed"  // REPSIM_INDEPENDENT permits, it does not ask
#define REPSIM_TARGET_BEGIN(instructions) \
  REPSIM_PRAGMA(clang attribute push(__attribute__((target(instructions))), apply_to = function))
#define REPSIM_TARGET_END REPSIM_PRAGMA(clang attribute pop)
// Of a loop: no iteration reads what another one writes.
#define REPSIM_INDEPENDENT REPSIM_PRAGMA(clang loop vectorize(assume_safety))
#else
#define REPSIM_TARGET_BEGIN(instructions) \
  REPSIM_PRAGMA(GCC push_options)         \
  REPSIM_PRAGMA(GCC target(instructions))
#define REPSIM_TARGET_END REPSIM_PRAGMA(GCC pop_options)
#define REPSIM_INDEPENDENT REPSIM_PRAGMA(GCC ivdep)
#endif

// Lanes of a and then b, chosen by From::lane(l) for lane l of the result, which is a constant
// expression; Index is the vector of integers of the same size. A macro, because a function has the
// instruction set of where it is written.
#if defined(__clang__)
#define REPSIM_SHUFFLE(a, b, From, Index, lanes)                                           \
  [&]<int... kLane>(std::integer_sequence<int, kLane...>) __attribute__((always_inline)) { \
    return __builtin_shufflevector(a, b, From::lane(kLane)...);                            \
  }(std::make_integer_sequence<int, lanes>())
#else
#define REPSIM_SHUFFLE(a, b, From, Index, lanes)                                           \
  [&]<int... kLane>(std::integer_sequence<int, kLane...>) __attribute__((always_inline)) { \
    return __builtin_shuffle(a, b, Index{From::lane(kLane)...});                           \
  }(std::make_integer_sequence<int, lanes>())
#endif
