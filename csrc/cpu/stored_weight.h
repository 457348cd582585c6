// Weights as they are stored, and how Python hands them over: float32 arrays, or tuples (values, scales): int8, int4 as uint8
// of two rows a byte, or bfloat16's bits with None; or (panels, None, N, K) of float32 or bfloat16 (gemm/panels.h).
#pragma once

#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/integer.h"
#include "cpu/gemm/panels.h"
#include "python/register.h"

namespace minillm {

struct Weight {  // a matrix (K, N), inputs by outputs
    const void* data;
    const float* scales;  // (K / group, N) where the numbers are int8 or int4
    int64_t K, N, group;
    // 'f' float, 't' float as (N, K), 'b' bfloat16, 'i' int8, '4' int4, of which a byte holds two rows; 'F' and 'B': float
    // and bfloat16 in panels
    char form;

    const uint8_t* panels = nullptr;  // the numbers as gemm/integer_panels.h packs them, where they were packed
    bool integer = false;  // are activations rounded, too, where this is multiplied?
    InPanels<float> floats() const { return {(const float*)data, K}; }
    InPanels<Pair> pairs() const { return {(const Pair*)data, round_up(K, PADDED_DEPTH) / 2}; }
    float number_of_floats(int64_t k, int64_t j) const {
        constexpr int64_t W = NR<float>;
        return floats().data[(j / W * K + k) * W + j % W];
    }
    float number_of_pairs(int64_t k, int64_t j) const {
        const int64_t W = columns_of_pairs();
        Pair both = pairs().data[(j / W * pairs().line + k / 2) * W + j % W];
        return number(bf16{uint16_t(k % 2 ? both >> 16 : both)});
    }
    integer::Stored integers() const { return {(const uint8_t*)data, scales, K, N, group, form == '4', panels}; }
};

// Float32 (P, K, columns) or uint16 (P, K / 2, columns, 2), K rounded up to PADDED_DEPTH.
inline Weight weight_in_panels(const char* name, const Array& panels, int64_t K, int64_t N) {
    const bool pairs = panels.shape.size() == 4;
    Weight found{nullptr, nullptr, K, N, K, pairs ? 'B' : 'F'};
    const int64_t W = pairs ? columns_of_pairs() : NR<float>, P = ceil_div(N, W);
    if (pairs) found.data = input<uint16_t>(name, panels, {P, found.pairs().line, W, 2});
    else found.data = input<float>(name, panels, {P, K, W});
    return found;
}

inline Weight stored_weight(const char* name, const Tuple& pair, int64_t K, int64_t N) {
    if (pair.size() < 2 || pair.size() > 4)
        fail(name, " must be a tuple (values, scales), (values, scales, panels) or (panels, None, N, K)");
    auto values = argument<Array>(pair[0], name);
    if (pair.size() == 4) {
        int64_t n = argument<int64_t>(pair[2], name), k = argument<int64_t>(pair[3], name);
        if ((N != ANY && n != N) || (K != ANY && k != K) || n < 0 || k < 0)
            fail(name, " must have shape ", Shape{K, N}, ": got ", Shape{k, n});
        return weight_in_panels(name, values, k, n);
    }
    bool four = values.dtype == DTYPE<uint8_t>;
    check_shape(name, values, {ANY, ANY});
    if (K == ANY) K = values.shape[0] * (four ? 2 : 1);
    if (pair[1].is_none()) {
        auto* data = input<uint16_t>(name, values, {K, N});
        return {data, nullptr, K, values.shape[1], K, 'b'};
    }
    const void* data = four ? (const void*)input<uint8_t>(name, values, {(K + 1) / 2, N})
                            : (const void*)input<int8_t>(name, values, {K, N});
    auto scales = argument<Array>(pair[1], "scales");
    auto* s = input<float>("scales", scales, {ANY, values.shape[1]});
    int64_t G = scales.shape[0], group = G ? K / G : 0;
    if (G < 1 || group * G != K || (G > 1 && group % DEPTH))
        fail(name, " must have groups of rows of equal size, a multiple of ", DEPTH, ": got ", G, " for ", K, " rows");
    Weight found{data, s, K, values.shape[1], group, four ? '4' : 'i'};
    if (pair.size() == 3 && !pair[2].is_none())
        found.panels = input<uint8_t>("panels", argument<Array>(pair[2], "panels"), {found.integers().all_panels()});
    return found;
}

}  // namespace minillm
