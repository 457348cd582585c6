// As conformance.cuh, for Hopper's units: one warpgroup, 192 rows of 64 16-bit numbers in, 64 words a thread out.
//
// TMA brings rows 0 to 63 as A and the others as B, swizzled; so right matmuls prove the swizzle, the bits
// of the descriptors, the barriers and the layouts of the registers at once.
#pragma once

#include <vector>

#include "cuda/gpu/device.h"
#include "cuda/gpu/hopper.h"

constexpr int HOPPER_ROWS = 192, HOPPER_OUT = 64;          // words: 32 a row; 64 a thread

struct HopperTiles {
    uint32_t a[64 * 32], b[128 * 32];
    uint64_t full;
};

// D = A B^T with B (128, 64) or its first half, on top of what the thread's number is.
template <class E, int N8>
DEVICE void run_wgmma_ss(float (&d)[N8][4], HopperTiles& s) {
    wgmma_fence(d);
    for (int k = 0; k < 64; k += 16) wgmma_ss<E>(d, descriptor(s.a + k / 2, 0), descriptor(s.b + k / 2, 0), true);
    wgmma_commit();
    wgmma_wait<0>(d);
}

// D = A B with B (64, 8 N8): the rows of B are its panels one after the other. A comes in registers.
template <class E, int N8>
DEVICE void run_wgmma_rs(float (&d)[N8][4], HopperTiles& s, const uint32_t* in) {
    uint32_t a[4][4];
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    for (int k = 0; k < 4; k++)
        for (int r = 0; r < 4; r++) a[k][r] = in[(row + r % 2 * 8) * 32 + 8 * k + threadIdx.x % 4 + r / 2 * 4];
    wgmma_fence(d, a);
    for (int k = 0; k < 4; k++) wgmma_rs<E>(d, a[k], descriptor(s.b + k * 16 * 32, 64 * 128), true);
    wgmma_commit();
    wgmma_wait<0>(d, a);
}

template <class E, bool IN_REGISTERS, int N8>
DEVICE void run_matmul(HopperTiles& s, const uint32_t* in, float* out) {
    float d[N8][4];
    for (int i = 0; i < N8; i++)
        for (int e = 0; e < 4; e++) d[i][e] = float(threadIdx.x);
    if constexpr (IN_REGISTERS) run_wgmma_rs<E, N8>(d, s, in);
    else run_wgmma_ss<E>(d, s);
    for (int i = 0; i < N8; i++)
        for (int e = 0; e < 4; e++) out[4 * i + e] = d[i][e];
}

__global__ void __launch_bounds__(128)
    hopper_conformance_kernel(const __grid_constant__ TensorMap map, int which, const uint32_t* in, float* out) {
    LAUNCH_BOUNDS(128);
    SHARED(HopperTiles, s);
    if (threadIdx.x == 0) {
        barrier_init(&s->full, 1);
        fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        const int d = which ? 0 : 8, t = which ? 0 : -3;    // tma_load alone: partly outside the tensor
        barrier_expect(&s->full, HOPPER_ROWS * 128);
        for (int i = 0; i < 3; i++) tma_load(i ? s->b + (i - 1) * 64 * 32 : s->a, map, &s->full, d, t + 64 * i, 0, 0);
    }
    barrier_wait(&s->full, 0);
    out += threadIdx.x * HOPPER_OUT;
    switch (which) {
        case 0:                                             // a and b, as they lie there: 48 words a thread
            for (int i = 0; i < 48; i++) memcpy(out + i, s->a + threadIdx.x * 48 + i, 4);
            return;
        case 1: return run_matmul<bf16, false, 16>(*s, in, out);
        case 2: return run_matmul<fp16, false, 16>(*s, in, out);
        case 3: return run_matmul<bf16, true, 16>(*s, in, out);
        case 4: return run_matmul<fp16, true, 16>(*s, in, out);
        case 5: return run_matmul<bf16, true, 8>(*s, in, out);
        case 6: return run_matmul<bf16, false, 8>(*s, in, out);
    }
}

void gpu::hopper_conformance(int instruction, const uint32_t* in, uint32_t* out) {
    check_hopper();
    const std::vector<uint32_t> zeros(128 * HOPPER_OUT);
    Buffer<uint32_t> d_in(HOPPER_ROWS * 32, in), d_out(zeros.size(), zeros.data());
    const TensorMap map = tensor_map(d_in.data, {64, HOPPER_ROWS, 1, 1}, {128, 16, 16}, {64, 64, 1, 1});
    launch(hopper_conformance_kernel, dim3(1), 128, sizeof(HopperTiles), stream_t(nullptr), map, instruction, d_in.data,
           reinterpret_cast<float*>(d_out.data));
    d_out.copy_out(out);
    synchronize(nullptr);
}
