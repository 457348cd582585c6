// Attention's arrays and sizes, and its launchers (launch.cu) as plain C++ calls them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/gpu/device.h"

namespace minillm::attention {
// Element (b, h, t, d) lies at data[b * batch + h * head + t * row + d]: all of (B, T, 3C), (B, T, C) and (B, NH, T,
// HS) can be said so, and no kernel needs a transposed copy.
template <class T>
struct View {
    T* data;
    int64_t batch, head, row;
};

struct Sizes {
    int64_t B, NH;                          // sequences, heads
    int T, HS;                              // context length, head size
    double scale;                           // 1 / sqrt(HS)
    bool causal;
    // What grouped_attention and attention_decode add to plain attention; variants 1 and 2 know it.
    int group = 1;                          // query heads that share a head of keys and values
    int past = 0;                           // keys before that of the first query (forward only)
    int window = 0;                         // keys that a query sees, itself the last of them; 0: all
    double cap = 0;                         // scores stay within (-cap, cap); 0: no bound
    int64_t heads() const { return B * NH; }
};

// A row's log-sum-exp and all sums are kept in this type.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
struct Forward {
    View<const T> q, k, v;
    View<T> out;
    Sum<T>* lse;                            // (B, NH, T), or null
    const Sum<T>* sinks = nullptr;          // (NH): the logit of one more column of a head, without a value
};

template <class T>
struct Backward {
    View<const T> q, k, v, out, dout;
    const Sum<T>* lse;
    Sum<T>* delta;                          // (B, NH, T), room to work in
    View<T> dq, dk, dv;
};

// The steps of the ladder; each is a file N_name.cuh.
enum class Variant { naive = 1, flash = 2, mma = 3, wgmma = 4 };

// Bits of 16-bit numbers, for those who only carry them about.
struct Bfloat16 { uint16_t bits; };
struct Float16 { uint16_t bits; };

// T: float (all variants; mma and wgmma round to bfloat16), double (naive, flash), Bfloat16 and Float16 (mma, wgmma).
// wgmma is for heads up to 128 on compute capability 9.0; larger ones mma takes. They may return before the GPU is done,
// and raise std::runtime_error.
template <class T>
void forward(Variant variant, const Forward<T>& arrays, const Sizes& n, gpu::Stream stream);
template <class T>
void backward(Variant variant, const Backward<T>& arrays, const Sizes& n, gpu::Stream stream);

// The fastest variant that this GPU has for numbers of so many bytes.
Variant best_variant(int bytes, int HS);
}  // namespace minillm::attention
