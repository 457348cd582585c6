// Weights as they are stored, and how Python hands them over: float32 arrays, or tuples (values, scales): int8, int4 as uint8
// of two rows a byte, or bfloat16's bits with None.
#pragma once

#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/integer.h"
#include "python/register.h"

namespace minillm {

struct Weight {  // a matrix (K, N), inputs by outputs
    const void* data;
    const float* scales;  // (K / group, N) where the numbers are int8 or int4
    int64_t K, N, group;
    char form;  // 'f' float, 't' float as (N, K), 'b' bfloat16, 'i' int8, '4' int4, of which a byte holds two rows

    const uint8_t* panels = nullptr;  // the numbers as gemm/integer.h packs them, where they were packed
    bool integer = false;  // are activations rounded, too, where this is multiplied?
    integer::Stored integers() const { return {(const uint8_t*)data, scales, K, N, group, form == '4', panels}; }
};

inline Weight stored_weight(const char* name, const Tuple& pair, int64_t K, int64_t N) {
    if (pair.size() != 2 && pair.size() != 3)
        fail(name, " must be a tuple (values, scales) or (values, scales, panels)");
    auto values = argument<Array>(pair[0], name);
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
