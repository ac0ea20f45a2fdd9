// Where an operator's CUDA work goes: its tensor's device, and torch's current stream there.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "common/stable_checks.h"

#if defined(REPSIM_CPU_RUNNER)

// The tests build the operators as a library for CPU tensors, whose kernels run in csrc/tests.
#define REPSIM_CUDA_LIBRARY_IMPL(m) STABLE_TORCH_LIBRARY_IMPL(repsim_fast_runner, CPU, m)

namespace repsim_fast {

class DeviceScope {
 public:
  explicit DeviceScope(const torch::stable::Tensor&) {}
  void* stream() const { return nullptr; }
  int64_t multiprocessors() const { return 4; }
  int64_t shared_bytes() const { return int64_t{227} << 10; }
};

}  // namespace repsim_fast

#else

#include <cuda_runtime_api.h>

#define REPSIM_CUDA_LIBRARY_IMPL(m) STABLE_TORCH_LIBRARY_IMPL(repsim_fast, CUDA, m)

namespace repsim_fast {

// Makes the tensor's device the current one while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(const torch::stable::Tensor& tensor)
      : device_(tensor.get_device_index()), guard_(device_) {}

  void* stream() const {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    return stream;
  }

  int64_t multiprocessors() const { return attribute(cudaDevAttrMultiProcessorCount); }
  // That a block may ask for.
  int64_t shared_bytes() const { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

 private:
  int64_t attribute(cudaDeviceAttr which) const {
    int value = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device_));
    return value;
  }

  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace repsim_fast

#endif
