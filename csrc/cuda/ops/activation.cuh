// An activation of each number by itself, and a gated product of two: gelu, gelu_exact, relu(_squared); swiglu, geglu.
//
//   out = act(x)                          dx = dout * act'(x)
//   out = act(gate) * up                  dup = dout * act(gate),   dgate = dout * up * act'(gate)
//
// Nothing but the inputs is cached: the activation costs less to compute again than to read. Act::value<T>(x) is the
// activation of a number, Act::slope<T>(x) its derivative.
#pragma once

#include "cuda/ops/elementwise.cuh"

namespace minillm::cuda {
template <class Act>
struct Activated {
    template <class T>
    DEVICE T operator()(T x) const {
        return Act::value(x);
    }
};
template <class Act>
struct ActivatedBackward {
    template <class T>
    DEVICE T operator()(T d, T x) const {
        return d * Act::slope(x);
    }
};

template <class Act>
struct Gated {
    template <class T>
    DEVICE T operator()(T gate, T up) const {
        return Act::value(gate) * up;
    }
};
template <class Act>
struct GatedBackward {
    template <class T>
    DEVICE void operator()(T& dgate, T& dup, T d, T gate, T up) const {
        dup = d * Act::value(gate);
        dgate = d * up * Act::slope(gate);
    }
};
}  // namespace minillm::cuda
