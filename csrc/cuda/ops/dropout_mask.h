// The arguments of dropout, for the bindings of ops that drop on their way: checks, and what kernels must know of the
// mask.
#pragma once

#include <cmath>

#include "cuda/ops/dropout.cuh"
#include "cuda/ops/operands.h"

namespace minillm::dropout {

inline int64_t mask_bytes(int64_t n) { return (n + 7) / 8; }

inline PhiloxKey philox_key(const Tuple& key, const char* name = "key") {
    const auto word = [&](int64_t i) { return i < key.size() ? to<uint64_t>(key[i]) : std::nullopt; };
    const auto seed = word(0), step = word(1), site = word(2);
    if (key.size() == 3 && seed && step && site) return {*seed, *step, *site};
    fail(name, " must be (seed, step, site), three integers in [0, 2^64): got ", key);
}
inline void check_p(double p) {
    if (!(p >= 0 && p < 1)) fail("p must be a number with 0 <= p < 1: got ", p);
}
template <class T>
Mask<T> mask_of(double p, const PhiloxKey& key) {
    return {key, (uint64_t(1) << 32) - uint64_t(std::ceil(p * 4294967296.0)), T(1 / (1 - p))};
}

}  // namespace minillm::dropout
