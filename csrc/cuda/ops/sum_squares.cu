// The sum of squares on a GPU: launchers, and the bindings of both steps of the ladder. Kernels: sum_squares.cuh.
#include "cuda/ops/sum_squares.cuh"

#include "cuda/ops/operands.h"

namespace minillm::sum_squares {
namespace {

template <bool NAIVE>
double sum_squares(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* px = on.input<T>("x", x, {ANY});
        const int64_t n = x.size();
        if (!n) return 0.0;
        double* sums = on.scratch<double>(1 + pieces(n));
        on.run([&](gpu::Stream s) { launch_sum<NAIVE, T>(sums, px, n, stream_t(s)); });
        return on.read(sums);
    });
}

const Register registered[] = {{"sum_squares(x)", &sum_squares<false>}, {"sum_squares_1_naive(x)", &sum_squares<true>}};

}  // namespace
}  // namespace minillm::sum_squares
