// Softmax and cross-entropy, row by row. Formulas: minillm/ops/cross_entropy.py.
//
//   top = max(z),  logsum = log(sum of exp(z - top)),  loss = logsum + (top - z[y])
//   dz  = dout * (exp(z - top - logsum) - 1[v = y])
//
// A row of V logits (200 KB in float32 at V = 50,257) is read from memory once: the pass for the maximum leaves it in
// the core's L2 for the pass of exponentials (simd/softmax.h). // Backward is one pass. Parallel over rows.
#include "cpu/isa/threads.h"
#include "cpu/simd/softmax.h"
#include "python/register.h"

namespace minillm::cross_entropy {

template <class T>
void forward_kernel(T* losses, T* top, T* logsum, const T* logits, const int64_t* targets, int64_t ignore_index,
                    int64_t N, int64_t V) {
#pragma omp parallel for if (N * V > 4096)
    for (int64_t n = 0; n < N; n++) {
        const T* z = logits + n * V;
        top[n] = row_max(z, V);
        logsum[n] = std::log(row_exp_sum(z, top[n], V));
        losses[n] = targets[n] == ignore_index ? T(0) : logsum[n] + (top[n] - z[targets[n]]);
    }
}

// dz may be z itself.
template <class T>
void backward_row(T* dz, const T* z, int64_t target, T top, T logsum, T dout, int64_t V) {
    T right = vexp<T>(splat<T>(z[target] - top - logsum))[0];
    int64_t i = 0;
    for (; i + WIDTH<T> <= V; i += WIDTH<T>) store(dz + i, vexp<T>(load(z + i) - top - logsum) * dout);
    if (i < V) store_part(dz + i, vexp<T>(load_part(z + i, V - i) - top - logsum) * dout, V - i);
    dz[target] = (right - 1) * dout;
}

template <class T>
void backward_kernel(T* dlogits, const T* dout, const T* logits, const int64_t* targets, const T* top, const T* logsum,
                     int64_t ignore_index, int64_t N, int64_t V) {
#pragma omp parallel for if (N * V > 4096)
    for (int64_t n = 0; n < N; n++) {
        if (targets[n] == ignore_index) std::fill_n(dlogits + n * V, V, T(0));
        else backward_row(dlogits + n * V, logits + n * V, targets[n], top[n], logsum[n], dout[n], V);
    }
}

Tuple cross_entropy_forward(const Array& logits, const Array& targets, int64_t ignore_index) {
    return by_dtype("logits", logits, [&](auto zero) {
        using T = decltype(zero);
        const T* pz = input<T>("logits", logits, {ANY, ANY});
        int64_t N = logits.shape[0], V = logits.shape[1];
        if (!V) fail("logits must have at least one column: got ", logits.shape);
        auto checked = ids("targets", targets, {N}, V, &ignore_index);
        auto losses = fresh<T>({N}), top = fresh<T>({N}), logsum = fresh<T>({N});
        without_gil([&] { forward_kernel<T>(losses, top, logsum, pz, checked, ignore_index, N, V); });
        return tuple_of({losses, tuple_of({logits, checked, top, logsum, ignore_index})});
    });
}

Object cross_entropy_backward(const Array& dout, const Tuple& cache) {
    Array logits = cached(cache, 0), targets = cached(cache, 1), top = cached(cache, 2), logsum = cached(cache, 3);
    check_shape("logits", logits, {ANY, ANY});
    auto ignore_index = cached<int64_t>(cache, 4);
    return by_dtype("logits", logits, [&](auto zero) -> Object {
        using T = decltype(zero);
        int64_t N = logits.shape[0], V = logits.shape[1];
        const T *pd = input<T>("dout", dout, {N}), *pz = input<T>("logits", logits, {N, V}),
                *pm = input<T>("cached top", top, {N}), *ps = input<T>("cached logsum", logsum, {N});
        auto checked = ids("targets", targets, {N}, V, &ignore_index);
        auto dlogits = fresh<T>({N, V});
        without_gil([&] { backward_kernel<T>(dlogits, pd, pz, checked, pm, ps, ignore_index, N, V); });
        return dlogits;
    });
}

const Register registered[] = {{"cross_entropy_forward(logits, targets, ignore_index=-1)", &cross_entropy_forward},
                               {"cross_entropy_backward(dout, cache)", &cross_entropy_backward}};

}  // namespace minillm::cross_entropy
