// int8 and int4 weights as integer.h multiplies them: in blocks of K, and packed into panels of quads, four neighbours in k.
#pragma once

#include <vector>

#include "cpu/gemm/gemm.h"

namespace minillm::integer {

constexpr int64_t BLOCK = 128;  // inputs that share a scale of an activation
constexpr int64_t PANEL = VECTOR_BYTES;  // columns packed together: 4 vectors of quads

typedef uint8_t Bytes __attribute__((vector_size(VECTOR_BYTES)));
typedef Vec<int32_t> Quads;

// ---- weights and their blocks ----

struct Stored {  // a matrix (K, N): int8; or int4, of which a byte holds two rows, that of the even k in its low half
    const uint8_t* data;
    const float* scales;  // (K / group, N)
    int64_t K, N, group;
    bool four;
    const uint8_t* panels;  // the same numbers as panels, or null: they are packed as they are needed, then

    // A panel: quads of all K (rounded up to two quads), PANEL columns, of int4 two quads in a byte's halves; then, where
    // there are several groups, its scales (G, PANEL).
    int64_t number_bytes() const { return round_up(K, 8) * PANEL / (four ? 2 : 1); }
    int64_t panel_bytes() const {
        return number_bytes() + (one_group() ? 0 : K / group * PANEL * int64_t(sizeof(float)));
    }
    int64_t all_panels() const { return ceil_div(N, PANEL) * panel_bytes(); }
    const uint8_t* panel_at(int64_t j, int64_t k) const {
        return panels + j / PANEL * panel_bytes() + k * PANEL / (four ? 2 : 1);
    }
    const float* scales_at(int64_t j, int64_t k) const {
        return (const float*)(panels + j / PANEL * panel_bytes() + number_bytes()) + k / group * PANEL;
    }
    int64_t length() const { return std::min(group, BLOCK); }  // of a block
    int64_t blocks_of_group() const { return group ? ceil_div(group, length()) : 0; }
    int64_t blocks() const { return group ? K / group * blocks_of_group() : 0; }
    Range block(int64_t b) const {
        int64_t g = b / blocks_of_group(), k = g * group + b % blocks_of_group() * length();
        return {k, std::min(k + length(), (g + 1) * group)};
    }
    bool one_group() const { return group == K; }
};

// ---- packing: [quad][PANEL columns], the bytes of four neighbours in k side by side ----

// As shuffle of vec.h, for numbers of any size.
template <int... I, class V>
inline V picked(V a, V b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, I...);
#else
    typedef std::conditional_t<sizeof(a[0]) == 1, int8_t, std::conditional_t<sizeof(a[0]) == 2, int16_t, int32_t>> Int;
    typedef Int Mask __attribute__((vector_size(sizeof(V))));
    return __builtin_shuffle(a, b, Mask{Int(I)...});
#endif
}

// Two operands' numbers in turns: of each lane of 16 bytes its lower half (FIRST = 0) or its upper.
template <int FIRST, class V, size_t... I>
inline V in_turns(V a, V b, std::index_sequence<I...>) {
    constexpr int N = sizeof...(I), LANE = 16 * N / VECTOR_BYTES;
    return picked<int(I / LANE * LANE + I % LANE / 2 + I % 2 * N + FIRST * LANE / 2)...>(a, b);
}

// Whole lanes in turns, from lane FIRST on; and the lower or upper half of both.
template <int FIRST, size_t... I>
inline Quads lanes_in_turns(Quads a, Quads b, std::index_sequence<I...>) {
    return picked<int(4 * (FIRST + I / 8) + I % 4 + I / 4 % 2 * sizeof...(I))...>(a, b);
}
template <int UPPER, size_t... I>
inline Quads halves(Quads a, Quads b, std::index_sequence<I...>) {
    constexpr size_t N = sizeof...(I);
    return picked<int(I % (N / 2) + UPPER * N / 2 + I / (N / 2) * N)...>(a, b);
}

// Vector i of v holds columns 4 i ... 4 i + 3 of each 16, as it comes from turns within lanes; out holds them in order.
inline void store_in_order(int32_t* out, const Quads* v) {
    constexpr auto all = std::make_index_sequence<WIDTH<int32_t>>();
    auto put = [&](int i, Quads q) { store(out + i * WIDTH<int32_t>, q); };
    if constexpr (VECTOR_BYTES == 64) {
        Quads a = lanes_in_turns<0>(v[0], v[1], all), b = lanes_in_turns<0>(v[2], v[3], all);
        Quads c = lanes_in_turns<2>(v[0], v[1], all), d = lanes_in_turns<2>(v[2], v[3], all);
        put(0, halves<0>(a, b, all)), put(1, halves<1>(a, b, all));
        put(2, halves<0>(c, d, all)), put(3, halves<1>(c, d, all));
    } else if constexpr (VECTOR_BYTES == 32) {
        put(0, lanes_in_turns<0>(v[0], v[1], all)), put(1, lanes_in_turns<0>(v[2], v[3], all));
        put(2, lanes_in_turns<1>(v[0], v[1], all)), put(3, lanes_in_turns<1>(v[2], v[3], all));
    } else {
        for (int i = 0; i < 4; i++) put(i, v[i]);
    }
}

// Four rows of PANEL bytes -> PANEL quads.
inline void pack_rows(int32_t* out, const Bytes* row) {
    typedef Vec<uint16_t> Shorts;
    constexpr auto bytes = std::make_index_sequence<VECTOR_BYTES>();
    constexpr auto shorts = std::make_index_sequence<VECTOR_BYTES / 2>();
    auto low01 = (Shorts)in_turns<0>(row[0], row[1], bytes), high01 = (Shorts)in_turns<1>(row[0], row[1], bytes);
    auto low23 = (Shorts)in_turns<0>(row[2], row[3], bytes), high23 = (Shorts)in_turns<1>(row[2], row[3], bytes);
    Quads v[4] = {(Quads)in_turns<0>(low01, low23, shorts), (Quads)in_turns<1>(low01, low23, shorts),
                  (Quads)in_turns<0>(high01, high23, shorts), (Quads)in_turns<1>(high01, high23, shorts)};
    store_in_order(out, v);
}

// A row of memory from column j on, of which n columns are there.
inline Bytes row_of(const Stored& w, int64_t row, int64_t j, int64_t n) {
    Bytes v{};
    if (n >= PANEL) std::memcpy(&v, w.data + row * w.N + j, sizeof v);
    else std::memcpy(&v, w.data + row * w.N + j, n);
    return v;
}

// Fetches the next block of a piece into the second cache, row by row as memory likes it, while this one is packed.
struct Ahead {
    const uint8_t* data;  // of the block, or null
    int64_t stride, lines;  // bytes between rows; lines of a row
    int64_t row = 0, line = 0;

    void fetch(int count) {
        for (int i = 0; i < count && data; i++) {
            __builtin_prefetch(data + row * stride + line * 64, 0, 2);
            if (++line == lines) line = 0, row++;
        }
    }
};

// The panel of columns j ... j + PANEL - 1 of a block: int8 moved by OFFSET, int4 by 8.
template <int OFFSET>
void pack_panel(int32_t* panel, const Stored& w, Range block, int64_t j, Ahead& ahead) {
    int64_t n = std::min(PANEL, w.N - j), rows = w.four ? ceil_div(w.K, 2) : w.K;
    for (int64_t k = block.begin; k < block.end; k += 4, panel += PANEL) {
        Bytes row[4];
        ahead.fetch(w.four ? 2 : 4);
        if (w.four) {
            UNROLL_FOR (int i = 0; i < 2; i++) {
                Bytes both = k / 2 + i < rows ? row_of(w, k / 2 + i, j, n) ^ uint8_t(0x88) : Bytes{};
                row[2 * i] = both & 15, row[2 * i + 1] = both >> 4;
            }
        } else {
            UNROLL_FOR (int i = 0; i < 4; i++) {
                row[i] = k + i < rows ? row_of(w, k + i, j, n) ^ uint8_t(OFFSET) : Bytes{};
            }
        }
        pack_rows(panel, row);
    }
}

// A weight is packed once, when it is loaded, for all calls. A panel of int8 is what pack_panel makes; of int4, two of its quads
// in each byte, the first in the lower half.
template <int OFFSET>
void pack_all(uint8_t* out, const Stored& w) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t j = 0; j < w.N; j += PANEL) {
        std::vector<int32_t> quads(round_up(w.K, 8) / 4 * PANEL);
        Ahead nothing{};
        pack_panel<OFFSET>(quads.data(), w, {0, w.K}, j, nothing);
        uint8_t* to = out + j / PANEL * w.panel_bytes();
        auto* from = (const uint8_t*)quads.data();
        if (!w.four) std::memcpy(to, from, w.number_bytes());
        for (int64_t i = 0; i < w.number_bytes() && w.four; i++) {
            const uint8_t* first = from + i / (4 * PANEL) * 8 * PANEL + i % (4 * PANEL);
            to[i] = uint8_t(first[0] | first[4 * PANEL] << 4);
        }
        for (int64_t k = 0; k < w.K && !w.one_group(); k += w.group) {
            auto* scales = (float*)(to + w.number_bytes()) + k / w.group * PANEL;
            std::fill_n(scales, PANEL, 0.0f);
            std::copy_n(w.scales + k / w.group * w.N + j, std::min(PANEL, w.N - j), scales);
        }
    }
}

// A block of a panel of int4, taken apart.
inline void unpack_panel(int32_t* panel, const uint8_t* from, int64_t quads) {
    constexpr int64_t W = WIDTH<int32_t>;
    for (int64_t p = 0; p < quads; p += 2, panel += 2 * PANEL, from += 4 * PANEL)
        UNROLL_FOR (int v = 0; v < 4; v++) {
            Bytes both;
            std::memcpy(&both, from + v * VECTOR_BYTES, sizeof both);
            store(panel + v * W, (Quads)(both & 15));
            store(panel + PANEL + v * W, (Quads)(both >> 4));
        }
}

}  // namespace minillm::integer
