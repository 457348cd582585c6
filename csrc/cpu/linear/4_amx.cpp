// Step 4 of the ladder (ladder.h): AMX. Operands are rounded to bfloat16, in pairs of neighbours in k, and padded to whole
// tiles: of A, 16 rows of 16 pairs; of B, 16 pairs deep, 16 columns wide. 2 x 2 tiles of C are summed in four of the eight
// registers over all of k: four tiles are loaded for four tile matmuls. Only float. On a CPU without AMX the registers are
// emulated: right, and slow. Parallel over columns of such blocks.
#include "cpu/gemm/pairs.h"
#include "cpu/isa/amx.h"
#include "cpu/linear/ladder.h"

namespace minillm::linear {

struct Amx {
    static constexpr int64_t SIDE = 32;  // of a block of C: 2 x 2 tiles

    template <class Registers>
    static void block(Registers& r, float* C, const Pair* a, int64_t P, const Pair* b, int64_t columns) {
        r.template zero<0>(), r.template zero<1>(), r.template zero<2>(), r.template zero<3>();
        for (int64_t p = 0; p < P; p += 16) {  // strides in bytes
            r.template load<4>(a + p, 4 * P), r.template load<5>(a + 16 * P + p, 4 * P);
            r.template load<6>(b + p * columns, 4 * columns), r.template load<7>(b + p * columns + 16, 4 * columns);
            r.template multiply_add<0, 4, 6>(), r.template multiply_add<1, 4, 7>();
            r.template multiply_add<2, 5, 6>(), r.template multiply_add<3, 5, 7>();
        }
        r.template store<0>(C, 4 * SIDE), r.template store<1>(C + 16, 4 * SIDE);
        r.template store<2>(C + 16 * SIDE, 4 * SIDE), r.template store<3>(C + 16 * SIDE + 16, 4 * SIDE);
    }

    template <class Registers>
    static void blocks(float* C, const Pair* a, const Pair* b, int64_t M, int64_t N, int64_t P) {
        int64_t columns = round_up(N, SIDE);
#pragma omp parallel
        {
            Registers registers;
            float tile[SIDE * SIDE];
#pragma omp for
            for (int64_t n = 0; n < N; n += SIDE)
                for (int64_t m = 0; m < M; m += SIDE) {
                    block(registers, tile, a + m * P, P, b + n, columns);
                    for (int64_t i = m; i < std::min(M, m + SIDE); i++)
                        std::copy_n(tile + (i - m) * SIDE, std::min(SIDE, N - n), C + i * N + n);
                }
        }
    }

    template <class T>
    static void matmul(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
        constexpr int64_t W = WIDTH<float>;
        auto straight_a = straightened(A, M, K), straight_b = straightened(B, K, N);
        auto rows = rows_of<false>(A, M, K);
        auto columns = rows_of<false>(B.transpose(), N, K);
        int64_t P = round_up(K, 32) / 2, wide = round_up(N, SIDE);
        std::vector<Pair> a(round_up(M, SIDE) * P), b(P * wide);  // (rows, P), (P, columns), zeros beyond
        for (int64_t m = 0; m < M; m++)
            for (int64_t p = 0; p < P; p += W) store(a.data() + m * P + p, rows.of_line(m, p));
        for (int64_t p = 0; p < P; p++)
            for (int64_t n = 0; n < wide; n += W) store(b.data() + p * wide + n, columns.of_lines(n, p));
#if defined(__AMX_BF16__)
        if (has_amx()) return blocks<AmxRegisters>(C, a.data(), b.data(), M, N, P);
#endif
        blocks<EmulatedRegisters>(C, a.data(), b.data(), M, N, P);
    }
};

template <class T>
using AmxLinear = StepLayer<Amx, T>;
const Variant<AmxLinear, true> registered("_4_amx");

}  // namespace minillm::linear
