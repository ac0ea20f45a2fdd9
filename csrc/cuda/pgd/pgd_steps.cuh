// Attack steps and random starts on CUDA; T is float or double. Every launcher takes raw device
// pointers, works on the given stream, returns before the work is done, does nothing for an empty
// problem, and throws std::runtime_error if a launch is refused. `scratch` holds as many bytes as
// the function beside the launcher says, 16-byte aligned; null if none.
#pragma once

#include <cstdint>

#include "common/pgd_problem.h"
#include "math/random_start.h"

namespace repsim_fast {

template <typename T>
void launch_linf_step(const StepProblem<T>& problem, void* stream);

// clip_first: into the box, then into the ball; else the other way round.
template <typename T>
void launch_l2_step(const StepProblem<T>& problem, bool clip_first, void* scratch, void* stream);
template <typename T>
int64_t l2_scratch_bytes(int64_t n, int64_t d);

// fraction: share of the entries that a step moves.
template <typename T>
void launch_l1_step(const StepProblem<T>& problem, const PerSample<T>& fraction, void* scratch,
                    void* stream);
template <typename T>
int64_t l1_scratch_bytes(int64_t n, int64_t d);

// out = a point of the ball around x, clipped to the box. Of the problem only n, d, x, out, eps and
// the bounds count.
template <typename T>
void launch_random_start(const StepProblem<T>& problem, Norm norm, RandomStream random,
                         void* scratch, void* stream);
int64_t random_scratch_bytes(int64_t n, int64_t d, Norm norm);

// A float64 gradient for float32 rows: see narrow() in math/projection.h.
void launch_narrow_gradient(const double* gradient,  // (n, d)
                            int64_t n, int64_t d,
                            float* out,  // (n, d)
                            void* stream);

}  // namespace repsim_fast
