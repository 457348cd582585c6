// What the host's side of the API remembers between calls.
#pragma once

#include "../host.h"
#include "memory.h"

namespace minillm_cuda {
constexpr int DEVICE_SMS = 4;
struct UncheckedLaunch {
    const char* file;
    int line;
    const char* name;
};
extern std::vector<UncheckedLaunch> unchecked;
extern cudaError_t last_error;
inline cudaError_t broken = cudaSuccess;    // a kernel failed: nothing works any more, as on a device
cudaError_t keep(cudaError_t error);        // remember it for cudaGetLastError
}  // namespace minillm_cuda
