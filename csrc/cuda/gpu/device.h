// The GPU as plain C++ sees it: memory, streams and what it is. Defined in device.cu; no CUDA in here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace gpu {
using Stream = void*;

void* allocate(size_t bytes, Stream stream);
void release(void* data, Stream stream);
void copy_in(void* device, const void* host, size_t bytes, Stream stream);
void copy_out(void* host, const void* device, size_t bytes, Stream stream);
void poison(void* device, size_t bytes, Stream stream);     // fill with NaN
void synchronize(Stream stream);
int capability();                           // compute capability of the current GPU, 90 for 9.0
int64_t peak_bytes();                       // most device memory in use at once since the last call
int current_device();
std::string driver_problem();               // why nothing can run here, "" if it can
void check_driver();                        // these two raise std::runtime_error
void check_hopper();

// One instruction for one warp, by its place in the list; host arrays (32, 12) and (32, 4): conformance.cuh.
inline const char* const INSTRUCTIONS[] = {"mma_bf16",   "mma_fp16", "ldmatrix", "ldmatrix_t", "cp_async_16",
                                           "cp_async_4", "pack",     "exp2",     "shuffle"};
void conformance(int instruction, const uint32_t* in, uint32_t* out);
// One of Hopper's for a warpgroup; host arrays (192, 32) and (128, 64): conformance_hopper.cuh.
inline const char* const HOPPER_INSTRUCTIONS[] = {"tma_load",      "wgmma_ss_bf16", "wgmma_ss_fp16",
                                                  "wgmma_rs_bf16", "wgmma_rs_fp16", "wgmma_rs_64_bf16"};
void hopper_conformance(int instruction, const uint32_t* in, uint32_t* out);
}  // namespace gpu
