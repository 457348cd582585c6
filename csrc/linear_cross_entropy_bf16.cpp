// The tied head and the loss with products in bfloat16. Formulas and plan: linear_cross_entropy.cpp, the twin of this.
//
// Logits, their maximum and their sums are float; x and wte are rounded on their way into the product. Going back, a
// tile of dz is rounded as it is made, after the 1 of the target is taken away: p - 1 of a likely target is a small
// difference, which rounding p first would ruin. Small problems keep their logits, as there.
#include "gemm_bf16.h"
#include "ids.h"
#include "linear.h"
#include "vecmath.h"

constexpr int64_t HEAD_COLUMNS_BF16 = 1024;

struct HeadBf16 {
    const bf16* x;                    // (N, C)
    const float* wte;                 // (V, C)
    const int64_t* targets;           // (N,)
    int64_t ignore_index, N, V, C;

    // The product of rows [row, row + rows) and columns [column, column + columns) of the logits.
    template <class Finish>
    void logits(float* z, int64_t stride, int64_t row, int64_t rows, int64_t column, int64_t columns,
                const Finish& finish) const {
        multiply_bf16(rows, columns, C, Matrix<bf16>{x + row * C, C}, Matrix<float>{wte + column * C, C, true}, z,
                      stride, false, finish);
    }
};

// kept: (N, V) for all logits, or null.
void head_forward_bf16_kernel(float* losses, RowSums<float> sums, float* kept, const HeadBf16& head) {
    thread_local Scratch<float> scratch;
    float* tile = kept ? nullptr : scratch.at_least(std::min(HEAD_ROWS, head.N) * std::min(HEAD_COLUMNS_BF16, head.V));
    for (int64_t row = 0; row < head.N; row += HEAD_ROWS) {
        int64_t rows = std::min(HEAD_ROWS, head.N - row);
        std::vector<OnlineSoftmax<float>> softmax(rows);
        for (int64_t column = 0; column < head.V; column += HEAD_COLUMNS_BF16) {
            int64_t columns = std::min(HEAD_COLUMNS_BF16, head.V - column);
            int64_t stride = kept ? head.V : columns;
            float* z = kept ? kept + row * head.V + column : tile;
            head.logits(z, stride, row, rows, column, columns, Keep());
#pragma omp parallel for if (rows * columns > 4096)
            for (int64_t i = 0; i < rows; i++) {
                int64_t y = head.targets[row + i] - column;
                bool here = head.targets[row + i] != head.ignore_index && 0 <= y && y < columns;
                softmax[i].add(z + i * stride, columns, here ? y : -1);
            }
        }
        for (int64_t i = 0; i < rows; i++) {
            sums.set(row + i, softmax[i]);
            losses[row + i] = head.targets[row + i] == head.ignore_index ? 0.0f : sums.loss(row + i, softmax[i]);
        }
    }
}

// z -> dz = scale * (exp(z - top - logsum) - 1 at the target), rounded. scale: dout, or 0 in ignored rows.
struct SoftmaxBf16 {
    const float *top, *logsum, *scale;
    const int64_t* targets;
    bf16* dz;
    int64_t first_column, columns;
    void operator()(Vec<float> z, int64_t row, int64_t column, int64_t n) const {
        Vec<float> d = vexp<float>(z - top[row] - logsum[row]) * scale[row];
        int64_t y = targets[row] - first_column - column;
        if (0 <= y && y < n) d[y] -= scale[row];
        store_part(dz + row * columns + column, to_bf16(d), n);
    }
};

// finish of logits that were kept, where otherwise the product that makes them again calls it.
void finish_kept(const float* z, int64_t stride, int64_t rows, int64_t columns, const SoftmaxBf16& finish) {
    constexpr int64_t W = WIDTH<float>;
#pragma omp parallel for if (rows * columns > 4096)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += W) {
            int64_t n = std::min(W, columns - j);
            finish(load_part(z + i * stride + j, n), i, j, n);
        }
}

void head_backward_bf16_kernel(float* dx, float* dwte, bool add, const float* dout, RowSums<float> sums, const float* kept,
                               const HeadBf16& head) {
    thread_local Scratch<bf16> scratch;
    thread_local Scratch<float> parts;
    int64_t C = head.C, most = std::min(HEAD_ROWS, head.N) * std::min(HEAD_COLUMNS_BF16, head.V);
    bf16* dz = scratch.at_least(most);                                             // (rows, columns)
    std::vector<float> scale(head.N);
    for (int64_t n = 0; n < head.N; n++) scale[n] = head.targets[n] == head.ignore_index ? 0.0f : dout[n];
    if (head.V == 0) std::fill_n(dx, head.N * C, 0.0f);
    if (head.N == 0 && !add) std::fill_n(dwte, head.V * C, 0.0f);
    for (int64_t row = 0; row < head.N; row += HEAD_ROWS)
        for (int64_t column = 0; column < head.V; column += HEAD_COLUMNS_BF16) {
            int64_t rows = std::min(HEAD_ROWS, head.N - row), columns = std::min(HEAD_COLUMNS_BF16, head.V - column);
            SoftmaxBf16 softmax{sums.top + row, sums.logsum + row, &scale[row], head.targets + row, dz, column, columns};
            if (kept) finish_kept(kept + row * head.V + column, head.V, rows, columns, softmax);
            else head.logits(parts.at_least(most), columns, row, rows, column, columns, softmax);
            multiply_bf16(rows, C, columns, Matrix<bf16>{dz, columns}, Matrix<float>{head.wte + column * C, C},
                          dx + row * C, C, column > 0);
            multiply_bf16(columns, C, rows, Matrix<bf16>{dz, columns, true}, Matrix<bf16>{head.x + row * C, C},
                          dwte + column * C, C, add || row > 0);
        }
}

py::tuple linear_cross_entropy_forward_bf16(py::array x, py::array wte, py::array targets, int64_t ignore_index) {
    const float* px = input<float>("x", x, {ANY, ANY});
    int64_t N = x.shape(0), C = x.shape(1);
    const float* pw = input<float>("wte", wte, {ANY, C});
    int64_t V = wte.shape(0);
    auto checked = ids("targets", targets, {N}, V, &ignore_index);
    bool keep = N * V <= KEPT_BYTES / int64_t(sizeof(float));
    auto losses = fresh<float>({N}), top = fresh<float>({N}), logsum = fresh<float>({N}),
         logits = fresh<float>({keep ? N : 0, V});
    auto rounded_x = fresh<uint16_t>({N, C});
    bf16* pr = (bf16*)rounded_x.mutable_data();
    HeadBf16 head{pr, pw, checked.data(), ignore_index, N, V, C};
    RowSums<float> sums{top.mutable_data(), logsum.mutable_data()};
    float *pl = losses.mutable_data(), *kept = keep ? logits.mutable_data() : nullptr;
    {
        py::gil_scoped_release nogil;
        round_array(pr, px, N * C);
        head_forward_bf16_kernel(pl, sums, kept, head);
    }
    return py::make_tuple(losses, py::make_tuple(rounded_x, wte, checked, ignore_index, top, logsum, logits));
}

py::tuple linear_cross_entropy_backward_bf16(py::array dout, py::tuple cache, py::object into) {
    py::array x = cache[0], wte = cache[1], targets = cache[2], top = cache[4], logsum = cache[5], logits = cache[6];
    int64_t N = x.shape(0), C = x.shape(1), V = wte.shape(0);
    const float* pd = input<float>("dout", dout, {N});
    HeadBf16 head{(const bf16*)x.data(), (const float*)wte.data(), (const int64_t*)targets.data(),
                  cache[3].cast<int64_t>(), N, V, C};
    RowSums<float> sums{(float*)top.data(), (float*)logsum.data()};               // read only
    auto* kept = logits.shape(0) ? (const float*)logits.data() : nullptr;
    auto dx = fresh<float>({N, C}), dwte = added_to<float>(into, {V, C}, [&] { return fresh<float>({V, C}); });
    bool add = !into.is_none();
    float *pdx = dx.mutable_data(), *pdw = dwte.mutable_data();
    {
        py::gil_scoped_release nogil;
        head_backward_bf16_kernel(pdx, pdw, add, pd, sums, kept, head);
    }
    return py::make_tuple(dx, dwte);
}

void bind_linear_cross_entropy_bf16(py::module_& m) {
    m.def("linear_cross_entropy_forward_bf16", &linear_cross_entropy_forward_bf16, py::arg("x"), py::arg("wte"),
          py::arg("targets"), py::arg("ignore_index") = -1);
    m.def("linear_cross_entropy_backward_bf16", &linear_cross_entropy_backward_bf16, py::arg("dout"), py::arg("cache"),
          py::arg("into") = py::none());
}
