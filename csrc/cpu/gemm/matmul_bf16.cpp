// The GEMMs in bfloat16 that most ops use, and the engine's kernels; and one matmul by itself, for tests.
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/gemm/panels.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "cpu/linear/bf16_weight.h"
#include "python/register.h"

namespace minillm {

// ---- the micro-kernel: as in gemm.h, with a pair where that has a number ----

template <int VECTORS, class Left>
inline void fma_kernel(float* tile, const Left a, const Pair* b, int64_t elements) {
    Vec<float> sum[MR][VECTORS] = {};
    for (int64_t p = 0; p < elements; p++, b += NR<float>) {
        Bits row[VECTORS];
        UNROLL_FOR (int j = 0; j < VECTORS; j++) row[j] = load(b + j * WIDTH<Pair>);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] += upper(splat(a.at(i, p))) * upper(row[j]);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] += lower(splat(a.at(i, p))) * lower(row[j]);
    }
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) store(tile + i * NR<float> + j * WIDTH<float>, sum[i][j]);
}

#if defined(__AVX512F__)
template <int VECTORS, class Left>
__attribute__((target("avx512bf16"))) void vdpbf16ps_kernel(float* tile, const Left a, const Pair* b,
                                                            int64_t elements) {
    __m512 sum[MR][VECTORS];
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] = _mm512_setzero_ps();
    for (int64_t p = 0; p < elements; p++, b += NR<float>) {
        __m512i row[VECTORS];
        UNROLL_FOR (int j = 0; j < VECTORS; j++) row[j] = _mm512_loadu_si512(b + j * WIDTH<Pair>);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], (__m512bh)_mm512_set1_epi32(a.at(i, p)), (__m512bh)row[j]);
    }
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) _mm512_storeu_ps(tile + i * NR<float> + j * WIDTH<float>, sum[i][j]);
}
#else
template <int VECTORS, class Left>
void vdpbf16ps_kernel(float*, const Left&, const Pair*, int64_t) {}            // never called
#endif

template <class Left>
void pair_kernel(bool instruction, float* tile, const Left& a, const Pair* b, int64_t elements, int64_t columns) {
    auto with = [&](auto vectors) {
        if (instruction) vdpbf16ps_kernel<vectors>(tile, a, b, elements);
        else fma_kernel<vectors>(tile, a, b, elements);
    };
    if (columns <= WIDTH<float>) with(std::integral_constant<int, 1>());
    else if (columns <= 2 * WIDTH<float>) with(std::integral_constant<int, 2>());
    else with(std::integral_constant<int, NV>());
}

// ---- the engine ----

void Dot::pack_a(Pair* panels, const Operand& A, int64_t rows, int64_t depth) const {
    with_rows_of(A, rows, depth, instruction,
                 [&](const auto& from) { pack_pairs<ROWS>(panels, from, elements(depth)); });
}
void Dot::pack_b(Pair* panels, const Operand& B, int64_t columns, int64_t depth) const {
    with_rows_of(B.transpose(), columns, depth, instruction,
                 [&](const auto& from) { pack_pairs<COLUMNS>(panels, from, elements(depth)); });
}
void Dot::tile(Session&, float* c, const PanelOfA& a, const Pair* b, int64_t depth, int64_t columns) const {
    pair_kernel(instruction, c, a, b, elements(depth), columns);
}
void Dot::tile(Session&, float* c, const RowsOfA& a, const Pair* b, int64_t depth, int64_t columns) const {
    pair_kernel(instruction, c, a, b, elements(depth), columns);
}

#if defined(__AMX_BF16__)
template struct Tiles<AmxRegisters>;
#endif
MATMUL_BF16(NoEpilogue);
MATMUL_BF16(AddBias<float>);

// f(B), B as it is or laid out in panels.
template <class Engine, class F>
void with_b(const Engine& engine, int64_t N, int64_t K, const Operand& B, bool panels, F f) {
    if (!panels) return f(B);
    int64_t line = Engine::elements(K);
    std::vector<Pair> packed(round_up(N, Engine::COLUMNS) * line);
    engine.pack_b(packed.data(), B, N, K);
    f(InPanels<Pair>{packed.data(), line});
}

// A matmul alone for tests, by one engine: "dot", "pairs" (the same by float arithmetic), "amx", "amx_emulated".
void matmul_by(const string& engine, int64_t M, int64_t N, int64_t K, const Operand& A, const Operand& B, bool panels,
               float* C) {
    auto by = [&](const auto& e) {
        with_b(e, N, K, B, panels, [&](const auto& b) { packed_gemm(e, M, N, K, A, b, C, N, false, NoEpilogue()); });
    };
    auto dot = [&](const Dot& e) {
        with_b(e, N, K, B, panels, [&](const auto& b) { dot_gemm(e, M, N, K, A, b, C, N, false, NoEpilogue()); });
    };
    if (engine == "pairs") dot(Dot{false});
    else if (engine == "amx_emulated") by(Tiles<EmulatedRegisters>());
    else if (engine == "dot" && has_dot_instruction()) dot(Dot());
    else if (engine == "amx" && has_amx()) by(AmxTiles());
    else fail("engine must be one that this machine has: got " + engine);
}

Object product_bf16(const Array& a, const Array& b, bool a_transposed, bool b_transposed, const string& engine,
                    bool panels) {
    check_shape("a", a, {ANY, ANY});
    int64_t M = a.shape[a_transposed], K = a.shape[!a_transposed];
    check_shape("b", b, b_transposed ? Shape{ANY, K} : Shape{K, ANY});
    int64_t N = b.shape[!b_transposed];
    auto c = fresh<float>({M, N});
    auto operand = [](const char* name, const Array& x, bool transposed) {
        Operand straight = operand_of(name, x, x.shape);
        return transposed ? straight.transpose() : straight;
    };
    matmul_by(engine, M, N, K, operand("a", a, a_transposed), operand("b", b, b_transposed), panels, c);
    return c;
}

const Register registered("product_bf16(a, b, a_transposed, b_transposed, engine, panels=False)", &product_bf16);

}  // namespace minillm
