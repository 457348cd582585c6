// The vocabulary of the kernels: one kernel source, two machines.
//
// Kernels are written against the few words below. nvcc gives it the meaning of the GPU
// (gpu_nvcc.h: the CUDA runtime and a few PTX instructions); any other C++17 compiler gives it the meaning of an
// emulator (emulator.h: every CUDA thread is a fiber; emulator_ptx.h: what the instructions do), so that each kernel
// runs, is tested and can be stepped through on a machine without a GPU.
//
//   Where am I        threadIdx.x, blockIdx.x/.y, gridDim, blockDim      Meeting     __syncthreads, __syncwarp
//   Shared memory     SHARED(T, name)                                   Warp-wide   __shfl_xor_sync, mma, ldmatrix
//   Copies            cp_async<bytes>, cp_async_commit, cp_async_wait   Host        launch; memory: device.h
//   Loops             UNROLL_FOR (...), which nvcc unrolls
//   Launch bounds     LAUNCH_BOUNDS(...) repeats those of the kernel's head, which no C++ compiler keeps
#pragma once

#include <math.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

// Four neighbours, or two, read or written at once.
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Vec4 {
    T x, y, z, w;
};

template <class T>
struct alignas(2 * sizeof(T)) Vec2 {
    T x, y;
};

#ifdef __CUDACC__
#include "cuda/gpu/gpu_nvcc.h"
#else
#include "cuda/emulator/emulator.h"
#include "cuda/emulator/emulator_ptx.h"
#endif
