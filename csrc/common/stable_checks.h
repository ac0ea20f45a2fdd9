// STABLE_TORCH_ERROR_CODE_CHECK and STD_CUDA_CHECK (for files that include the CUDA runtime) with
// every torch. No .cu includes this: it needs torch.
#pragma once

#include <torch/csrc/stable/macros.h>  // IWYU pragma: export
#include <torch/headeronly/util/shim_utils.h>

// Before 2.13 torch has only the check whose message is the call's own, without torch's.
#if !defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif
