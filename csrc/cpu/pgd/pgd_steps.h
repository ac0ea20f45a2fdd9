// Attack steps and random starts on the CPU. T: float or double.
//
// Work is shared out in samples and in chunks of long samples; sums are taken chunk by chunk in a
// fixed order, so the result does not depend on the number of threads.
#pragma once

#include "common/pgd_problem.h"
#include "math/random_start.h"

namespace repsim_fast {

template <typename T>
void linf_step(const StepProblem<T>& problem);

// clip_first: into the box, then into the ball; else the other way round.
template <typename T>
void l2_step(const StepProblem<T>& problem, bool clip_first);

// fraction: share of the entries that a step moves.
template <typename T>
void l1_step(const StepProblem<T>& problem, const PerSample<T>& fraction);

// out = a point of the ball around x, clipped to the box. Of the problem only n, d, x, out, eps and
// the bounds count.
template <typename T>
void random_start(const StepProblem<T>& problem, Norm norm, RandomStream stream);

// A float64 gradient for float32 rows: each row of out is narrow(...) of that of gradient.
void narrow_gradient(const double* gradient, int64_t n, int64_t d, float* out);

}  // namespace repsim_fast
