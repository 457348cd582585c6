// What the launchers (launch.cu, compiled for the GPU) offer the bindings (bindings.cpp, plain C++), and no CUDA in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// Element (b, h, t, d) lies at data[b * batch + h * head + t * row + d]: all of (B, T, 3C), (B, T, C) and (B, NH, T,
// HS) can be said so, and no kernel needs a transposed copy.
template <class T>
struct View {
    T* data;
    int64_t batch, head, row;
};

struct Sizes {
    int64_t B, NH;                          // sequences, heads
    int T, HS;                              // tokens, numbers in a head
    double scale;                           // 1 / sqrt(HS)
    bool causal;
    int64_t heads() const { return B * NH; }
};

// A row's log-sum-exp and all sums are kept in this type.
template <class T>
struct SumOf {
    using type = float;
};
template <>
struct SumOf<double> {
    using type = double;
};
template <class T>
using Sum = typename SumOf<T>::type;

template <class T>
struct Forward {
    View<const T> q, k, v;
    View<T> out;
    Sum<T>* lse;                            // (B, NH, T)
};

template <class T>
struct Backward {
    View<const T> q, k, v, out, dout;
    const Sum<T>* lse;
    Sum<T>* delta;                          // (B, NH, T), room to work in
    View<T> dq, dk, dv;
};

// The rungs of the ladder; each is a file attention_N_name.cuh.
enum class Rung { naive = 1, flash = 2, mma = 3, wgmma = 4 };

// Bits of 16-bit numbers, for those who only carry them about.
struct Bfloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

namespace gpu {
using Stream = void*;

// T: float (all rungs; mma and wgmma round to bfloat16), double (naive, flash), Bfloat16 and Float16 (mma, wgmma).
// wgmma is a forward for heads up to 128 on compute capability 9.0; what it cannot do mma does. They may return before
// the GPU is done, and raise std::runtime_error.
template <class T>
void forward(Rung rung, const Forward<T>& arrays, const Sizes& n, Stream stream);
template <class T>
void backward(Rung rung, const Backward<T>& arrays, const Sizes& n, Stream stream);

// The fastest rung that this GPU has for numbers of so many bytes.
Rung best_rung(int bytes, int HS);

void* allocate(size_t bytes, Stream stream);
void release(void* data, Stream stream);
void copy_in(void* device, const void* host, size_t bytes, Stream stream);
void copy_out(void* host, const void* device, size_t bytes, Stream stream);
void poison(void* device, size_t bytes, Stream stream);     // fill with NaN
void synchronize(Stream stream);
// One instruction for one warp; host arrays (32, 12) and (32, 4): conformance.cuh.
void conformance(int instruction, const uint32_t* in, uint32_t* out);
// One of Hopper's for a warpgroup; host arrays (192, 32) and (128, 64): conformance_hopper.cuh.
void hopper_conformance(int instruction, const uint32_t* in, uint32_t* out);
int capability();                           // compute capability of the current GPU, 90 for 9.0
int64_t peak_bytes();                       // most device memory in use at once since the last call
int current_device();
std::string driver_problem();               // why nothing can run here, "" if it can
}  // namespace gpu
