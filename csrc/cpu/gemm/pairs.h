// Operands in bfloat16, and how pairs of their numbers are read and packed: see bf16.h.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/simd/bfloat16.h"

namespace minillm {

// A matrix (see gemm.h) of bf16, or of float, which is rounded as it is packed. The type is known at run time only, to the
// functions that pack, so that the loops above them are compiled once and not for each pair of types.
struct Operand {
    const void* data;
    int64_t stride;
    bool transposed, is_float;

    Operand(Matrix<float> m) : data(m.data), stride(m.stride), transposed(m.transposed), is_float(true) {}
    Operand(Matrix<bf16> m) : data(m.data), stride(m.stride), transposed(m.transposed), is_float(false) {}

    template <class S>
    Matrix<S> as() const {
        return {static_cast<const S*>(data), stride, transposed};
    }
    Operand from(int64_t i, int64_t j) const {
        return is_float ? Operand(as<float>().from(i, j)) : Operand(as<bf16>().from(i, j));
    }
    Operand transpose() const { return is_float ? Operand(as<float>().transpose()) : Operand(as<bf16>().transpose()); }
};

// ---- reading pairs: `count` lines (rows of A or columns of B) of `depth` numbers, each float or bf16 ----

// INSTRUCTION: rounding by VCVTNE2PS2BF16, two vectors at once, which takes numbers under 2^-126 for zeros.
typedef uint16_t TwoHalves __attribute__((vector_size(VECTOR_BYTES)));       // 2 WIDTH<float> of them

inline TwoHalves joined(Halves first, Halves second) {
    TwoHalves both;
    std::memcpy(&both, &first, sizeof first);
    std::memcpy((char*)&both + sizeof first, &second, sizeof second);
    return both;
}

template <bool INSTRUCTION>
inline TwoHalves rounded_halves(Vec<float> first, Vec<float> second) {
#if defined(__AVX512F__)
    if constexpr (INSTRUCTION) {
        TwoHalves both;
        asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(first), "v"(second));
        return both;
    }
#endif
    return joined(to_bf16(first), to_bf16(second));
}

// 2 WIDTH<float> neighbours, of which n are there.
template <bool INSTRUCTION>
inline TwoHalves neighbours(const float* p, int64_t n) {
    constexpr int64_t W = WIDTH<float>;
    if (n >= 2 * W) return rounded_halves<INSTRUCTION>(load(p), load(p + W));
    return rounded_halves<INSTRUCTION>(load_part(p, std::min(W, n)), n > W ? load_part(p + W, n - W) : Vec<float>{});
}
template <bool INSTRUCTION>
inline TwoHalves neighbours(const bf16* p, int64_t n) {
    TwoHalves both{};
    if (n >= 2 * WIDTH<float>) std::memcpy(&both, p, sizeof both);
    else std::memcpy(&both, p, n * sizeof(bf16));
    return both;
}

// Lane i: the pair (low[i], high[i]) of two rows, of which n lanes are there.
template <size_t... I>
inline Bits interleaved(TwoHalves v, std::index_sequence<I...>) {
    constexpr int W = WIDTH<float>;
    return (Bits)shuffle<int(I / 2 + I % 2 * W)...>(v, v);
}

template <bool INSTRUCTION>
inline Bits side_by_side(const float* low, const float* high, int64_t n) {
    bool whole = n == WIDTH<float>;
    Vec<float> a = whole ? load(low) : load_part(low, n), b = whole ? load(high) : load_part(high, n);
    if constexpr (INSTRUCTION)
        return interleaved(rounded_halves<true>(a, b), std::make_index_sequence<2 * WIDTH<float>>());
    return rounded(a) >> 16 | (rounded(b) & 0xffff0000);
}
template <bool INSTRUCTION>
inline Bits side_by_side(const bf16* low, const bf16* high, int64_t n) {
    Halves a{}, b{};
    if (n == WIDTH<float>) std::memcpy(&a, low, sizeof a), std::memcpy(&b, high, sizeof b);
    else a = load_part(low, n), b = load_part(high, n);
    return __builtin_convertvector(a, Bits) | __builtin_convertvector(b, Bits) << 16;
}

template <class S, bool INSTRUCTION>
struct Lines {
    const S* data;
    int64_t stride;
    bool along_k;                      // a line's numbers are neighbours in memory; else its lines' are
    int64_t count, depth;

    // Pairs p, p + 1, ... of one line.
    Bits of_line(int64_t line, int64_t p) const {
        if (line >= count || 2 * p >= depth) return Bits{};
        return (Bits)neighbours<INSTRUCTION>(data + line * stride + 2 * p, depth - 2 * p);
    }

    // Rows of memory are often pages apart, where the machine's own prefetching stops.
    void ahead(int64_t line, int64_t p) const {
        __builtin_prefetch(data + 2 * p * stride + line);
        __builtin_prefetch(data + (2 * p + 1) * stride + line);
    }

    // Pair p of lines line, line + 1, ...
    Bits of_lines(int64_t line, int64_t p) const {
        int64_t n = std::min(WIDTH<float>, count - line);
        if (n <= 0 || 2 * p >= depth) return Bits{};
        const S* from = data + 2 * p * stride + line;
        if (2 * p + 1 < depth) return side_by_side<INSTRUCTION>(from, from + stride, n);
        return side_by_side<INSTRUCTION>(from, from, n) & 0xffff;
    }
};

// The rows of A as lines; those of B's transpose are B's columns.
template <bool INSTRUCTION, class S>
Lines<S, INSTRUCTION> rows_of(Matrix<S> A, int64_t rows, int64_t depth) {
    return {A.data, A.stride, !A.transposed, rows, depth};
}

// WIDTH vectors, one for each of the pairs p, p + 1, ...: lane i is that pair of line + i. Not inline: it is large, the blocks go
// through memory anyway, and so all panels share one.
template <class From>
__attribute__((noinline)) void read_block(Bits* v, const From& from, int64_t line, int64_t p, bool lines_in_lanes) {
    constexpr int64_t W = WIDTH<float>;
    if (from.along_k) {
        UNROLL_FOR (int64_t i = 0; i < W; i++) v[i] = from.of_line(line + i, p);
    } else {
        UNROLL_FOR (int64_t i = 0; i < W; i++) v[i] = from.of_lines(line, p + i);
    }
    if (from.along_k == lines_in_lanes) transpose<Pair>(v);
}

// Panels of R lines, `elements` pairs deep.
template <int64_t R, class From>
void pack_pairs(Pair* panels, const From& from, int64_t elements) {
    constexpr int64_t W = WIDTH<float>, G = W < R ? W : R;       // G lanes of a vector go to one panel
    int64_t padded = ceil_div(from.count, R) * R;
    auto put = [&](const Bits& v, int64_t line, int64_t p) {
        for (int64_t g = line; g < std::min(padded, line + W); g += G)
            std::memcpy(panels + g / R * R * elements + p * R + g % R, (const Pair*)&v + (g - line), G * sizeof(Pair));
    };
    if (!from.along_k) {
        for (int64_t p = 0; p < elements; p++)
            for (int64_t line = 0; line < padded; line += W) {
                from.ahead(line, p + 8);
                put(from.of_lines(line, p), line, p);
            }
        return;
    }
    for (int64_t line = 0; line < padded; line += W)
        for (int64_t p = 0; p < elements; p += W) {
            Bits v[W];
            read_block(v, from, line, p, true);
            for (int64_t i = 0; i < std::min(W, elements - p); i++) put(v[i], line, p + i);
        }
}

// Calls f with the rows of A as lines, by the type that they have.
template <class F>
void with_rows_of(const Operand& A, int64_t rows, int64_t depth, bool instruction, F f) {
    if (!A.is_float) f(rows_of<false>(A.as<bf16>(), rows, depth));
    else if (instruction) f(rows_of<true>(A.as<float>(), rows, depth));
    else f(rows_of<false>(A.as<float>(), rows, depth));
}

}  // namespace minillm
