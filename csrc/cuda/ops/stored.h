// Operands of matmuls as a step of the ladder takes them, for bindings: numbers of T where they are, or rounded to
// bfloat16. There a weight may arrive as its bfloat16 bits, the copy that the optimizer leaves, half the bytes to read.
#pragma once

#include "cuda/ops/operands.h"
#include "cuda/ops/rounding.cuh"

namespace minillm {

// The steps whose operands are rounded take float32 alone.
template <class Step, class F>
auto by_number(const char* name, const Array& a, F f) {
    if constexpr (std::is_same_v<typename Step::template Stored<float>, float>) return by_dtype(name, a, f);
    else {
        check_dtype(name, a, "float32");
        return f(float());
    }
}

// The same for a backward, where what was kept of x may be bits.
template <class Step, class F>
auto by_number(const Array& x, const Array& dout, F f) {
    if constexpr (std::is_same_v<typename Step::template Stored<float>, float>) return by_dtype("x", x, f);
    else return by_number<Step>("dout", dout, f);
}

template <class T, class S>
struct Weight {
    const T* numbers;  // null: `stored` has them
    S* stored;
    int64_t count;
    const S* get(gpu::Stream stream) const {
        return numbers ? gemm::rounded<S>(stored, numbers, count, stream) : stored;
    }
};

template <class T, class S>
Weight<T, S> weight_of(Operands& on, const char* name, const Array& a, const Shape& shape) {
    if constexpr (!std::is_same_v<T, S>) {
        if (a.dtype == "uint16") return {nullptr, (S*)on.input<uint16_t>(name, a, shape), 0};
        const T* numbers = on.input<T>(name, a, shape);
        return {numbers, on.scratch<S>(a.size()), a.size()};
    } else return {nullptr, const_cast<S*>(on.input<T>(name, a, shape)), 0};  // read only
}

// A new array of stored numbers, of bfloat16 by its bits.
template <class T, class S>
Result<S> fresh_stored(Operands& on, const Shape& shape) {
    using Bits = std::conditional_t<std::is_same_v<T, S>, T, uint16_t>;
    const auto array = on.fresh<Bits>(shape);
    return {array, (S*)array.data};
}

// What a forward keeps of x for its backward's matmuls: x itself, or a new array to round it to.
template <class S, class T>
Result<S> kept(Operands& on, const Array& x, const T* numbers) {
    if constexpr (std::is_same_v<T, S>) return {x, const_cast<T*>(numbers)};  // read only
    else return fresh_stored<T, S>(on, x.shape);
}

// And what it kept, as the backward finds it.
template <class T, class S>
const S* stored(Operands& on, const char* name, const Array& a, const Shape& shape) {
    if constexpr (std::is_same_v<T, S>) return on.input<T>(name, a, shape);
    else return (const S*)on.input<uint16_t>(name, a, shape);
}

}  // namespace minillm
