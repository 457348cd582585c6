// A linear layer whose weight lies in panels, for prompts: gemm/panels.h.
//
//   out = act(x @ W + bias)         x (N, K) float; W (K, J) in panels of float32 or bfloat16
//
// By float32 panels the bits are those of linear.cpp, by bfloat16 ones those of linear/bf16.cpp, which rounds x, too.
#include "cpu/bias_and_activation.h"
#include "cpu/linear/bf16_weight.h"
#include "cpu/stored_weight.h"

namespace minillm::panel_linear {

template <class Epilogue>
void multiply(float* out, const float* x, const Weight& w, int64_t N, const Epilogue& epilogue) {
    if (w.form == 'F') return matmul(N, w.N, w.K, Matrix<float>{x, w.K}, w.floats(), out, epilogue);
    thread_local Scratch<bf16> scratch;
    bf16* rounded = scratch.at_least(N * w.K);
    round_array(rounded, x, N * w.K);
    matmul_bf16(N, w.N, w.K, Matrix<bf16>{rounded, w.K}, w.pairs(), out, epilogue);
}

Object panel_linear(const Array& x, const Tuple& weight, const Object& bias, const string& activation) {
    int64_t K = last("x", x), N = x.rows();
    const float* px = input<float>("x", x, x.shape);
    const Weight w = stored_weight("weight", weight, K, ANY);
    if (w.form != 'F' && w.form != 'B') fail("weight must be in panels");
    const float* b = bias.is_none() ? nullptr : input<float>("bias", argument<Array>(bias, "bias"), {w.N});
    auto out = fresh<float>(x.with_last(w.N));
    with_epilogue(activation, b, [&](const auto& epilogue) { multiply(out.data, px, w, N, epilogue); });
    return out;
}

// A matrix (K, N), or (N, K) if transposed, of float or, by its bits, bfloat16, goes `into` panels of float or bfloat16.
template <class Element, class Engine, class MatrixB>
void fill(const Engine& engine, Element* panels, int64_t line, int64_t K, int64_t N, const MatrixB& B) {
    constexpr int64_t COLUMNS = Engine::COLUMNS;
#pragma omp parallel for schedule(dynamic)
    for (int64_t j = 0; j < N; j += COLUMNS) {
        Element* panel = panels + j * line;
        engine.pack_b(panel, B.from(0, j), std::min(COLUMNS, N - j), K);
        std::fill(panel + Engine::elements(K) * COLUMNS, panel + line * COLUMNS, Element(0));
    }
}

void fill_panels(const Array& matrix, bool transposed, const Array& into) {
    const Operand given = operand_of("matrix", matrix, {ANY, ANY}), B = transposed ? given.transpose() : given;
    const int64_t K = matrix.shape[transposed], N = matrix.shape[!transposed];
    const bool pairs = into.dtype == "uint16";
    const int64_t line = pairs ? round_up(K, PADDED_DEPTH) / 2 : K, W = pairs ? columns_of_pairs() : NR<float>;
    if (!pairs && !B.is_float) fail("matrix must be float32 where panels are: got ", matrix.dtype);
    if (pairs) {
        auto* panels = (Pair*)in_place<uint16_t>("into", into, {ceil_div(N, W), line, W, 2});
        without_gil([&] {
            if (has_amx()) fill(AmxTiles(), panels, line, K, N, B);
            else fill(Dot(), panels, line, K, N, B);
        });
    } else {
        float* panels = in_place<float>("into", into, {ceil_div(N, W), K, W});
        without_gil([&] { fill(Fma<float>(), panels, line, K, N, B.as<float>()); });
    }
}

// Columns of a panel on this machine, by "float32" or "bfloat16".
int64_t panel_columns(const string& numbers) {
    if (numbers != "float32" && numbers != "bfloat16") fail("numbers must be float32 or bfloat16: got ", numbers);
    return numbers == "float32" ? NR<float> : columns_of_pairs();
}

const Register registered[] = {{"panel_linear(x, weight, bias=None, activation='')", &panel_linear},
                               {"fill_panels(matrix, transposed, into)", &fill_panels},
                               {"panel_columns(numbers)", &panel_columns}};

}  // namespace minillm::panel_linear
