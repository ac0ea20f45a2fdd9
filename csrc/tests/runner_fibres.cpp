// The runner's fast engine: the threads of a block are fibres of one OS thread, each run up to its
// next barrier in turn. Finds barriers that not all threads reach. It hides races, for only one
// fibre runs at a time: runner_threads.cpp is for those.
#include <setjmp.h>
#include <ucontext.h>

#include <exception>
#include <memory>

#include "cuda/portability/portability.h"
#include "tests/runner_engine.h"

namespace repsim_fast::runner {
namespace {

constexpr size_t kStackBytes = size_t{64} << 10;

struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
};

struct Fibre {
  jmp_buf resume_point;
  ucontext_t start;
  std::unique_ptr<std::byte[]> stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
  ThreadState state;
  const Barrier* waits_for = nullptr;
  unsigned waits_generation = 0;
  const std::function<bool()>* condition = nullptr;
  bool started = false, done = false;

  bool ready() const {
    return !done && (waits_for == nullptr || waits_for->generation != waits_generation) &&
           (condition == nullptr || (*condition)());
  }
};

struct Engine {
  const char* name = nullptr;
  const std::function<void()>* body = nullptr;
  std::vector<Fibre> fibres;
  std::vector<Barrier> warps;
  std::vector<WarpMailbox> mailboxes;
  Barrier block;
  BlockState block_state;
  jmp_buf scheduler;
  unsigned current = 0;
  std::exception_ptr error;
};

Engine* engine = nullptr;

// ucontext only starts a fibre on its stack; switching by setjmp is ten times faster because it
// makes no system call.
void fibre_main() {
  Fibre& fibre = engine->fibres[engine->current];
  try {
    begin_thread(fibre.state);
    (*engine->body)();
    end_thread(engine->name, fibre.state);
  } catch (...) {
    engine->error = std::current_exception();
  }
  fibre.done = true;
  _longjmp(engine->scheduler, 1);
}

void resume(unsigned thread) {
  Fibre& fibre = engine->fibres[thread];
  engine->current = thread;
  threadIdx = dim3(thread);
  this_thread = &fibre.state;
  if (_setjmp(engine->scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.resume_point, 1);
  fibre.started = true;
  getcontext(&fibre.start);
  fibre.start.uc_stack.ss_sp = fibre.stack.get();
  fibre.start.uc_stack.ss_size = kStackBytes;
  fibre.start.uc_link = nullptr;
  makecontext(&fibre.start, fibre_main, 0);
  setcontext(&fibre.start);
}

void sync(Barrier& barrier) {
  Fibre& fibre = engine->fibres[engine->current];
  fibre.waits_for = &barrier;
  fibre.waits_generation = barrier.generation;
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  if (_setjmp(fibre.resume_point) == 0) _longjmp(engine->scheduler, 1);
}

void run_block() {
  for (Fibre& fibre : engine->fibres) fibre.started = fibre.done = false;
  for (Fibre& fibre : engine->fibres) fibre.waits_for = nullptr, fibre.condition = nullptr;
  const auto threads = static_cast<unsigned>(engine->fibres.size());
  unsigned left = threads;
  while (left > 0) {
    bool progress = false;
    for (unsigned thread = 0; thread < threads; ++thread) {
      if (!engine->fibres[thread].ready()) continue;
      resume(thread);
      if (engine->error) std::rethrow_exception(engine->error);
      progress = true;
      left -= engine->fibres[thread].done ? 1 : 0;
    }
    if (!progress) {
      throw std::logic_error(std::string(engine->name) + ": a barrier is not reached by all its " +
                             "threads, in block " + std::to_string(blockIdx.x) + ", " +
                             std::to_string(blockIdx.y));
    }
  }
}

}  // namespace

void run(const char* name, const LaunchShape& shape, const std::function<void()>& body) {
  check_shape(name, shape);
  const std::lock_guard alone(one_launch);
  Engine local;
  local.name = name;
  local.body = &body;
  local.fibres = std::vector<Fibre>(shape.threads);
  local.block.expected = shape.threads;
  local.warps.assign(shape.threads / kWarpSize, Barrier{kWarpSize});
  local.mailboxes.resize(shape.threads / kWarpSize);
  const auto shared = block_memory(shape.shared_bytes);
  for (unsigned thread = 0; thread < shape.threads; ++thread) {
    ThreadState& state = local.fibres[thread].state;
    state.shared = shared.get();
    state.shared_bytes = shape.shared_bytes;
    state.mailbox = &local.mailboxes[thread / kWarpSize];
    state.block = &local.block_state;
  }
  engine = &local;
  blockDim = dim3(shape.threads);
  gridDim = shape.grid;
  for_each_block(shape.grid, [&](dim3 block) {
    blockIdx = block;
    std::memset(shared.get(), 0xff, shape.shared_bytes);
    run_block();
    end_block(name, local.block_state);
  });
  engine = nullptr;
}

void sync_block() { sync(engine->block); }
void sync_warp() { sync(engine->warps[engine->current / kWarpSize]); }

void wait_until(const std::function<bool()>& condition) {
  Fibre& fibre = engine->fibres[engine->current];
  fibre.condition = &condition;
  if (!condition() && _setjmp(fibre.resume_point) == 0) _longjmp(engine->scheduler, 1);
  engine->fibres[engine->current].condition = nullptr;  // a local may be stale after the jump
}

}  // namespace repsim_fast::runner
