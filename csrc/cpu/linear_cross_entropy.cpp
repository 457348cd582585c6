// The tied head and the loss as one op. Formulas: minillm/ops/linear_cross_entropy.py and cross_entropy.py.
//
//   z = x @ wte.T (N, V)      loss = logsum + (top - z[y])      dz = dout * (exp(z - top - logsum) - 1[v = y])
//   dx = dz @ wte             dwte = dz.T @ x
//
// Of each row, top (the maximum) and logsum (of exp(z - top)) stay two numbers: next to logits of 1e4 their sum would lose
// the digits of the second.
// The logits exist only as tiles of HEAD_ROWS x HEAD_COLUMNS (4 MB in float), which stay in L2 or L3 between the GEMM that
// makes them and the ones that use them. Forward: each row keeps its maximum so far and its sum of
// exponentials so far, rescaled when a tile brings a larger maximum (the online softmax: Milakov & Gimelshein 2018,
// arXiv 1805.02867). Backward: the GEMM makes a tile again, and its epilogue makes that dz on its way to memory.
// Loop order: blocks of rows > tiles of the vocabulary > GEMMs, or rows of the tile (parallel).
//
// The logits of the first rows, KEPT of them at most, stay in the cache instead: that saves these rows one GEMM of four.
#include "cpu/gemm/matmul.h"
#include "cpu/simd/softmax.h"
#include "python/register.h"

namespace minillm::linear_cross_entropy {

constexpr int64_t HEAD_ROWS = ROWS_OF_A, HEAD_COLUMNS = 1024;
constexpr int64_t KEPT = 1 << 26;  // logits: 1,024 rows of GPT-2's are 206 MB in float

template <class T>
struct Head {
    const T *x, *wte;  // (N, C), (V, C)
    const int64_t* targets;  // (N,)
    int64_t ignore_index, N, V, C;
};

// Rows whose logits are kept: all if they fit, else as many blocks of HEAD_ROWS as do.
inline int64_t rows_kept(int64_t N, int64_t V) {
    int64_t fitting = KEPT / std::max<int64_t>(V, 1);
    return N <= fitting ? N : fitting / HEAD_ROWS * HEAD_ROWS;
}

// Kept logits (rows, V).
template <class T>
struct Kept {
    T* logits;
    int64_t rows;
    T* of(int64_t row) const { return row < rows ? logits : nullptr; }
};

// A tile of logits: rows [row, row + rows), columns [column, column + columns), `stride` apart in memory.
template <class T>
struct LogitTile {
    T* z;
    int64_t stride, row, rows, column, columns;

    // Row `row` and column `column` of the whole, where the tile lies in kept (N, V), or in scratch if kept is null.
    static LogitTile at(const Head<T>& head, T* kept, int64_t row, int64_t column) {
        thread_local Scratch<T> scratch;
        int64_t rows = std::min(HEAD_ROWS, head.N - row), columns = std::min(HEAD_COLUMNS, head.V - column);
        if (kept) return {kept + row * head.V + column, head.V, row, rows, column, columns};
        return {scratch.at_least(HEAD_COLUMNS * rows), columns, row, rows, column, columns};
    }

    // The place of the row's target in the tile, or -1.
    int64_t target(const Head<T>& head, int64_t i) const {
        int64_t y = head.targets[row + i] - column;
        return head.targets[row + i] != head.ignore_index && 0 <= y && y < columns ? y : -1;
    }

    template <class Epilogue = NoEpilogue>
    void fill(const Head<T>& head, const Epilogue& epilogue = Epilogue()) const {
        matmul<T>(rows, columns, head.C, {head.x + row * head.C, head.C}, {head.wte + column * head.C, head.C, true}, z,
                  stride, false, epilogue);
    }
};

template <class T>
void forward_kernel(T* losses, RowSums<T> sums, Kept<T> kept, const Head<T>& head) {
    for (int64_t row = 0; row < head.N; row += HEAD_ROWS) {
        std::vector<OnlineSoftmax<T>> rows(std::min(HEAD_ROWS, head.N - row));
        for (int64_t column = 0; column < head.V; column += HEAD_COLUMNS) {
            auto tile = LogitTile<T>::at(head, kept.of(row), row, column);
            tile.fill(head);
#pragma omp parallel for if (tile.rows * tile.columns > 4096)
            for (int64_t i = 0; i < tile.rows; i++)
                rows[i].add(tile.z + i * tile.stride, tile.columns, tile.target(head, i));
        }
        for (size_t i = 0; i < rows.size(); i++) {
            bool ignored = head.targets[row + i] == head.ignore_index;
            sums.set(row + i, rows[i]);
            losses[row + i] = ignored ? T(0) : sums.loss(row + i, rows[i]);
        }
    }
}

// z -> dout * exp(z - top - logsum): dz but for the 1 of the target. scale: dout, or 0 in ignored rows.
template <class T>
struct Softmax {
    const T *top, *logsum, *scale;
    Vec<T> operator()(Vec<T> z, int64_t row, int64_t, int64_t) const {
        return vexp<T>(z - top[row] - logsum[row]) * scale[row];
    }
};

// dz of one tile: made again by the GEMM, or from the kept logits.
template <class T>
void make_dlogits(const LogitTile<T>& dz, const Head<T>& head, const T* kept, RowSums<T> sums, const T* scale) {
    constexpr int64_t W = WIDTH<T>;
    Softmax<T> softmax{sums.top + dz.row, sums.logsum + dz.row, scale + dz.row};
    if (!kept) dz.fill(head, softmax);
#pragma omp parallel for if (dz.rows * dz.columns > 4096)
    for (int64_t i = 0; i < dz.rows; i++) {
        const T* z = kept + (dz.row + i) * head.V + dz.column;
        T* to = dz.z + i * dz.stride;
        int64_t j = 0;
        for (; kept && j + W <= dz.columns; j += W) store(to + j, softmax(load(z + j), i, j, W));
        if (int64_t n = dz.columns - j; kept && n) store_part(to + j, softmax(load_part(z + j, n), i, j, n), n);
        if (int64_t y = dz.target(head, i); y >= 0) dz.z[i * dz.stride + y] -= scale[dz.row + i];
    }
}

// dwte may be null: then one of the three GEMMs falls away.
template <class T>
void backward_kernel(T* dx, T* dwte, bool add, const T* dout, RowSums<T> sums, Kept<const T> kept,
                     const Head<T>& head) {
    int64_t C = head.C;
    std::vector<T> scale(head.N);
    for (int64_t n = 0; n < head.N; n++) scale[n] = head.targets[n] == head.ignore_index ? T(0) : dout[n];
    if (head.V == 0) std::fill_n(dx, head.N * C, T(0));
    if (dwte && head.N == 0 && !add) std::fill_n(dwte, head.V * C, T(0));
    for (int64_t row = 0; row < head.N; row += HEAD_ROWS)
        for (int64_t column = 0; column < head.V; column += HEAD_COLUMNS) {
            auto dz = LogitTile<T>::at(head, nullptr, row, column);
            make_dlogits(dz, head, kept.of(row), sums, scale.data());
            matmul<T>(dz.rows, C, dz.columns, {dz.z, dz.stride}, {head.wte + column * C, C}, dx + row * C, C,
                      column > 0);
            if (!dwte) continue;
            matmul<T>(dz.columns, C, dz.rows, {dz.z, dz.stride, true}, {head.x + row * C, C}, dwte + column * C, C,
                      add || row > 0);
        }
}

Tuple linear_cross_entropy_forward(const Array& x, const Array& wte, const Array& targets, int64_t ignore_index) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        const T* px = input<T>("x", x, {ANY, ANY});
        int64_t N = x.shape[0], C = x.shape[1];
        const T* pw = input<T>("wte", wte, {ANY, C});
        int64_t V = wte.shape[0];
        if (!V) fail("wte must have at least one row: got ", wte.shape);
        auto checked = ids("targets", targets, {N}, V, &ignore_index);
        int64_t rows = rows_kept(N, V);
        auto losses = fresh<T>({N}), top = fresh<T>({N}), logsum = fresh<T>({N}), logits = fresh<T>({rows, V});
        Head<T> head{px, pw, checked, ignore_index, N, V, C};
        without_gil([&] { forward_kernel<T>(losses, {top, logsum}, {logits, rows}, head); });
        return tuple_of({losses, tuple_of({x, wte, checked, ignore_index, top, logsum, logits})});
    });
}

Tuple linear_cross_entropy_backward(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), wte = cached(cache, 1), targets = cached(cache, 2), top = cached(cache, 4),
          logsum = cached(cache, 5), logits = cached(cache, 6);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        const T* px = input<T>("x", x, {ANY, ANY});
        int64_t N = x.shape[0], C = x.shape[1];
        const T* pw = input<T>("wte", wte, {ANY, C});
        int64_t V = wte.shape[0];
        const T *pd = input<T>("dout", dout, {N}), *pm = input<T>("cached top", top, {N}),
                *ps = input<T>("cached logsum", logsum, {N}),
                *pl = input<T>("cached logits", logits, {rows_kept(N, V), V});
        auto ignore_index = cached<int64_t>(cache, 3);
        auto checked = ids("cached targets", targets, {N}, V, &ignore_index);
        Head<T> head{px, pw, checked, ignore_index, N, V, C};
        RowSums<T> sums{const_cast<T*>(pm), const_cast<T*>(ps)};  // read only
        auto dx = fresh<T>({N, C});
        auto dwte = gradients<T>(into, {{V, C}})[0];
        without_gil([&] { backward_kernel<T>(dx, dwte, !into.is_none(), pd, sums, {pl, rows_kept(N, V)}, head); });
        return tuple_of({dx, dwte});
    });
}

const Register registered[] = {
    {"linear_cross_entropy_forward(x, wte, targets, ignore_index=-1)", &linear_cross_entropy_forward},
    {"linear_cross_entropy_backward(dout, cache, into=None)", &linear_cross_entropy_backward}};

}  // namespace minillm::linear_cross_entropy
