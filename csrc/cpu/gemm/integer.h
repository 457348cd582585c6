// GEMM of int8 or int4 weights by activations that are rounded to int8 on the way: sums of integers, exact whatever their order.
//
//   C[m, n] = sum over blocks b of w[g, n] * (x[m, b] * (sum over k in b of A[m, k] * B[k, n]))       g: the group of b
//
// A (M, K) int8 with a scale x for each row and block; B (K, N) int8 or int4 with a scale w for each group and column (one
// group alone takes its w at the end). A block is BLOCK inputs of a group, or what there is left of it: few enough that one
// large activation spoils but its own neighbours. Definition, in NumPy: minillm/models/integer.py.
//
// A lane of 32 bits holds a quad, four neighbours in k, and one instruction (VPDPBUSD, of AVX512-VNNI) multiplies and adds
// all of its quads: four times the multiply-adds of a float one. It wants one operand without sign: weights are moved by
// `offset`, and offset * (sum of the activations) is where the sum begins. Machines without it use VPMADDUBSW, whose sums of
// two products must fit into 16 bits, so the weight's sign is moved to the activation; others shift and multiply.
//
// Loop order: pieces of columns (parallel) > blocks of K > panels of VECTOR_BYTES columns > tiles of rows > quads. A panel
// of a block is packed into the first cache, 8 KB, and meets every row; totals are float, in the second cache. Few rows take a
// panel that was packed at loading from end to end.
//
// Determinism: integers, then float products and sums in one order, each rounded by itself and never fused: the same bits on
// every machine, in whatever batch, by whatever number of threads.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu/gemm/integer_panels.h"

namespace minillm::integer {

constexpr int ROWS = VECTOR_BYTES == 64 ? 6 : 2;  // of a tile
constexpr int64_t PANEL_MEMORY = (BLOCK + 4) / 4 * PANEL;  // a panel of a block, in quads, and its scales
constexpr int64_t ROWS_AT_ONCE = 512, TOTALS = 1 << 15;  // rows of A, and totals, of a piece: 128 KB
constexpr int64_t FETCHED = 16;  // rows at most for which memory is the bound: the next block is fetched early

// A product by itself: the compiler may not fuse it with a sum.
inline Vec<float> alone(Vec<float> v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__x86_64__)
    asm("" : "+x"(v));
#else
    volatile Vec<float> kept = v;
    v = kept;
#endif
    return v;
}

// ---- activations ----

// Rows of x, rounded: q (rows, K rounded up to quads), zeros after K; scales and sums of q (rows, blocks).
struct Rounded {
    int8_t* q;
    float* scales;
    int32_t* sums;
    int64_t width, blocks;

    static int64_t bytes(int64_t rows, const Stored& w) { return rows * (round_up(w.K, 64) + 8 * w.blocks()); }
    Rounded(char* memory, int64_t rows, const Stored& w)
        : q((int8_t*)memory), width(round_up(w.K, 64)), blocks(w.blocks()) {
        scales = (float*)(memory + rows * width);
        sums = (int32_t*)(scales + rows * blocks);
    }
};

// each(i, v, count) for n numbers of x, a vector at a time; zeros after the last.
template <class Each>
inline void by_vectors(const float* x, int64_t n, const Each& each) {
    int64_t i = 0;
    for (; i + WIDTH<float> <= n; i += WIDTH<float>) each(i, load(x + i), WIDTH<float>);
    if (i < n) each(i, load_part(x + i, n - i), n - i);
}

// n numbers to q = x / scale, to nearest and even: adding 1.5 * 2^23 leaves the whole number in the last bits. A scale under
// 2^-100 counts as 0; a block with NaN or infinity has NaN for its scale.
inline void round_block(int8_t* q, float* scale, int32_t* sum_of_q, const float* x, int64_t n) {
    typedef int8_t Signed __attribute__((vector_size(WIDTH<float>)));
    constexpr float MAGIC = 12582912;
    Quads most{}, total{};
    by_vectors(x, n, [&](int64_t, Vec<float> v, int64_t) {
        Quads bits = (Quads)v & 0x7fffffff;
        most = bits > most ? bits : most;
    });
    const int32_t top = largest<int32_t>(most);
    float size, inverse = 0;
    std::memcpy(&size, &top, sizeof size);
    *scale = size / 127;
    if (top >= 0x7f800000) *scale = __builtin_nanf("");
    else if (*scale < 0x1p-100f) *scale = 0;
    else inverse = 127 / size;
    by_vectors(x, n, [&](int64_t i, Vec<float> v, int64_t count) {
        Quads whole = inverse == 0 ? Quads{} : (Quads)(alone(v * inverse) + MAGIC) - 0x4b400000;
        auto bytes = __builtin_convertvector(whole, Signed);
        std::memcpy(q + i, &bytes, count);
        total += whole;
    });
    *sum_of_q = sum<int32_t>(total);
}

inline void round_row(const Rounded& a, const Stored& w, const float* x, int64_t row) {
    for (int64_t b = 0; b < a.blocks; b++) {
        Range at = w.block(b);
        int64_t to = row * a.blocks + b;
        round_block(a.q + row * a.width + at.begin, a.scales + to, a.sums + to, x + row * w.K + at.begin,
                    at.end - at.begin);
    }
    std::memset(a.q + row * a.width + w.K, 0, a.width - w.K);
}

// ---- dot products of quads ----

inline bool has_vnni() {
#if defined(__AVX512F__)
    static const bool has = __builtin_cpu_supports("avx512vnni");
    return has;
#else
    return false;
#endif
}

struct Vnni {  // weights moved by 128, without sign
    static constexpr int OFFSET = 128;
    static void add(Quads& sum, Quads w, const int32_t& a) {
#if defined(__AVX512F__)
        Quads total = sum;  // an array of which asm has an element would stay in memory
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(total) : "v"(w), "m"(a));
        sum = total;
#endif
    }
};

struct Plain {  // weights as they are, with a sign
    static constexpr int OFFSET = 0;
    static void add(Quads& sum, Quads w, const int32_t& quad) {
#if defined(__AVX512BW__)
        __m512i v = (__m512i)w, a = _mm512_set1_epi32(quad);
        __m512i pairs = _mm512_maddubs_epi16(
            _mm512_abs_epi8(v), _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(v), _mm512_setzero_si512(), a));
        sum += (Quads)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
        __m256i v = (__m256i)w, a = _mm256_set1_epi32(quad);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(a, v));
        sum += (Quads)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else  // products and their sum fit into 16 bits
        typedef Vec<int16_t> Shorts;
        Shorts v = (Shorts)w, a = (Shorts)(Quads{} + quad);
        Quads pairs = (Quads)((v << 8 >> 8) * (a << 8 >> 8) + (v >> 8) * (a >> 8));
        sum += (pairs << 16 >> 16) + (pairs >> 16);
#endif
    }
};

// ---- the micro-kernel: totals (R, PANEL) += blocks of R rows by a panel ----

struct Chunk {  // some blocks of a panel, one after the other
    const int32_t* panel;
    const float* scales;  // PANEL of the first block's group, then of the next; or null: they are taken at the end
    int64_t k, b, blocks, quads;  // the first block's first input and number; how many blocks, of so many quads each
    int offset;
    const char* ahead;  // what to fetch meanwhile
};

// A block's sum, times the scale of its activations, times that of its group: each product is rounded by itself.
inline void add_to_total(float* total, Quads sum, float of_row, const float* of_columns) {
    Vec<float> part = alone(__builtin_convertvector(sum, Vec<float>) * of_row);
    if (of_columns) part = alone(part * load(of_columns));
    store(total, load(total) + part);
}

// FOUR: two quads of int4 in the halves of the panel's bytes. LINES of `ahead` are fetched with each four vectors.
template <class Dot, int R, bool FOUR = false, int LINES = 0>
void add_chunk(float* totals, int64_t wide, const Rounded& a, int64_t row, Chunk c) {
    constexpr int64_t W = WIDTH<float>, STEP = 4 * (1 + FOUR);
    constexpr int32_t LOW = 0x0f0f0f0f;
    const int64_t width = a.width, blocks = a.blocks;
    const int8_t* q = a.q + row * width + c.k;
    const float* of_rows = a.scales + row * blocks + c.b;
    const int32_t* sums = a.sums + row * blocks + c.b;
    for (int64_t b = 0; b < c.blocks; b++, q += 4 * c.quads, c.scales += c.scales ? PANEL : 0) {
        Quads sum[R][4];
        UNROLL_FOR (int r = 0; r < R; r++) {
            const Quads begin = Quads{} - c.offset * sums[r * blocks + b];
            UNROLL_FOR (int v = 0; v < 4; v++) sum[r][v] = begin;
        }
        const int8_t* quad = q;
        for (const int8_t* end = q + 4 * c.quads; quad < end; quad += STEP, c.panel += PANEL, c.ahead += 64 * LINES) {
            Quads w[4];
            UNROLL_FOR (int i = 0; i < LINES; i++) __builtin_prefetch(c.ahead + 64 * i, 0, 2);
            UNROLL_FOR (int v = 0; v < 4; v++) w[v] = load(c.panel + v * W);
            UNROLL_FOR (int r = 0; r < R; r++)
                UNROLL_FOR (int v = 0; v < 4; v++)
                    Dot::add(sum[r][v], FOUR ? w[v] & LOW : w[v], *(const int32_t*)(quad + r * width));
            if constexpr (!FOUR) continue;
            UNROLL_FOR (int r = 0; r < R; r++)
                UNROLL_FOR (int v = 0; v < 4; v++)
                    Dot::add(sum[r][v], w[v] >> 4 & LOW, *(const int32_t*)(quad + r * width + 4));
        }
        UNROLL_FOR (int r = 0; r < R; r++)
            UNROLL_FOR (int v = 0; v < 4; v++)
                add_to_total(totals + r * wide + v * W, sum[r][v], of_rows[r * blocks + b],
                             c.scales ? c.scales + v * W : nullptr);
    }
}

// All rows from `row` on, R at a time, then what there is left; each lot fetches a part of what is ahead.
template <class Dot, int R, bool FOUR = false, int LINES = 0>
void add_rows(float* totals, int64_t wide, const Rounded& a, int64_t row, int64_t rows, Chunk c) {
    for (; row + R <= rows; row += R, c.ahead += 64 * LINES * c.blocks * ceil_div(c.quads, 1 + FOUR))
        add_chunk<Dot, R, FOUR, LINES>(totals + row * wide, wide, a, row, c);
    if constexpr (R > 1)
        if (row < rows) add_rows<Dot, R - 1, FOUR, LINES>(totals, wide, a, row, rows, c);
}

// ---- few rows, which wait for memory: a packed panel from end to end, int4 taken apart in registers ----

constexpr int FEW_ROWS = VECTOR_BYTES == 64 ? 4 : 1;

// A chunk, 8 KB, meets all rows while it is in the first cache and the next one is on its way to the second: else the first
// four rows would wait for the memory, and the memory for the others.
template <class Dot, bool FOUR>
void sum_few(float* totals, int64_t wide, const Rounded& a, int64_t rows, const Stored& w, int64_t column) {
    Chunk c{(const int32_t*)w.panel_at(column, 0), nullptr, 0, 0, 1, 0, FOUR ? 8 : Dot::OFFSET, nullptr};
    for (; c.k < w.K; c.b += c.blocks, c.panel = (const int32_t*)c.ahead) {
        const int64_t length = std::min(w.length(), w.group - c.k % w.group);
        if (w.group < BLOCK) c.blocks = std::min(BLOCK / w.group, a.blocks - c.b);  // whole groups, else one block
        c.quads = ceil_div(length, 4);
        c.scales = w.one_group() ? nullptr : w.scales_at(column, c.k);
        c.ahead = (const char*)(c.panel + c.blocks * ceil_div(c.quads, 1 + FOUR) * PANEL);
        if (rows <= FEW_ROWS) add_rows<Dot, FEW_ROWS, FOUR>(totals, wide, a, 0, rows, c);
        else add_rows<Dot, FEW_ROWS, FOUR, 2>(totals, wide, a, 0, rows, c);
        c.k += c.blocks * length;
    }
}

// ---- panels and blocks ----

// totals (rows, wide) of the columns j ... j + n - 1; memory: of a panel and its scales.
template <class Dot>
void sum_piece(float* totals, int64_t wide, const Rounded& a, int64_t rows, const Stored& w, int64_t column, int64_t n,
               int32_t* panel) {
    float* scales = (float*)(panel + BLOCK / 4 * PANEL);
    if (w.panels && n > PANEL) {  // they follow each other in memory, so one after the other is read from end to end
        for (int64_t j = 0; j < n; j += PANEL)
            sum_piece<Dot>(totals + j, wide, a, rows, w, column + j, std::min(PANEL, n - j), panel);
        return;
    }
    if (w.panels && rows <= FETCHED) {
        if (w.four) return sum_few<Dot, true>(totals, wide, a, rows, w, column);
        return sum_few<Dot, false>(totals, wide, a, rows, w, column);
    }
    for (int64_t b = 0; b < a.blocks; b++) {
        Range block = w.block(b);
        bool fetch = !w.panels && rows <= FETCHED && PANEL == 64 && b + 1 < a.blocks;
        Ahead ahead{fetch ? w.data + block.end / (w.four ? 2 : 1) * w.N + column : nullptr, w.N, ceil_div(n, 64)};
        for (int64_t j = 0; j < n; j += PANEL) {
            int64_t there = std::min(PANEL, n - j), quads = ceil_div(block.end - block.begin, 4);
            const int32_t* packed = panel;
            if (!w.panels) pack_panel<Dot::OFFSET>(panel, w, block, column + j, ahead);
            else if (w.four) unpack_panel(panel, w.panel_at(column + j, block.begin), quads);
            else packed = (const int32_t*)w.panel_at(column + j, block.begin);
            const float* used = w.one_group() ? nullptr : w.panels ? w.scales_at(column + j, block.begin) : scales;
            if (used == scales) {
                std::memset(scales, 0, PANEL * sizeof *scales);
                std::memcpy(scales, w.scales + block.begin / w.group * w.N + column + j, there * sizeof *scales);
            }
            const Chunk c{packed, used, block.begin, b, 1, quads, w.four ? 8 : Dot::OFFSET, nullptr};
            add_rows<Dot, ROWS>(totals + j, wide, a, 0, rows, c);
        }
    }
}

// Compiled once, in integer_linear.cpp.
#define SUM_PIECE(Dot) \
    template void sum_piece<Dot>(float*, int64_t, const Rounded&, int64_t, const Stored&, int64_t, int64_t, int32_t*)
extern SUM_PIECE(Vnni);
extern SUM_PIECE(Plain);

// ---- the loops ----

// Columns of a piece: as many pieces for each thread, their totals in the second cache.
inline int64_t piece_of(int64_t M, int64_t N, int64_t threads) {
    int64_t most = std::clamp<int64_t>(TOTALS / M / PANEL, 1, 16), panels = ceil_div(N, PANEL);
    int64_t pieces = round_up(ceil_div(panels, most), threads);
    return ceil_div(panels, pieces) * PANEL;
}

// C (M, N) = A @ W by the threads of the region; all are done when it returns.
template <class Epilogue>
void multiply(int64_t M, const Rounded& a, const Stored& w, float* c, const Epilogue& epilogue) {
    thread_local Scratch<float> scratch;
    thread_local Scratch<int32_t> panels;
    int64_t wide = piece_of(M, w.N, omp_get_num_threads());
    float* totals = scratch.at_least(M * wide);
    int32_t* panel = panels.at_least(PANEL_MEMORY);
#pragma omp for schedule(dynamic)
    for (int64_t column = 0; column < w.N; column += wide) {
        int64_t n = std::min(wide, w.N - column);
        std::fill_n(totals, M * wide, 0.0f);
        if (has_vnni()) sum_piece<Vnni>(totals, wide, a, M, w, column, n, panel);
        else sum_piece<Plain>(totals, wide, a, M, w, column, n, panel);
        for (int64_t m = 0; m < M; m++) {
            float* row = totals + m * wide;
            for (int64_t j = 0; j < n && w.one_group(); j += WIDTH<float>) {
                int64_t there = std::min(WIDTH<float>, n - j);
                store(row + j, alone(load(row + j) * load_part(w.scales + column + j, there)));
            }
            write_row(c + m * w.N + column, row, n, {true, true}, epilogue, m, column);
        }
    }
}

}  // namespace minillm::integer
