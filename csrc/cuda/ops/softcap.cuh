// Logit soft-cap. Formulas: minillm/ops/softcap.py; loops, grid and ladder: elementwise.cuh.
//
//   out = cap * tanh(x / cap)          dx = dout * (1 - (out / cap)^2)
#pragma once

#include "cuda/ops/elementwise.cuh"

namespace minillm::softcap {
template <class T>
struct Capped {
    T cap;
    DEVICE T operator()(T x) const { return cap * tanh(x / cap); }
};
template <class T>
struct CappedBackward {
    T cap;
    DEVICE T operator()(T d, T out) const { return d * (1 - (out / cap) * (out / cap)); }
};
}  // namespace minillm::softcap
