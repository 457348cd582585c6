// The last of 2^31 - 1 sequences, alone: its blocks are run, and its arrays lie where they would lie if all were
// there, far beyond what 32 bits can index. test_far.py compares with the same numbers as the only sequence.
#define SMALL
#include "cuda/attention/launch.cu"
#include "cuda/attention/launch_wgmma.cu"
#include "cuda/emulator/device.cpp"

using namespace minillm::attention;

namespace {
std::string message;

template <class T>
struct Problem {
    const T *qkv, *dout;
    T *out, *dqkv;
    Sum<T>*lse, *delta;
};

template <class E>
void run_variant(int variant, const Forward<E>& a, const Sizes& n) {
    if constexpr (std::is_same<E, float>::value) variant == 1 ? naive(a, n, nullptr) : flash(a, n, nullptr);
    else variant == 3 ? mma_kernels(a, n, nullptr) : launch_wgmma(a, n, nullptr);
}
template <class E>
void run_variant(int variant, const Backward<E>& a, const Sizes& n) {
    if constexpr (std::is_same<E, float>::value) variant == 1 ? naive(a, n, nullptr) : flash(a, n, nullptr);
    else mma_kernels(a, n, nullptr);
}

template <class E>
void run_one(int variant, const Problem<E>& p, int64_t B, int T, int HS) {
    const Sizes n = {B, 1, T, HS, 1 / std::sqrt(double(HS)), true};
    const int64_t before = (B - 1) * T;                                 // rows of the sequences that are not there
    const auto part = [&](auto* data, int which, int parts) {
        using Number = std::remove_pointer_t<decltype(data)>;
        return View<Number>{data + (which - before * parts) * HS, int64_t(T) * parts * HS, HS, int64_t(parts) * HS};
    };
    emu::first_x = unsigned(B - 1);
    const auto q = part(p.qkv, 0, 3), k = part(p.qkv, 1, 3), v = part(p.qkv, 2, 3);
    run_variant(variant, Forward<E>{q, k, v, part(p.out, 0, 1), p.lse - before}, n);
    const auto dqkv = [&](int which) { return part(p.dqkv, which, 3); };
    const View<const E> out = part(const_cast<const E*>(p.out), 0, 1);
    if (variant < 4)
        run_variant(
            variant,
            Backward<E>{q, k, v, out, part(p.dout, 0, 1), p.lse - before, p.delta - before, dqkv(0), dqkv(1), dqkv(2)},
            n);
    emu::first_x = 0;
}

// Numbers from x on, as E on the device.
template <class E>
E* on_device(const float* x, int64_t count) {
    auto* data = static_cast<E*>(gpu::allocate(count * sizeof(E), nullptr));
    for (int64_t i = 0; i < count && x; i++) data[i] = E(x[i]);
    return data;
}

template <class E>
void run(int variant, int64_t B, const float* qkv, const float* dout, float* out, float* dqkv, int T, int HS) {
    const int64_t size = int64_t(T) * HS;
    const Problem<E> p = {on_device<E>(qkv, 3 * size),     on_device<E>(dout, size),     on_device<E>(nullptr, size),
                          on_device<E>(nullptr, 3 * size), on_device<float>(nullptr, T), on_device<float>(nullptr, T)};
    run_one(variant, p, B, T, HS);
    for (int64_t i = 0; i < size; i++) out[i] = float(p.out[i]);
    for (int64_t i = 0; i < 3 * size && variant < 4; i++) dqkv[i] = float(p.dqkv[i]);
    for (const E* memory : {p.qkv, p.dout, (const E*)p.out, (const E*)p.dqkv}) gpu::release((void*)memory, nullptr);
    for (float* memory : {p.lse, p.delta}) gpu::release(memory, nullptr);
}
}  // namespace

extern "C" const char* attention(int variant, int64_t B, const float* qkv, const float* dout, float* out, float* dqkv,
                                 int T, int HS) {
    message = "";
    try {
        variant < 3 ? run<float>(variant, B, qkv, dout, out, dqkv, T, HS)
                    : run<bf16>(variant, B, qkv, dout, out, dqkv, T, HS);
    } catch (const std::exception& error) {
        message = error.what();
    }
    return message.c_str();
}
