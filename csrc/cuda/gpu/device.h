// The GPU as plain C++ sees it: memory, streams and what it is. Defined in device.cu, and in emulator/device.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace gpu {
using Stream = void*;

void* allocate(size_t bytes, Stream stream);
void* allocate_at_once(size_t bytes);        // in the order of no stream: also while one is recorded
void release(void* data, Stream stream);
void copy_in(void* device, const void* host, size_t bytes, Stream stream);
void copy_out(void* host, const void* device, size_t bytes, Stream stream);
void copy_within(void* to, const void* from, size_t bytes, Stream stream);      // from the device to the device
void clear(void* device, size_t bytes, Stream stream);      // fill with zeros
void poison(void* device, size_t bytes, Stream stream);     // fill with NaN
void synchronize(Stream stream);

// What is launched, copied and filled from `begin_recording` on is not run but kept, to be replayed as one piece: a CUDA
// graph. Nothing may be copied from or to the host meanwhile, or waited for. Not on the default stream.
using Graph = void*;
Stream new_stream();
void begin_recording(Stream stream);
Graph end_recording(Stream stream);
void replay(Graph graph, Stream stream);
void forget(Graph graph);

int capability();                           // compute capability of the current GPU, 90 for 9.0
int64_t peak_bytes();                       // most device memory in use at once since the last call
int multiprocessors();                      // of the current GPU
int current_device();
std::string driver_problem();               // why nothing can run here, "" if it can

inline void check_driver() {
    const std::string problem = driver_problem();
    if (!problem.empty()) throw std::runtime_error("the cuda backend cannot run here: " + problem);
}
inline void check_hopper() {                // its instructions are one generation's alone
    if (const int has = capability(); has != 90)
        throw std::runtime_error("Hopper's instructions need a GPU of compute capability 9.0 (H100, H200): this has " +
                                 std::to_string(has / 10) + "." + std::to_string(has % 10));
}

// An array on the device: fresh, and then full of NaN, so that what no kernel wrote shows; or a copy of the host's.
template <class T>
class Buffer {
    size_t bytes;

public:
    T* data;
    explicit Buffer(int64_t count, const T* host = nullptr)
        : bytes(count * sizeof(T)), data(static_cast<T*>(allocate(bytes, nullptr))) {
        host ? copy_in(data, host, bytes, nullptr) : poison(data, bytes, nullptr);
    }
    Buffer(const Buffer&) = delete;
    ~Buffer() { release(data, nullptr); }
    void copy_out(T* host) const { gpu::copy_out(host, data, bytes, nullptr); }
};

// One instruction for one warp, by its place in the list; host arrays (32, 12) and (32, 4): conformance.cuh.
inline const char* const INSTRUCTIONS[] = {"mma_bf16",   "mma_fp16", "ldmatrix", "ldmatrix_t", "cp_async_16",
                                           "cp_async_4", "pack",     "exp2",     "shuffle"};
void conformance(int instruction, const uint32_t* in, uint32_t* out);
// One of Hopper's for a warpgroup; host arrays (192, 32) and (128, 64): conformance_hopper.cuh.
inline const char* const HOPPER_INSTRUCTIONS[] = {"tma_load",        "wgmma_ss_bf16", "wgmma_ss_fp16",
                                                  "wgmma_rs_bf16",   "wgmma_rs_fp16", "wgmma_rs_64_bf16",
                                                  "wgmma_ss_64_bf16"};
void hopper_conformance(int instruction, const uint32_t* in, uint32_t* out);
}  // namespace gpu
