// The CUDA kernels in float32 and bfloat16 for heads up to 64, without Python: cuda_mutations.py compiles it many
// times.
#define SMALL
#include "launch.cu"
#include "host.h"

extern "C" {
// Forward and backward of one (B, T, 3C) array. "" or the error's text.
const char* attention(int rung, unsigned seed, const float* qkv, const float* dout, float* out, float* lse, float* dqkv,
                      int64_t B, int64_t NH, int T, int HS, int causal) {
    static std::string message;
    emu::seed = seed;
    const Sizes n = {B, NH, T, HS, 1 / std::sqrt(double(HS)), causal != 0};
    try {
        forward_on_host(Rung(rung), qkv, out, lse, n);
        backward_on_host(Rung(rung), qkv, out, dout, lse, dqkv, n);
        message = "";
    } catch (const std::exception& error) {
        message = error.what();
    }
    return message.c_str();
}
int64_t bank_conflicts() { return emu::bank_conflicts; }
}
