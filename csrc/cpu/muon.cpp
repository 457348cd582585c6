// Muon: momentum, five steps of Newton-Schulz, the update of a matrix. Formulas: minillm/ops/optimizer/muon.py.
//
//   m  = momentum * m + (1 - momentum) * g      u  = momentum * m + (1 - momentum) * g      g = grad * scale
//   X  = u / norm(u)                            X <- a X + (b A + c A A) X,  A = X X^T,  five times
//   w <- w * (1 - lr * weight_decay) - lr * 0.2 * sqrt(max(R, K)) * X
//
// A model's matrices are many and often small, where threads that share one product mostly wait. So each matrix goes
// through all of it on one thread, and the threads take matrices, the most expensive first; only where there are fewer
// matrices than threads do all share each product. A product's bits do not depend on its threads, nor do the results.
// A tall matrix is transposed on its way in and out: X (SMALL, LARGE) has the smaller side in its rows.
#include <algorithm>
#include <cmath>

#include "cpu/gemm/matmul.h"
#include "cpu/gemm/matmul_bf16.h"
#include "python/register.h"

namespace minillm::muon {

constexpr double A_1 = 3.4445, A_3 = -4.7750, A_5 = 2.0315, EPSILON = 1e-7, RMS = 0.2;
constexpr int STEPS = 5;

template <class T>
struct Settings {
    T lr, momentum, weight_decay, scale;
};

// One matrix (R, K), whose rows may be apart, as the thirds of c_attn are; m and grad alike. bits: null, or w's bf16 copy.
template <class T>
struct Item {
    T *w, *m;
    const T* grad;
    bf16* bits;
    int64_t R, K, w_stride, m_stride, grad_stride, bits_stride;

    int64_t smaller() const { return std::min(R, K); }
    int64_t larger() const { return std::max(R, K); }
    int64_t cost() const { return smaller() * smaller() * larger(); }
};

struct InFull {
    template <class T>
    static void multiply(int64_t M, int64_t N, int64_t K, const T* A, Matrix<T> B, T* C) {
        matmul<T>(M, N, K, {A, K}, B, C, N);
    }
};
struct InBf16 {
    static void multiply(int64_t M, int64_t N, int64_t K, const float* A, Matrix<float> B, float* C) {
        matmul_bf16(M, N, K, Matrix<float>{A, K}, B, C, N);
    }
};

// X (SMALL, LARGE) <- u, while m moves; returns the sum of squares.
template <class T>
double momentum_step(const Item<T>& item, T* X, const Settings<T>& s) {
    bool wide = item.R <= item.K;
    T rest = 1 - s.momentum;
    double total = 0;
    for (int64_t i = 0; i < item.R; i++) {
        const T* grad = item.grad + i * item.grad_stride;
        T *m = item.m + i * item.m_stride, *x = wide ? X + i * item.K : X + i;
        int64_t step = wide ? 1 : item.R;
        double of_row = 0;
        for (int64_t j = 0; j < item.K; j++) {
            T g = grad[j] * s.scale;
            m[j] = s.momentum * m[j] + rest * g;
            T u = s.momentum * m[j] + rest * g;
            x[j * step] = u;
            of_row += double(u) * u;
        }
        total += of_row;
    }
    return total;
}

// X <- a X + (b A + c A A) X with A = X X^T; B, A (SMALL, SMALL) and Y (SMALL, LARGE) are working memory. The result is in Y.
template <class Product, class T>
void newton_schulz(const T* X, T* Y, T* A, T* B, int64_t small, int64_t large) {
    Product::multiply(small, small, large, X, Matrix<T>{X, large, true}, A);
    Product::multiply(small, small, small, A, Matrix<T>{A, small}, B);
    for (int64_t i = 0; i < small * small; i++) B[i] = T(A_3) * A[i] + T(A_5) * B[i];
    for (int64_t i = 0; i < small; i++) B[i * small + i] += T(A_1);
    Product::multiply(small, large, small, B, Matrix<T>{X, large}, Y);
}

template <class T>
void write_weights(const Item<T>& item, const T* X, const Settings<T>& s) {
    bool wide = item.R <= item.K;
    T kept = 1 - s.lr * s.weight_decay, rate = T(s.lr * T(RMS * std::sqrt(double(item.larger()))));
    for (int64_t i = 0; i < item.R; i++) {
        T* w = item.w + i * item.w_stride;
        const T* x = wide ? X + i * item.K : X + i;
        int64_t step = wide ? 1 : item.R;
        for (int64_t j = 0; j < item.K; j++) w[j] = w[j] * kept - rate * x[j * step];
        if constexpr (std::is_same_v<T, float>)
            if (item.bits) round_range(item.bits + i * item.bits_stride, w, {0, item.K});
    }
}

template <class Product, class T>
void update_one(const Item<T>& item, const Settings<T>& s) {
    thread_local Scratch<T> memory;
    int64_t small = item.smaller(), large = item.larger(), n = small * large;
    T *X = memory.at_least(2 * n + 2 * small * small), *Y = X + n, *A = Y + n, *B = A + small * small;
    T shrink = T(1 / (std::sqrt(momentum_step(item, X, s)) + EPSILON));
    for (int64_t i = 0; i < n; i++) X[i] *= shrink;
    for (int step = 0; step < STEPS; step++) {
        newton_schulz<Product>(X, Y, A, B, small, large);
        std::swap(X, Y);
    }
    write_weights(item, X, s);
}

template <class Product, class T>
void update_all(std::vector<Item<T>>& items, const Settings<T>& s) {
    std::stable_sort(items.begin(), items.end(), [](auto& a, auto& b) { return a.cost() > b.cost(); });
    int64_t n = items.size(), threads = omp_get_max_threads();
    if (n < threads)
        for (const Item<T>& item : items) update_one<Product>(item, s);
    else {
#pragma omp parallel for schedule(dynamic) if (n > 1)
        for (int64_t i = 0; i < n; i++) update_one<Product>(items[i], s);
    }
}

// ---- arguments: arrays (R, K), or lists of as many ----

std::vector<Array> arrays_of(const char* name, const Object& given) {
    auto list = to<List>(given);
    std::vector<Array> found;
    for (int64_t i = 0; i < (list ? list->size() : 1); i++) {
        auto array = to<Array>(list ? (*list)[i] : given);
        if (!array) fail(name, " must be an array, or a list of arrays: got ", list ? (*list)[i] : given);
        found.push_back(*array);
    }
    return found;
}

// The distance of two rows, of an array (R, K) whose rows are each in one piece.
template <class T>
int64_t row_stride(const char* name, const Array& a, const Shape& shape) {
    check_shape(name, a, shape);
    check_dtype(name, a, DTYPE<T>);
    check_aligned(name, a);
    int64_t stride = a.shape[0] > 1 ? a.strides[0] / a.itemsize : a.shape[1];
    if (a.size() > 0 && ((a.shape[1] > 1 && a.strides[1] != a.itemsize) || stride < a.shape[1]))
        fail(name, " must have rows whose numbers lie side by side");
    return stride;
}

template <class T>
T* matrix_in_place(const char* name, const Array& a) {
    if (!a.writeable) fail(name, " must be writeable");
    return static_cast<T*>(a.data);
}

template <class T>
std::vector<Item<T>> items_of(const Object& w, const Object& grad, const Object& m, const Object& bits) {
    std::vector<Array> ws = arrays_of("w", w), grads = arrays_of("grad", grad), ms = arrays_of("m", m);
    std::vector<Array> copies = bits.is_none() ? std::vector<Array>() : arrays_of("bits", bits);
    if (!bits.is_none() && !std::is_same_v<T, float>) fail("bits are of a float32 w: got a w of float64");
    for (auto [name, size] :
         {std::pair{"grad", grads.size()}, {"m", ms.size()}, {"bits", bits.is_none() ? ws.size() : copies.size()}})
        if (size != ws.size())
            fail(name, " must be as many arrays as w: ", int64_t(ws.size()), ", got ", int64_t(size));
    std::vector<Item<T>> items(ws.size());
    for (size_t i = 0; i < items.size(); i++) {
        Item<T>& item = items[i];
        item.w_stride = row_stride<T>("w", ws[i], {ANY, ANY});
        item.R = ws[i].shape[0], item.K = ws[i].shape[1];
        item.grad_stride = row_stride<T>("grad", grads[i], ws[i].shape);
        item.m_stride = row_stride<T>("m", ms[i], ws[i].shape);
        item.w = matrix_in_place<T>("w", ws[i]), item.m = matrix_in_place<T>("m", ms[i]);
        item.grad = static_cast<const T*>(grads[i].data);
        item.bits = nullptr;
        if (copies.empty()) continue;
        item.bits_stride = row_stride<uint16_t>("bits", copies[i], ws[i].shape);
        item.bits = (bf16*)matrix_in_place<uint16_t>("bits", copies[i]);
    }
    return items;
}

template <class Product, class T>
void update_of(const Object& w, const Object& grad, const Object& m, double lr, double momentum, double weight_decay,
               double scale, const Object& bits) {
    if (!(momentum >= 0 && momentum < 1)) fail("momentum must be in [0, 1): got ", momentum);
    auto items = items_of<T>(w, grad, m, bits);
    Settings<T> s{T(lr), T(momentum), T(weight_decay), T(scale)};
    without_gil([&] { update_all<Product>(items, s); });
}

void muon_update(const Object& w, const Object& grad, const Object& m, double lr, double momentum, double weight_decay,
                 double scale, const Object& bits) {
    auto first = arrays_of("w", w);
    if (first.empty()) return;
    by_dtype("w", first[0], [&](auto zero) {
        update_of<InFull, decltype(zero)>(w, grad, m, lr, momentum, weight_decay, scale, bits);
    });
}

const Register registered[] = {
    {"muon_update(w, grad, m, lr, momentum=0.95, weight_decay=0.0, scale=1.0, bits=None)", &muon_update},
    {"muon_update_bf16(w, grad, m, lr, momentum=0.95, weight_decay=0.0, scale=1.0, bits=None)",
     &update_of<InBf16, float>}};

}  // namespace minillm::muon
