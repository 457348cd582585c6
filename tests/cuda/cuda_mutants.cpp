// The CUDA kernels in float32 and bfloat16 without Python, small: cuda_mutations.py compiles it many times. HOPPER:
// variant 4 alone, whose forward takes bfloat16; else variants 1 to 3 for heads up to 64.
#define SMALL
#include "cuda/emulator/device.cpp"
#ifdef HOPPER
#include "cuda/attention/launch_wgmma.cu"
#else
#include "cuda/attention/host.h"
#include "cuda/attention/launch.cu"
template <class E>
void minillm::attention::launch_wgmma(const Forward<E>&, const Sizes&, stream_t) {}
template void minillm::attention::launch_wgmma(const Forward<bf16>&, const Sizes&, stream_t);
#endif

using namespace minillm::attention;

namespace {
#ifdef HOPPER
void run(int, const float* qkv, const float*, float* out, float* lse, float*, const Sizes& n) {
    const int64_t C = n.NH * n.HS, size = n.B * n.T * C;
    gpu::DeviceArray<bf16> x(3 * size), y(size);
    gpu::DeviceArray<float> l(n.heads() * n.T);
    for (int64_t i = 0; i < 3 * size; i++) x.data[i] = bf16(qkv[i]);
    const auto part = [&](int which) { return View<const bf16>{x.data + which * C, n.T * 3 * C, n.HS, 3 * C}; };
    launch_wgmma(Forward<bf16>{part(0), part(1), part(2), {y.data, n.T * C, n.HS, C}, l.data}, n, nullptr);
    for (int64_t i = 0; i < size; i++) out[i] = float(y.data[i]);
    l.copy_out(lse);
}
#else
void run(int variant, const float* qkv, const float* dout, float* out, float* lse, float* dqkv, const Sizes& n) {
    forward_on_host(Variant(variant), qkv, out, lse, n);
    backward_on_host(Variant(variant), qkv, out, dout, lse, dqkv, n);
}
#endif
}  // namespace

extern "C" {
// Forward, and of variants 1 to 3 the backward, of one (B, T, 3C) array. "" or the error's text.
const char* attention(int variant, unsigned seed, const float* qkv, const float* dout, float* out, float* lse,
                      float* dqkv, int64_t B, int64_t NH, int T, int HS, int causal) {
    static std::string message;
    emu::seed = seed;
    try {
        run(variant, qkv, dout, out, lse, dqkv, {B, NH, T, HS, 1 / std::sqrt(double(HS)), causal != 0});
        message = "";
    } catch (const std::exception& error) {
        message = error.what();
    }
    return message.c_str();
}
int64_t bank_conflicts() { return emu::bank_conflicts; }
}
