// A linear layer with quantized weights, in integer arithmetic. Definition: minillm/models/integer.py; how: gemm/integer.h.
//
//   out = act(x @ W + bias)         x (N, K) float, rounded by rows and blocks; W (K, J) int8 or int4 with scales
//
// Rows are rounded first, in parallel, ROWS_AT_ONCE of them, then all threads share the columns.
#include "cpu/bias_and_activation.h"
#include "cpu/gemm/integer.h"
#include "cpu/stored_weight.h"

namespace minillm::integer {

SUM_PIECE(Vnni);
SUM_PIECE(Plain);

template <class Epilogue>
void linear(float* out, const float* x, const Stored& w, int64_t N, const Epilogue& epilogue) {
    thread_local Scratch<char> scratch;
    char* memory = scratch.at_least(Rounded::bytes(std::min(N, ROWS_AT_ONCE), w));
#pragma omp parallel if (N * w.N * w.K > 1 << 17)
    {
        for (int64_t row = 0; row < N; row += ROWS_AT_ONCE) {
            int64_t rows = std::min(N - row, ROWS_AT_ONCE);
            Rounded a(memory, rows, w);
#pragma omp for
            for (int64_t i = 0; i < rows; i++) round_row(a, w, x + row * w.K, i);
            multiply(rows, a, w, out + row * w.N, epilogue);
        }
    }
}

Object integer_linear(const Array& x, const Tuple& weight, const Object& bias, const string& activation) {
    int64_t K = last("x", x), N = x.rows();
    const float* px = input<float>("x", x, x.shape);
    const Weight stored = stored_weight("weight", weight, K, ANY);
    if (!stored.scales) fail("weight must hold int8 or int4 numbers");
    const Stored w = stored.integers();
    const float* b = bias.is_none() ? nullptr : input<float>("bias", argument<Array>(bias, "bias"), {w.N});
    auto out = fresh<float>(x.with_last(w.N));
    with_epilogue(activation, b, [&](const auto& epilogue) { linear(out, px, w, N, epilogue); });
    return out;
}

Stored integers_of(const Tuple& weight) {
    const Weight stored = stored_weight("weight", weight, ANY, ANY);
    if (!stored.scales) fail("weight must hold int8 or int4 numbers");
    return stored.integers();
}

// The panels of a weight, for this machine's memory only, go `into` an array: a third item of the tuple that a weight is.
void integer_panels(const Tuple& weight, const Array& into) {
    const Stored w = integers_of(weight);
    uint8_t* panels = in_place<uint8_t>("into", into, {w.all_panels()});
    without_gil([&] {
        if (has_vnni()) pack_all<Vnni::OFFSET>(panels, w);
        else pack_all<Plain::OFFSET>(panels, w);
    });
}

int64_t integer_panel_bytes(const Tuple& weight) { return integers_of(weight).all_panels(); }

const Register registered[] = {{"integer_linear(x, weight, bias=None, activation='')", &integer_linear},
                               {"integer_panels(weight, into)", &integer_panels},
                               {"integer_panel_bytes(weight)", &integer_panel_bytes}};

}  // namespace minillm::integer
