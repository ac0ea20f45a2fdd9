// Marks a function that both the host and a CUDA device call.
#pragma once

#if defined(__CUDACC__)
#define REPSIM_HOST_DEVICE __host__ __device__
#else
#define REPSIM_HOST_DEVICE
#endif
