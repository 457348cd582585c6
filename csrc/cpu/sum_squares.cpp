// The sum of squares of a flat buffer, in double. Why: minillm/ops/sum_squares.py.
//
//   sum over i of x[i]^2
//
// One pass, one read a number: memory-bandwidth bound. Parallel over pieces of fixed size whose sums are added in order, so the
// result does not depend on the number of threads.
#include <vector>

#include "cpu/isa/threads.h"
#include "cpu/simd/vec.h"
#include "python/register.h"

namespace minillm::sum_squares {

// Half a vector of floats becomes a whole one of doubles.
template <class T>
double piece_sum_squares(const T* x, int64_t n) {
    constexpr int64_t W = WIDTH<double>;
    Vec<double> totals[4] = {};  // four chains: one addition need not wait for the last
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        for (int64_t c = 0; c < 4; c++) {
            Vec<double> v;
            for (int64_t lane = 0; lane < W; lane++) v[lane] = x[i + c * W + lane];
            totals[c] += v * v;
        }
    double tail = 0;
    for (; i < n; i++) tail += double(x[i]) * x[i];
    return sum<double>((totals[0] + totals[1]) + (totals[2] + totals[3])) + tail;
}

template <class T>
double sum_squares_kernel(const T* x, int64_t n) {
    constexpr int64_t PIECE = 1 << 16;
    std::vector<double> sums((n + PIECE - 1) / PIECE);
#pragma omp parallel for if (n > PIECE)
    for (int64_t p = 0; p < int64_t(sums.size()); p++)
        sums[p] = piece_sum_squares(x + p * PIECE, std::min(PIECE, n - p * PIECE));
    double total = 0;
    for (double s : sums) total += s;
    return total;
}

double sum_squares(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        const auto* px = input<decltype(zero)>("x", x, {ANY});
        return without_gil([&] { return sum_squares_kernel(px, x.size()); });
    });
}

const Register registered("sum_squares(x)", &sum_squares);

}  // namespace minillm::sum_squares
