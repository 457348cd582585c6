// The tied head and the loss in mixed precision: matmuls in bfloat16. Formulas and plan: linear_cross_entropy.cpp, the twin.
//
// Logits, their maximum and their sums are float; x and wte are rounded on their way into the GEMM, wte unless it arrives as
// its bf16 copy. What the backward needs of a tile of logits is kept, as far as KEPT_BYTES reach, in two bytes
// each, as
//
//   e = exp(z - top), rounded        top: the row's largest logit when the tile was met, one float for a row and tile
//
// from which p = e * exp(top - last top - logsum) has a relative error of 2^-9, whatever the size of z (a rounded z has not).
// Rows beyond that are computed again, to the same e. dz at the target comes from the loss, as exp(-loss) - 1: for a
// likely target it is a small difference, which rounding p first would ruin.
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/linear/bf16_weight.h"
#include "cpu/simd/softmax.h"
#include "python/register.h"

namespace minillm::linear_cross_entropy_bf16 {

constexpr int64_t HEAD_ROWS = ROWS_OF_A, HEAD_COLUMNS = 1024, KEPT_BYTES = 128 << 20;

struct Head {
    const bf16* x;  // (N, C)
    Operand wte;  // (V, C)
    const int64_t* targets;  // (N,)
    int64_t ignore_index, N, V, C;

    int64_t tiles() const { return ceil_div(V, HEAD_COLUMNS); }

    // The place of a row's target among the columns from `column` on, or -1.
    int64_t target(int64_t row, int64_t column, int64_t columns) const {
        int64_t y = targets[row] - column;
        return targets[row] != ignore_index && 0 <= y && y < columns ? y : -1;
    }

    // Rows [row, row + rows) and columns [column, column + columns) of the logits, by GEMM.
    template <class Epilogue>
    void logits(float* z, int64_t row, int64_t rows, int64_t column, int64_t columns, const Epilogue& epilogue) const {
        matmul_bf16(rows, columns, C, Matrix<bf16>{x + row * C, C}, wte.from(column, 0).transpose(), z, columns, false,
                    epilogue);
    }
};

// What the forward leaves for the backward.
struct Cache {
    float* losses;  // (N,)
    RowSums<float> sums;
    float* tops;  // (N, tiles)
    bf16* kept;  // (kept_rows, V): e of the first rows
    int64_t kept_rows;
};

// Rows whose e is kept: all if they fit, else as many blocks of HEAD_ROWS as do.
inline int64_t rows_kept(int64_t N, int64_t V) {
    int64_t fitting = KEPT_BYTES / int64_t(sizeof(bf16)) / std::max<int64_t>(V, 1);
    return N <= fitting ? N : fitting / HEAD_ROWS * HEAD_ROWS;
}

inline Halves rounded_exp(Vec<float> z, float top) { return to_bf16(vexp<float>(z - top)); }

// The sum of exp(z - top) over a tile's row; on its way each goes to e, rounded, unless e is null.
inline float exp_sum(bf16* e, const float* z, float top, int64_t columns) {
    constexpr int64_t W = WIDTH<float>;
    Vec<float> total{};
    for (int64_t j = 0; j < columns; j += W) {
        int64_t n = std::min(W, columns - j);
        Vec<float> v = vexp<float>((n == W ? load(z + j) : load_part(z + j, n, -INFINITY)) - top);
        if (e) store_part(e + j, to_bf16(v), n);
        total += v;
    }
    return sum<float>(total);
}

// Brings a row's running softmax up to date with one more tile.
void add_tile(OnlineSoftmax<float>& row, const float* z, bf16* e, int64_t columns, int64_t target) {
    float larger = std::max(row.top, row_max(z, columns));
    row.total = row.total * std::exp(row.top - larger) + exp_sum(e, z, larger, columns);
    row.top = larger;
    if (target >= 0) row.right = z[target];
}

void forward_rows(const Cache& out, const Head& head, float* z, int64_t row, int64_t rows) {
    std::vector<OnlineSoftmax<float>> softmax(rows);
    for (int64_t tile = 0, column = 0; column < head.V; tile++, column += HEAD_COLUMNS) {
        int64_t columns = std::min(HEAD_COLUMNS, head.V - column);
        head.logits(z, row, rows, column, columns, NoEpilogue());
#pragma omp parallel for if (rows * columns > 4096)
        for (int64_t i = 0; i < rows; i++) {
            bf16* e = row < out.kept_rows ? out.kept + (row + i) * head.V + column : nullptr;
            add_tile(softmax[i], z + i * columns, e, columns, head.target(row + i, column, columns));
            out.tops[(row + i) * head.tiles() + tile] = softmax[i].top;
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        bool ignored = head.targets[row + i] == head.ignore_index;
        out.sums.set(row + i, softmax[i]);
        out.losses[row + i] = ignored ? 0.0f : out.sums.loss(row + i, softmax[i]);
    }
}

void forward_kernel(const Cache& out, const Head& head) {
    thread_local Scratch<float> scratch;
    float* z = scratch.at_least(std::min(HEAD_ROWS, head.N) * std::min(HEAD_COLUMNS, head.V));
    for (int64_t row = 0; row < head.N; row += HEAD_ROWS)
        forward_rows(out, head, z, row, std::min(HEAD_ROWS, head.N - row));
}

// z -> dz = scale * (exp(z - top - logsum) - 1 at the target), rounded, for one tile.
struct Softmax {
    const float *top, *factor, *right;  // of each row: e's top; scale * p / e; dz at the target
    const int64_t* place;  // of the target in the tile, or -1
    bf16* dz;  // (rows, columns)
    int64_t columns;

    void put(Halves e, int64_t row, int64_t column, int64_t n) const {
        Vec<float> d = to_float(e) * factor[row];
        int64_t y = place[row] - column;
        if (place[row] >= 0 && 0 <= y && y < n) d[y] = right[row];
        store_part(dz + row * columns + column, to_bf16(d), n);
    }
    void operator()(Vec<float> z, int64_t row, int64_t column, int64_t n) const {
        put(rounded_exp(z, top[row]), row, column, n);
    }
    // The same from e that was kept.
    void from(const bf16* e, int64_t stride, int64_t rows) const {
        constexpr int64_t W = WIDTH<float>;
#pragma omp parallel for if (rows * columns > 4096)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j += W) {
                int64_t n = std::min(W, columns - j);
                put(load_part(e + i * stride + j, n), i, j, n);
            }
    }
};

// dz of one tile, into dz (rows, columns).
void make_dlogits(bf16* dz, const Cache& cache, const Head& head, const float* dout, int64_t row, int64_t rows,
                  int64_t column, int64_t columns) {
    thread_local Scratch<float> parts;
    std::vector<float> numbers(3 * rows);
    std::vector<int64_t> place(rows);
    float *top = numbers.data(), *factor = top + rows, *right = factor + rows;
    for (int64_t i = 0; i < rows; i++) {
        int64_t n = row + i;
        float scale = head.targets[n] == head.ignore_index ? 0.0f : dout[n];
        top[i] = cache.tops[n * head.tiles() + column / HEAD_COLUMNS];
        factor[i] = scale * std::exp(top[i] - cache.sums.top[n] - cache.sums.logsum[n]);
        right[i] = scale * std::expm1(-cache.losses[n]);
        place[i] = head.target(n, column, columns);
    }
    Softmax softmax{top, factor, right, place.data(), dz, columns};
    if (row < cache.kept_rows) softmax.from(cache.kept + row * head.V + column, head.V, rows);
    else head.logits(parts.at_least(rows * columns), row, rows, column, columns, softmax);
}

// dwte may be null.
void backward_kernel(float* dx, float* dwte, bool add, const float* dout, const Cache& cache, const Head& head) {
    thread_local Scratch<bf16> scratch;
    int64_t C = head.C;
    bf16* dz = scratch.at_least(std::min(HEAD_ROWS, head.N) * std::min(HEAD_COLUMNS, head.V));
    if (head.V == 0) std::fill_n(dx, head.N * C, 0.0f);
    if (dwte && head.N == 0 && !add) std::fill_n(dwte, head.V * C, 0.0f);
    for (int64_t row = 0; row < head.N; row += HEAD_ROWS)
        for (int64_t column = 0; column < head.V; column += HEAD_COLUMNS) {
            int64_t rows = std::min(HEAD_ROWS, head.N - row), columns = std::min(HEAD_COLUMNS, head.V - column);
            make_dlogits(dz, cache, head, dout, row, rows, column, columns);
            matmul_bf16(rows, C, columns, Matrix<bf16>{dz, columns}, head.wte.from(column, 0), dx + row * C, C,
                        column > 0);
            if (!dwte) continue;
            matmul_bf16(columns, C, rows, Matrix<bf16>{dz, columns, true}, Matrix<bf16>{head.x + row * C, C},
                        dwte + column * C, C, add || row > 0);
        }
}

Tuple linear_cross_entropy_forward_bf16(const Array& x, const Array& wte, const Array& targets, int64_t ignore_index) {
    const float* px = input<float>("x", x, {ANY, ANY});
    int64_t N = x.shape[0], C = x.shape[1];
    const Operand w = operand_of("wte", wte, {ANY, C});
    int64_t V = wte.shape[0], kept_rows = rows_kept(N, V);
    if (!V) fail("wte must have at least one row: got ", wte.shape);
    auto checked = ids("targets", targets, {N}, V, &ignore_index);
    auto rounded_x = fresh<uint16_t>({N, C}), kept = fresh<uint16_t>({kept_rows, V});
    auto losses = fresh<float>({N}), top = fresh<float>({N}), logsum = fresh<float>({N}),
         tops = fresh<float>({N, ceil_div(V, HEAD_COLUMNS)});
    Cache cache{losses, {top, logsum}, tops, (bf16*)kept.data, kept_rows};
    bf16* pr = (bf16*)rounded_x.data;
    without_gil([&] {
        round_array(pr, px, N * C);
        forward_kernel(cache, Head{pr, w, checked.data, ignore_index, N, V, C});
    });
    return tuple_of({losses, tuple_of({rounded_x, wte, checked, ignore_index, losses, top, logsum, tops, kept})});
}

// What the forward left, checked; read only, though its type says nothing of that.
Cache cache_left(const Tuple& cache, int64_t N, int64_t V) {
    auto floats = [&](const char* name, int64_t i, const Shape& shape) {
        return const_cast<float*>(input<float>(name, cached(cache, i), shape));
    };
    return {floats("cached losses", 4, {N}),
            {floats("cached top", 5, {N}), floats("cached logsum", 6, {N})},
            floats("cached tops", 7, {N, ceil_div(V, HEAD_COLUMNS)}),
            (bf16*)input<uint16_t>("cached kept", cached(cache, 8), {rows_kept(N, V), V}),
            rows_kept(N, V)};
}

Tuple linear_cross_entropy_backward_bf16(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), wte = cached(cache, 1), targets = cached(cache, 2);
    auto* px = (const bf16*)input<uint16_t>("cached x", x, {ANY, ANY});
    int64_t N = x.shape[0], C = x.shape[1];
    const Operand w = operand_of("wte", wte, {ANY, C});
    int64_t V = wte.shape[0];
    const float* pd = input<float>("dout", dout, {N});
    auto ignore_index = cached<int64_t>(cache, 3);
    auto checked = ids("cached targets", targets, {N}, V, &ignore_index);
    Cache left = cache_left(cache, N, V);
    auto dx = fresh<float>({N, C});
    auto dwte = gradients<float>(into, {{V, C}})[0];
    without_gil([&] {
        backward_kernel(dx.data, dwte.data, !into.is_none(), pd, left, Head{px, w, checked, ignore_index, N, V, C});
    });
    return tuple_of({dx, dwte});
}

const Register registered[] = {
    {"linear_cross_entropy_forward_bf16(x, wte, targets, ignore_index=-1)", &linear_cross_entropy_forward_bf16},
    {"linear_cross_entropy_backward_bf16(dout, cache, into=None)", &linear_cross_entropy_backward_bf16}};

}  // namespace minillm::linear_cross_entropy_bf16
