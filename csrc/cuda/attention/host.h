// Arrays of the host in and out: copy to the device, run, copy back. No Python in it.
#pragma once

#include <chrono>

#include "cuda/attention/attention.h"

namespace minillm::attention {
// Seconds of the last call: copies to the device, kernels, copies back.
inline struct Seconds { double in = 0, kernels = 0, out = 0; } seconds;

class Stopwatch {
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

public:
    double lap() {
        gpu::synchronize(nullptr);
        const auto before = start;
        start = std::chrono::steady_clock::now();
        return std::chrono::duration<double>(start - before).count();
    }
};

// Part `which` of `parts` side by side in (B, T, parts * C): queries are part 0 of 3, out is part 0 of 1.
template <class T>
View<T> part(T* data, const Sizes& n, int which, int parts) {
    const int64_t C = n.NH * n.HS;
    return {data + which * C, n.T * parts * C, n.HS, parts * C};
}
template <class T>
void forward_on_host(Variant variant, const T* qkv, T* out, Sum<T>* lse, const Sizes& n) {
    const int64_t N = n.heads() * n.T, size = N * n.HS;
    Stopwatch watch;
    gpu::Buffer<T> d_qkv(3 * size, qkv), d_out(size);
    gpu::Buffer<Sum<T>> d_lse(N);
    seconds.in = watch.lap();
    const auto q = [&](int which) { return part<const T>(d_qkv.data, n, which, 3); };
    forward(variant, Forward<T>{q(0), q(1), q(2), part(d_out.data, n, 0, 1), d_lse.data}, n, nullptr);
    seconds.kernels = watch.lap();
    d_out.copy_out(out);
    d_lse.copy_out(lse);
    seconds.out = watch.lap();
}

template <class T>
void backward_on_host(Variant variant, const T* qkv, const T* out, const T* dout, const Sum<T>* lse, T* dqkv,
                      const Sizes& n) {
    const int64_t N = n.heads() * n.T, size = N * n.HS;
    Stopwatch watch;
    gpu::Buffer<T> d_qkv(3 * size, qkv), d_out(size, out), d_dout(size, dout), d_dqkv(3 * size);
    gpu::Buffer<Sum<T>> d_lse(N, lse), d_delta(N);
    seconds.in = watch.lap();
    const auto q = [&](int which) { return part<const T>(d_qkv.data, n, which, 3); };
    const auto dq = [&](int which) { return part(d_dqkv.data, n, which, 3); };
    const View<const T> o = part<const T>(d_out.data, n, 0, 1), d = part<const T>(d_dout.data, n, 0, 1);
    backward(variant, Backward<T>{q(0), q(1), q(2), o, d, d_lse.data, d_delta.data, dq(0), dq(1), dq(2)}, n, nullptr);
    seconds.kernels = watch.lap();
    d_dqkv.copy_out(dqkv);
    seconds.out = watch.lap();
}
}  // namespace minillm::attention
