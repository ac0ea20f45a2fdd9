// The runner's faithful engine: one OS thread for each CUDA thread of a block, so that the thread
// sanitizer sees every data race. Slow; a barrier that not all threads reach is not diagnosed
// (runner_fibres.cpp does that).
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "cuda/portability/portability.h"
#include "tests/runner_engine.h"

namespace repsim_fast::runner {
namespace {

struct Engine {
  std::barrier<> block;
  std::vector<std::unique_ptr<std::barrier<>>> warps;
  std::vector<WarpMailbox> mailboxes;
  BlockState block_state;
};

Engine* engine = nullptr;

}  // namespace

void run(const char* name, const LaunchShape& shape, const std::function<void()>& body) {
  check_shape(name, shape);
  const std::lock_guard alone(one_launch);
  Engine local{
      .block = std::barrier<>(shape.threads), .warps = {}, .mailboxes = {}, .block_state = {}};
  for (unsigned warp = 0; warp < shape.threads / kWarpSize; ++warp) {
    local.warps.push_back(std::make_unique<std::barrier<>>(kWarpSize));
  }
  local.mailboxes.resize(shape.threads / kWarpSize);
  const auto shared = block_memory(shape.shared_bytes);
  engine = &local;

  const auto thread_main = [&](unsigned thread) {
    ThreadState state;
    state.shared = shared.get();
    state.shared_bytes = shape.shared_bytes;
    state.mailbox = &local.mailboxes[thread / kWarpSize];
    state.block = &local.block_state;
    this_thread = &state;
    threadIdx = dim3(thread);
    blockDim = dim3(shape.threads);
    gridDim = shape.grid;
    for_each_block(shape.grid, [&](dim3 block) {
      blockIdx = block;
      if (thread == 0) std::memset(shared.get(), 0xff, shape.shared_bytes);
      sync_block();
      begin_thread(state);
      body();
      end_thread(name, state);
      sync_block();
      if (thread == 0) end_block(name, local.block_state);
    });
  };
  // An exception in a thread ends the program with its message: the others would wait forever.
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < shape.threads; ++thread) {
    threads.emplace_back([&, thread] {
      try {
        thread_main(thread);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  engine = nullptr;
}

void sync_block() { engine->block.arrive_and_wait(); }
void sync_warp() { engine->warps[threadIdx.x / kWarpSize]->arrive_and_wait(); }

void wait_until(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();
}

}  // namespace repsim_fast::runner
