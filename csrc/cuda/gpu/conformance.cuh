// Each PTX wrapper alone, for one warp, on the GPU and on the emulator: given equal words, both must give equal words.
// The GPU's answers are recorded once by `python -m benchmarks.gpu` and checked against the emulator ever after.
#pragma once

#include <vector>

#include "cuda/gpu/device.h"
#include "cuda/gpu/gpu.h"

constexpr int WORDS_OUT = 4;                                // a lane

DEVICE float as_float(uint32_t word) {
    float x;
    memcpy(&x, &word, 4);
    return x;
}
DEVICE uint32_t as_word(float x) {
    uint32_t word;
    memcpy(&word, &x, 4);
    return word;
}

// c is words 0 to 3, a 4 to 7, b 8 and 9.
template <class E>
DEVICE void run_mma(const uint32_t* in, uint32_t* out) {
    float c[4] = {as_float(in[0]), as_float(in[1]), as_float(in[2]), as_float(in[3])};
    const uint32_t a[4] = {in[4], in[5], in[6], in[7]};
    mma<E>(c, a, in[8], in[9]);
    for (int i = 0; i < 4; i++) out[i] = as_word(c[i]);
}

// Every lane puts its words 0 to 3 into its row of shared memory; then the warp loads four 8 x 8 matrices.
DEVICE void run_ldmatrix(const uint32_t* in, uint32_t* out, bool transposed) {
    SHARED(uint32_t, shared);
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) shared[4 * lane + i] = in[i];
    __syncthreads();
    uint32_t r[4];
    if (transposed) ldmatrix_t(r, shared + 4 * lane);
    else ldmatrix(r, shared + 4 * lane);
    for (int i = 0; i < 4; i++) out[i] = r[i];
}

// 16 bytes for lanes whose word 8 is even, else zeros; of 4-byte copies, one by one.
DEVICE void run_copy(const uint32_t* from, uint32_t* out, bool whole) {
    SHARED(uint32_t, shared);
    uint32_t* mine = shared + 4 * (threadIdx.x % 32);
    const bool valid = from[8] % 2 == 0;
    if (whole) cp_async<16>(mine, from, valid);
    else
        for (int i = 0; i < 4; i++) cp_async<4>(mine + i, from + i, valid);
    cp_async_commit();
    cp_async_wait<0>();
    for (int i = 0; i < 4; i++) out[i] = mine[i];
}

// `in` has 12 words a lane, so that rows begin at multiples of 16 bytes; the last two are not used.
__global__ void conformance_kernel(int which, const uint32_t* in, uint32_t* out) {
    const int lane = threadIdx.x % 32;
    in += 12 * lane;
    out += WORDS_OUT * lane;
    switch (which) {
        case 0: return run_mma<bf16>(in, out);
        case 1: return run_mma<fp16>(in, out);
        case 2: return run_ldmatrix(in, out, false);
        case 3: return run_ldmatrix(in, out, true);
        case 4: return run_copy(in, out, true);
        case 5: return run_copy(in, out, false);
        case 6:
            out[0] = pack<bf16>(as_float(in[0]), as_float(in[1]));
            out[1] = pack<fp16>(as_float(in[0]), as_float(in[1]));
            return;
        case 7:
            for (int i = 0; i < 4; i++) out[i] = as_word(exp2_fast(as_float(in[i])));
            return;
        case 8:
            for (int i = 0; i < 4; i++) out[i] = __shfl_xor_sync(~0u, in[i], 1 << i);
            return;
    }
}

void gpu::conformance(int instruction, const uint32_t* in, uint32_t* out) {
    const std::vector<uint32_t> zeros(32 * WORDS_OUT);
    Buffer<uint32_t> d_in(32 * 12, in), d_out(zeros.size(), zeros.data());
    launch(conformance_kernel, dim3(1), 32, 32 * 16, stream_t(nullptr), instruction, d_in.data, d_out.data);
    d_out.copy_out(out);
    synchronize(nullptr);
}
