// The runner's faithful engine: one OS thread for each CUDA thread of a block, so that the thread
// sanitizer sees every data race. Slow; a barrier that not all threads reach is not diagnosed
// (runner_fibres.cpp does that).
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include "cuda/portability/portability.h"
#include "tests/runner_engine.h"

namespace repsim_fast::runner {
namespace {

// std::barrier is a tree, and its waits look again and again: under the thread sanitizer every look
// that acquires costs as much as there are threads.
class Barrier {
 public:
  explicit Barrier(unsigned threads) : threads_(threads) {}

  void arrive_and_wait() {
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
    } else {
      phase_.wait(phase, std::memory_order_relaxed);
      phase_.load(std::memory_order_acquire);
    }
  }

 private:
  const unsigned threads_;
  std::atomic<unsigned> arrived_ = 0, phase_ = 0;
};

struct Engine {
  Barrier block;
  std::vector<std::unique_ptr<Barrier>> warps;
  std::vector<WarpMailbox> mailboxes;
  BlockState block_state;
};

Engine* engine = nullptr;

// Threads that outlive a launch: under the thread sanitizer to start one takes longer than most
// kernels. Their order is that of fresh ones: all begin after the launch and end before `run` does.
class Team {
 public:
  ~Team() {
    job_ = nullptr;
    for (const auto& member : members_) member->begin.release();
    for (const auto& member : members_) member->thread.join();
  }

  // Calls job(0), ..., job(count - 1), each in a thread of its own, and waits for all of them.
  void run(unsigned count, const std::function<void(unsigned)>& job) {
    while (members_.size() < count) {
      members_.push_back(std::make_unique<Member>());
      Member& member = *members_.back();
      const auto index = static_cast<unsigned>(members_.size() - 1);
      member.thread = std::thread([this, &member, index] { serve(member, index); });
    }
    job_ = &job;
    busy_ = count;
    for (unsigned i = 0; i < count; ++i) members_[i]->begin.release();
    while (const unsigned busy = busy_) busy_.wait(busy);
  }

 private:
  struct Member {
    std::binary_semaphore begin{0};
    std::thread thread;
  };

  void serve(Member& member, unsigned index) {
    for (;;) {
      member.begin.acquire();
      if (job_ == nullptr) return;
      // An exception ends the program with its message: the other threads would wait forever.
      try {
        (*job_)(index);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        std::abort();
      }
      if (--busy_ == 0) busy_.notify_one();
    }
  }

  std::vector<std::unique_ptr<Member>> members_;
  const std::function<void(unsigned)>* job_ = nullptr;
  std::atomic<unsigned> busy_ = 0;
};

}  // namespace

void run(const char* name, const LaunchShape& shape, const std::function<void()>& body) {
  check_shape(name, shape);
  const std::lock_guard alone(one_launch);
  Engine local{.block = Barrier(shape.threads), .warps = {}, .mailboxes = {}, .block_state = {}};
  for (unsigned warp = 0; warp < shape.threads / kWarpSize; ++warp) {
    local.warps.push_back(std::make_unique<Barrier>(kWarpSize));
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
  static Team team;
  team.run(shape.threads, thread_main);
  engine = nullptr;
}

void sync_block() { engine->block.arrive_and_wait(); }
void sync_warp() { engine->warps[threadIdx.x / kWarpSize]->arrive_and_wait(); }

void wait_until(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();
}

}  // namespace repsim_fast::runner
