// The linear layer with products in bfloat16. Formulas: minillm/ops/linear.py; the products: gemm_bf16.h.
//
// x, weight and dout arrive in float and are rounded on their way into the products; sums, biases and results are
// float. The backward needs x only for a product, so the cache keeps it rounded: half the memory. A weight may arrive
// rounded, too, as the optimizer leaves it (adamw.cpp): half the bytes to read, and the same numbers.
#include "gemm_bf16.h"
#include "linear.h"

// The Matrix of a weight (rows, columns) that must arrive as another one does: in float, or in bf16 by its bits.
template <class S>
Matrix<S> weight_like(Matrix<S>, const char* name, const py::array& weight, int64_t rows, int64_t columns) {
    typedef std::conditional_t<std::is_same_v<S, bf16>, uint16_t, S> Bits;
    return {(const S*)input<Bits>(name, weight, {rows, columns}), columns};
}

// Calls f with the Matrix of a weight, as it arrives.
template <class F>
auto by_weight(const char* name, const py::array& weight, int64_t rows, int64_t columns, F f) {
    if (py::isinstance<py::array_t<uint16_t>>(weight))
        return f(weight_like(Matrix<bf16>{}, name, weight, rows, columns));
    return f(weight_like(Matrix<float>{}, name, weight, rows, columns));
}

template <class S>
Matrix<S> turned(Matrix<S> m) { return {m.data, m.stride, !m.transposed}; }

py::tuple linear_forward_bf16(py::array x, py::array weight, py::array bias) {
    int64_t I = last("x", x), N = rows_of(x);
    const float* px = input<float>("x", x, shape_of(x));
    check_shape("weight", weight, {I, ANY});
    int64_t J = weight.shape(1);
    const float* pb = input<float>("bias", bias, {J});
    auto out = fresh<float>(with_last(x, J));
    auto rounded_x = fresh<uint16_t>(shape_of(x));
    float* po = out.mutable_data();
    bf16* pr = (bf16*)rounded_x.mutable_data();
    by_weight("weight", weight, I, J, [&](auto w) {
        py::gil_scoped_release nogil;
        round_array(pr, px, N * I);
        multiply_bf16(N, J, I, Matrix<bf16>{pr, I}, w, po, J, false, AddBias<float>{pb});
    });
    return py::make_tuple(out, py::make_tuple(rounded_x, weight));
}

py::tuple linear_backward_bf16(py::array dout, py::tuple cache, py::object into) {
    py::array x = cached(cache, 0), weight = cached(cache, 1);
    int64_t I = last("x", x), N = rows_of(x);
    auto* px = (const bf16*)input<uint16_t>("cached x", x, shape_of(x));
    check_shape("weight", weight, {I, ANY});
    int64_t J = weight.shape(1);
    const float* pd = input<float>("dout", dout, with_last(x, J));
    auto dx = fresh<float>(shape_of(x));
    auto d = added_to_all<float>(into, {{I, J}, {J}});                             // dweight, dbias
    float *pdx = dx.mutable_data(), *pdw = d[0].data, *pdb = d[1].data;
    bool add = !into.is_none();
    by_weight("weight", weight, I, J, [&](auto w) {
        py::gil_scoped_release nogil;
        thread_local Scratch<bf16> scratch;
        bf16* rounded_dout = scratch.at_least(N * J);
        round_array(rounded_dout, pd, N * J);
        multiply_bf16(N, I, J, Matrix<bf16>{rounded_dout, J}, turned(w), pdx, I);
        if (pdw) multiply_bf16(I, J, N, Matrix<bf16>{px, I, true}, Matrix<bf16>{rounded_dout, J}, pdw, J, add);
        column_sums(pdb, pd, N, J, add);
    });
    return py::make_tuple(dx, d[0].array, d[1].array);
}

// A product alone, for tests: "dot", "pairs" (the same by float arithmetic), "amx", "amx_emulated".
template <class S>
void product_by(const string& engine, int64_t M, int64_t N, int64_t K, Matrix<S> A, Matrix<S> B, float* C) {
    if (engine == "pairs") return multiply_dot<false>(M, N, K, A, B, C, N, false, Keep());
    if (engine == "amx_emulated") return multiply_packed<Tiles<EmulatedRegisters>>(M, N, K, A, B, C, N, false, Keep());
    if (engine == "dot" && has_dot_instruction()) return multiply_dot<true>(M, N, K, A, B, C, N, false, Keep());
    if (engine == "amx" && has_amx()) return multiply_packed<AmxTiles>(M, N, K, A, B, C, N, false, Keep());
    fail("engine must be one that this machine has: got " + engine);
}

py::array product_bf16(py::array a, py::array b, bool a_transposed, bool b_transposed, const string& engine) {
    check_shape("a", a, {ANY, ANY});
    int64_t M = a.shape(a_transposed), K = a.shape(!a_transposed);
    check_shape("b", b, b_transposed ? Shape{ANY, K} : Shape{K, ANY});
    int64_t N = b.shape(!b_transposed);
    auto c = fresh<float>({M, N});
    if (py::isinstance<py::array_t<uint16_t>>(a)) {                            // bfloat16 by its bits
        auto *pa = input<uint16_t>("a", a, shape_of(a)), *pb = input<uint16_t>("b", b, shape_of(b));
        product_by<bf16>(engine, M, N, K, {(const bf16*)pa, a.shape(1), a_transposed},
                         {(const bf16*)pb, b.shape(1), b_transposed}, c.mutable_data());
    } else {
        const float *pa = input<float>("a", a, shape_of(a)), *pb = input<float>("b", b, shape_of(b));
        product_by<float>(engine, M, N, K, {pa, a.shape(1), a_transposed}, {pb, b.shape(1), b_transposed},
                          c.mutable_data());
    }
    return c;
}

void bind_linear_bf16(py::module_& m) {
    m.def("linear_forward_bf16", &linear_forward_bf16, py::arg("x"), py::arg("weight"), py::arg("bias"));
    m.def("linear_backward_bf16", &linear_backward_bf16, py::arg("dout"), py::arg("cache"), py::arg("into") = py::none());
    m.def("product_bf16", &product_bf16, py::arg("a"), py::arg("b"), py::arg("a_transposed"), py::arg("b_transposed"),
          py::arg("engine"));
}
