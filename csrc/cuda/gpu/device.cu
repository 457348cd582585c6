// device.h by the vocabulary of gpu.h. Compiled by nvcc for the GPU, by any compiler for the emulator.
#include "cuda/gpu/device.h"
#include "cuda/gpu/conformance.cuh"

namespace gpu {
void* allocate(size_t bytes, Stream stream) { return ::allocate(bytes, stream_t(stream)); }
void release(void* data, Stream stream) { ::release(data, stream_t(stream)); }
void copy_in(void* device, const void* host, size_t bytes, Stream stream) {
    ::copy_in(device, host, bytes, stream_t(stream));
}
void copy_out(void* host, const void* device, size_t bytes, Stream stream) {
    ::copy_out(host, device, bytes, stream_t(stream));
}
void poison(void* device, size_t bytes, Stream stream) { ::poison(device, bytes, stream_t(stream)); }
void synchronize(Stream stream) { ::synchronize(stream_t(stream)); }
int capability() { return ::capability(); }
int64_t peak_bytes() { return ::peak_bytes(); }
int current_device() { return ::current_device(); }
std::string driver_problem() { return ::driver_problem(); }

void check_driver() {
    const std::string problem = driver_problem();
    if (!problem.empty()) throw std::runtime_error("the cuda backend cannot run here: " + problem);
}
void check_hopper() {                       // its instructions are one generation's alone
    if (capability() != 90)
        throw std::runtime_error("Hopper's instructions need a GPU of compute capability 9.0 (H100, H200): this has " +
                                 std::to_string(capability() / 10) + "." + std::to_string(capability() % 10));
}

void conformance(int instruction, const uint32_t* in, uint32_t* out) {
    const size_t in_bytes = 32 * 12 * 4, out_bytes = 32 * WORDS_OUT * 4;
    auto* d_in = static_cast<uint32_t*>(::allocate(in_bytes, nullptr));
    auto* d_out = static_cast<uint32_t*>(::allocate(out_bytes, nullptr));
    ::copy_in(d_in, in, in_bytes, nullptr);
    ::copy_in(d_out, std::string(out_bytes, '\0').data(), out_bytes, nullptr);
    launch(conformance_kernel, dim3(1), 32, 32 * 16, stream_t(nullptr), instruction, d_in, d_out);
    ::copy_out(out, d_out, out_bytes, nullptr);
    ::synchronize(nullptr);
    ::release(d_in, nullptr);
    ::release(d_out, nullptr);
}
}  // namespace gpu
