// Kernels with one fault each, for test_emulator.py: the emulator must name every one of them.
#include "gpu.h"

namespace {
__global__ void barrier_in_a_branch(float*) {
    if (threadIdx.x < 7) __syncthreads();
}
__global__ void two_barriers(float*) {
    if (threadIdx.x < 7) __syncthreads();
    else __syncthreads();
}
__global__ void exchange_in_a_branch(float* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
}
__global__ void half_a_shuffle(float* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 1); }
__global__ void misaligned_load(float* out) { out[threadIdx.x] = load4(out + 1).x; }
__global__ void misaligned_copy(float* out) {
    SHARED(float, shared);
    cp_async<16>(shared + 2, out, true);
}
__global__ void misaligned_ldmatrix(float*) {
    SHARED(float, shared);
    uint32_t r[4];
    ldmatrix(r, shared + 1);
}
__global__ void past_shared_memory(float*) {
    SHARED(float, shared);
    shared[64] = 1;
}
__global__ void past_the_array(float* out) { out[64] = 1; }
__global__ void before_the_array(float* out) { out[-1] = 1; }

// Right or wrong, depending on the schedule: what lane 0 of the next warp wrote is read without a barrier.
__global__ void race(float* out) {
    SHARED(float, shared);
    shared[threadIdx.x] = float(threadIdx.x);
    __syncwarp();
    out[threadIdx.x] = shared[(threadIdx.x + 32) % 64];
}
__global__ void copy_without_wait(float* out) {
    SHARED(float, shared);
    cp_async<4>(shared + threadIdx.x, out + threadIdx.x, true);
    cp_async_commit();
    out[threadIdx.x] = shared[threadIdx.x];
}
__global__ void copy_with_wait(float* out) {
    SHARED(float, shared);
    cp_async<4>(shared + threadIdx.x, out + threadIdx.x, threadIdx.x != 5);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = shared[threadIdx.x] + 1;
}
__global__ void nothing(float*) {}

void (*const kernels[])(float*) = {
    barrier_in_a_branch, two_barriers, exchange_in_a_branch, half_a_shuffle, misaligned_load, misaligned_copy,
    misaligned_ldmatrix, past_shared_memory, past_the_array, before_the_array, race, copy_without_wait, copy_with_wait,
    nothing};
std::string message;
}  // namespace

// Run kernel `which` over 64 numbers, which it gets and gives in `data`. Returns the error's text, "" for none.
extern "C" const char* run(int which, unsigned seed, float* data, unsigned grid_y, int threads, size_t shared) {
    message = "";
    emu::seed = seed;
    float* device = static_cast<float*>(allocate(64 * sizeof(float), nullptr));
    try {
        copy_in(device, data, 64 * sizeof(float), nullptr);
        launch(kernels[which], dim3(1, grid_y), threads, shared, nullptr, device);
        copy_out(data, device, 64 * sizeof(float), nullptr);
    } catch (const std::exception& error) {
        message = error.what();
    }
    release(device, nullptr);
    return message.c_str();
}
