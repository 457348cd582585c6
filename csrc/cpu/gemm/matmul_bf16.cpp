// The GEMMs in bfloat16 that most ops use; and one by itself, for tests.
#include "cpu/gemm/matmul_bf16.h"

#include "python/register.h"

namespace minillm {

PAIR_KERNEL(false, PanelOfA);
PAIR_KERNEL(false, RowsOfA);
PAIR_KERNEL(true, PanelOfA);
PAIR_KERNEL(true, RowsOfA);
MATMUL_BF16(float, NoEpilogue);
MATMUL_BF16(bf16, NoEpilogue);
MATMUL_BF16(float, AddBias<float>);
MATMUL_BF16(bf16, AddBias<float>);

// A matmul alone for tests, by one engine: "dot", "pairs" (the same by float arithmetic), "amx", "amx_emulated".
template <class S>
void matmul_by(const string& engine, int64_t M, int64_t N, int64_t K, Matrix<S> A, Matrix<S> B, float* C) {
    if (engine == "pairs") return dot_gemm<false>(M, N, K, A, B, C, N, false, NoEpilogue());
    if (engine == "amx_emulated")
        return packed_gemm<Tiles<EmulatedRegisters>>(M, N, K, A, B, C, N, false, NoEpilogue());
    if (engine == "dot" && has_dot_instruction()) return dot_gemm<true>(M, N, K, A, B, C, N, false, NoEpilogue());
    if (engine == "amx" && has_amx()) return packed_gemm<AmxTiles>(M, N, K, A, B, C, N, false, NoEpilogue());
    fail("engine must be one that this machine has: got " + engine);
}

Object product_bf16(const Array& a, const Array& b, bool a_transposed, bool b_transposed, const string& engine) {
    check_shape("a", a, {ANY, ANY});
    int64_t M = a.shape[a_transposed], K = a.shape[!a_transposed];
    check_shape("b", b, b_transposed ? Shape{ANY, K} : Shape{K, ANY});
    int64_t N = b.shape[!b_transposed];
    auto c = fresh<float>({M, N});
    if (a.dtype == "uint16") {                                                 // bfloat16 by its bits
        auto *pa = input<uint16_t>("a", a, a.shape), *pb = input<uint16_t>("b", b, b.shape);
        matmul_by<bf16>(engine, M, N, K, {(const bf16*)pa, a.shape[1], a_transposed},
                        {(const bf16*)pb, b.shape[1], b_transposed}, c);
    } else {
        const float *pa = input<float>("a", a, a.shape), *pb = input<float>("b", b, b.shape);
        matmul_by<float>(engine, M, N, K, {pa, a.shape[1], a_transposed}, {pb, b.shape[1], b_transposed}, c);
    }
    return c;
}

const Register registered("product_bf16(a, b, a_transposed, b_transposed, engine)", &product_bf16);

}  // namespace minillm
