// The CUDA kernels in float32 and bfloat16 without Python, small: cuda_mutations.py compiles it many times. HOPPER:
// variant 4 alone, which takes bfloat16; else variants 1 to 3 for heads up to 64.
#define SMALL
#include "cuda/attention/host.h"
#include "cuda/emulator/device.cpp"
#ifdef HOPPER
#include "cuda/attention/launch_wgmma.cu"
#else
#include "cuda/attention/launch.cu"
template <class E>
void minillm::attention::launch_wgmma(const Forward<E>&, const Sizes&, stream_t) {}
template <class E>
void minillm::attention::launch_wgmma(const Backward<E>&, const Sizes&, stream_t) {}
template void minillm::attention::launch_wgmma(const Forward<bf16>&, const Sizes&, stream_t);
template void minillm::attention::launch_wgmma(const Backward<bf16>&, const Sizes&, stream_t);
#endif

using namespace minillm::attention;

namespace {
#ifdef HOPPER
void run(int, const float* qkv, const float* dout, float* out, float* lse, float* dqkv, const Sizes& n) {
    const int64_t size = n.heads() * n.T * n.HS;
    gpu::Buffer<bf16> x(3 * size), y(size), d(size), dx(3 * size);
    gpu::Buffer<float> l(n.heads() * n.T), delta(n.heads() * n.T);
    for (int64_t i = 0; i < 3 * size; i++) x.data[i] = bf16(qkv[i]);
    const auto in = [&](int which) { return part<const bf16>(x.data, n, which, 3); };
    const auto gradient = [&](int which) { return part(dx.data, n, which, 3); };
    launch_wgmma(Forward<bf16>{in(0), in(1), in(2), part(y.data, n, 0, 1), l.data}, n, nullptr);
    for (int64_t i = 0; i < size; i++) out[i] = float(y.data[i]);
    l.copy_out(lse);
    if (!dout) return;
    for (int64_t i = 0; i < size; i++) d.data[i] = bf16(dout[i]);
    const View<const bf16> y_in = part<const bf16>(y.data, n, 0, 1), d_in = part<const bf16>(d.data, n, 0, 1);
    const Backward<bf16> a = {in(0),      in(1),       in(2),       y_in,       d_in, l.data,
                              delta.data, gradient(0), gradient(1), gradient(2)};
    launch(attention_delta<bf16>, grid_of(n, DELTA_WARPS), 32 * DELTA_WARPS, 0, nullptr, a, n);
    launch_wgmma(a, n, nullptr);
    for (int64_t i = 0; i < 3 * size; i++) dqkv[i] = float(dx.data[i]);
}
#else
void run(int variant, const float* qkv, const float* dout, float* out, float* lse, float* dqkv, const Sizes& n) {
    forward_on_host(Variant(variant), qkv, out, lse, n);
    if (dout) backward_on_host(Variant(variant), qkv, out, dout, lse, dqkv, n);
}
#endif
}  // namespace

extern "C" {
// Forward and, where there is a dout, backward of one (B, T, 3C) array. "" or the error's text.
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
