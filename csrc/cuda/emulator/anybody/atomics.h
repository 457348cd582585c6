// Atomic read-modify-write operations: one thread runs at a time, so they only have to be told to the runtime.
#pragma once

#include "words.h"

extern "C" void minillm_cuda_atomic(const void* p, size_t bytes, int reads, const void* place);

namespace minillm_cuda {
template <class T>
struct Same {
    using type = T;
};
template <class T>
using same = typename Same<T>::type;        // an argument that does not decide what T is
}  // namespace minillm_cuda

#define MINILLM_ATOMIC(name, reads, result)                                    \
    template <class T>                                                         \
    MINILLM_QUIET T name(T* p, minillm_cuda::same<T> x) {                      \
        minillm_cuda_atomic(p, sizeof(T), reads, __builtin_return_address(0)); \
        const T old = *p;                                                      \
        *p = (result);                                                         \
        return old;                                                            \
    }                                                                          \
    template <class T>                                                         \
    MINILLM_INLINE T name##_block(T* p, minillm_cuda::same<T> x) {             \
        return name(p, x);                                                     \
    }                                                                          \
    template <class T>                                                         \
    MINILLM_INLINE T name##_system(T* p, minillm_cuda::same<T> x) {            \
        return name(p, x);                                                     \
    }
MINILLM_ATOMIC(atomicAdd, 1, T(old + x))
MINILLM_ATOMIC(atomicSub, 1, T(old - x))
MINILLM_ATOMIC(atomicMin, 1, x < old ? x : old)
MINILLM_ATOMIC(atomicMax, 1, old < x ? x : old)
MINILLM_ATOMIC(atomicAnd, 1, T(old& x))
MINILLM_ATOMIC(atomicOr, 1, T(old | x))
MINILLM_ATOMIC(atomicXor, 1, T(old ^ x))
MINILLM_ATOMIC(atomicInc, 1, old >= x ? T(0) : T(old + 1))
MINILLM_ATOMIC(atomicDec, 1, old == T(0) || old > x ? x : T(old - 1))
MINILLM_ATOMIC(atomicExch, 0, x)
#undef MINILLM_ATOMIC

template <class T>
MINILLM_QUIET T atomicCAS(T* p, minillm_cuda::same<T> compare, minillm_cuda::same<T> x) {
    minillm_cuda_atomic(p, sizeof(T), 1, __builtin_return_address(0));
    const T old = *p;
    if (!std::memcmp(&old, &compare, sizeof old)) *p = x;
    return old;
}
template <class T>
MINILLM_INLINE T atomicCAS_block(T* p, minillm_cuda::same<T> compare, minillm_cuda::same<T> x) {
    return atomicCAS(p, compare, x);
}
template <class T>
MINILLM_INLINE T atomicCAS_system(T* p, minillm_cuda::same<T> compare, minillm_cuda::same<T> x) {
    return atomicCAS(p, compare, x);
}
