// The L2 step in three passes over a sample: the gradient's norm, the move and the perturbation's
// norm, the way back into the ball. The last one is skipped where it would change nothing.
#include <cmath>
#include <vector>

#include "cpu/pgd/pgd_kernels.h"
#include "cpu/pgd/pgd_rows.h"
#include "cpu/pgd/pgd_steps.h"

namespace repsim_fast {
namespace {

template <typename T>
class L2Step {
 public:
  L2Step(const StepProblem<T>& problem, bool clip_first)
      : problem_(problem),
        clip_first_(clip_first),
        bounds_(problem.low, problem.high, problem.d),
        chunks_(chunks_of(problem.d)),
        gradient_sums_(static_cast<size_t>(problem.gradient ? problem.n * chunks_ : 0)),
        delta_sums_(static_cast<size_t>(problem.n * chunks_)) {}

  void run() {
    const int64_t n = problem_.n, d = problem_.d;
    const auto measure = [&](int64_t s, int64_t c, int64_t b, int64_t e) {
      measure_chunk(s, c, b, e);
    };
    const auto move = [&](int64_t s, int64_t c, int64_t b, int64_t e) { move_chunk(s, c, b, e); };
    const auto shrink = [&](int64_t s, int64_t c, int64_t b, int64_t e) {
      shrink_chunk(s, c, b, e);
    };
    if (enough_samples(n, d)) {
      // A sample stays in the cache for all three passes.
      for_samples(n, d, [&](int64_t first, int64_t last) {
        for (int64_t sample = first; sample < last; ++sample) {
          in_chunks(sample, measure);
          in_chunks(sample, move);
          in_chunks(sample, shrink);
        }
      });
    } else {
      for_chunks(n, d, measure);
      for_chunks(n, d, move);
      for_chunks(n, d, shrink);
    }
  }

 private:
  template <typename F>
  void in_chunks(int64_t sample, F f) {
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      f(sample, chunk, chunk * kChunk, std::min(problem_.d, (chunk + 1) * kChunk));
    }
  }

  size_t index(int64_t sample, int64_t chunk) const {
    return static_cast<size_t>(sample * chunks_ + chunk);
  }

  void measure_chunk(int64_t sample, int64_t chunk, int64_t begin, int64_t end) {
    if (problem_.gradient == nullptr) return;
    gradient_sums_[index(sample, chunk)] =
        kernels_.gradient_sum(problem_.gradient + sample * problem_.d + begin, end - begin);
  }

  void move_chunk(int64_t sample, int64_t chunk, int64_t begin, int64_t end) {
    Direction<T> direction{1, 0};
    bool unsafe = false;
    if (problem_.gradient != nullptr) {
      SquareSum<T> sum;
      for (int64_t c = 0; c < chunks_; ++c) {
        const GradientSum<T>& of_chunk = gradient_sums_[index(sample, c)];
        sum.add(of_chunk.squares);
        unsafe |= of_chunk.unsafe;
      }
      direction = sum.direction(static_cast<double>(problem_.size[sample]));
    }
    double sum = 0;
    bounds_.for_parts(begin, end, [&](int64_t first, int64_t count, const Box<T>& box) {
      const int64_t at = sample * problem_.d + first;
      sum += kernels_.l2_move(problem_.adv + at,
                              problem_.gradient ? problem_.gradient + at : nullptr, problem_.x + at,
                              count, direction, unsafe, clip_first_, box, problem_.out + at);
    });
    delta_sums_[index(sample, chunk)] = sum;
  }

  void shrink_chunk(int64_t sample, int64_t, int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t c = 0; c < chunks_; ++c) sum += delta_sums_[index(sample, c)];
    const double length = std::sqrt(sum), eps = static_cast<double>(problem_.eps[sample]);
    const bool outside = length > eps;
    if (!outside && clip_first_) return;
    const T factor = outside ? static_cast<T>(eps / length) : T{1};
    bounds_.for_parts(begin, end, [&](int64_t first, int64_t count, const Box<T>& box) {
      const int64_t at = sample * problem_.d + first;
      kernels_.l2_shrink(problem_.x + at, count, factor, box, problem_.out + at);
    });
  }

  const StepProblem<T>& problem_;
  const bool clip_first_;
  const RowBounds<T> bounds_;
  const PgdKernels<T>& kernels_ = pgd_kernels<T>();
  const int64_t chunks_;
  std::vector<GradientSum<T>> gradient_sums_;  // (n, chunks)
  std::vector<double> delta_sums_;             // (n, chunks)
};

}  // namespace

template <typename T>
void l2_step(const StepProblem<T>& problem, bool clip_first) {
  L2Step<T>(problem, clip_first).run();
}

template void l2_step<float>(const StepProblem<float>&, bool);
template void l2_step<double>(const StepProblem<double>&, bool);

}  // namespace repsim_fast
