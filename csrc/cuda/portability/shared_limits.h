// How a launch comes to more shared memory than a kernel has without asking.
#pragma once

#include <cstddef>
#include <mutex>
#include <set>
#include <utility>

namespace repsim_fast {

// What a block may have of every kernel on every device.
constexpr size_t kUnraisedSharedBytes = 48 * 1024;

// ---- of the device, or of the runner

inline int current_device(const char* name);
// The most that a block may have on a device once it is granted.
inline size_t most_shared_bytes(const char* name, int device);
// Of a kernel on the current device, for all launches of the process.
inline void set_shared_limit(const char* name, const void* kernel, size_t bytes);

// ---- what both do with that

// Does something once for each kernel and device, whichever host threads ask for it.
class OncePerKernel {
 public:
  // Has returned from `action` when it returns. One that throws is tried again.
  template <typename Action>
  void run(const void* kernel, int device, const Action& action) {
    const std::lock_guard lock(mutex_);
    if (done_.contains({kernel, device})) return;
    action();
    done_.emplace(kernel, device);
  }

 private:
  std::mutex mutex_;
  std::set<std::pair<const void*, int>> done_;
};

// Makes so much shared memory a matter of course for the kernel. The limit is the process's, not
// the launch's: set to what each launch needs, it would be lowered by one host thread between
// another one's request and launch. So it goes to the device's maximum at once and stays there.
inline void allow_shared_bytes(const char* name, const void* kernel, size_t bytes) {
  static OncePerKernel raised;
  if (bytes <= kUnraisedSharedBytes) return;
  const int device = current_device(name);
  raised.run(kernel, device,
             [&] { set_shared_limit(name, kernel, most_shared_bytes(name, device)); });
}

}  // namespace repsim_fast
