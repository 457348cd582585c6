// Distillation, row by row. Formulas and derivation: minillm/ops/distillation_loss.py.
//
//   Q1 = softmax(z),  Q = softmax(z / T),  P = softmax(u / T)         z the student's logits, u the teacher's
//   loss = (1 - w) (-log Q1[y]) + w T^2 sum over v of P[v] (log P[v] - log Q[v])
//   dz   = dout ((1 - w) (Q1 - 1[v = y]) + w T (Q - P))
//
// A softmax of a row is two numbers, its largest logit and the log of a sum: log softmax(z / T)[v] = (z[v] - top) / T - logsum.
// Forward finds them for all three and adds up the divergence; the two rows stay in the core's cache over these passes.
// Backward is one pass, which makes the probabilities again: keeping them would be three times the logits. Parallel
// over rows.
#include "cpu/isa/threads.h"
#include "cpu/simd/softmax.h"
#include "python/register.h"

namespace minillm::distillation_loss {

// log softmax(z / T) of one row, as a function of z.
template <class T>
struct LogSoftmax {
    T top, scale, logsum;  // scale = 1 / T

    LogSoftmax(T top, T scale, T logsum) : top(top), scale(scale), logsum(logsum) {}

    LogSoftmax(const T* z, T temperature, int64_t V) : top(row_max(z, V)), scale(1 / temperature) {
        logsum = std::log(row_exp_sum(z, top, V, scale));
    }
    Vec<T> operator()(Vec<T> z) const { return (z - top) * scale - logsum; }
    T operator()(T z) const { return (z - top) * scale - logsum; }
};

// The three of one row, and how they are kept for the backward: five rows of numbers, of N each.
template <class T>
struct ThreeSoftmaxes {
    LogSoftmax<T> hard, soft, teacher;

    ThreeSoftmaxes(const T* z, const T* u, T temperature, int64_t V)
        : hard(z, T(1), V),
          soft(temperature == 1 ? hard : LogSoftmax<T>(z, temperature, V)),
          teacher(u, temperature, V) {}

    ThreeSoftmaxes(const T* kept, T temperature, int64_t n, int64_t N)
        : hard(kept[n], T(1), kept[N + n]),
          soft(kept[n], 1 / temperature, kept[2 * N + n]),
          teacher(kept[3 * N + n], 1 / temperature, kept[4 * N + n]) {}

    void keep(T* kept, int64_t n, int64_t N) const {
        kept[n] = hard.top, kept[N + n] = hard.logsum, kept[2 * N + n] = soft.logsum;
        kept[3 * N + n] = teacher.top, kept[4 * N + n] = teacher.logsum;
    }
};

// KL(P || Q), in pieces, to keep the sum's rounding small.
template <class T>
T divergence(const T* z, const T* u, const ThreeSoftmaxes<T>& of, int64_t V) {
    constexpr int64_t PIECE = 64 * WIDTH<T>;
    T total = 0;
    for (int64_t begin = 0; begin < V; begin += PIECE) {
        Vec<T> piece{};
        for (int64_t i = begin; i < std::min(V, begin + PIECE); i += WIDTH<T>) {
            int64_t n = std::min(WIDTH<T>, V - i);
            Vec<T> log_p = of.teacher(load_part(u + i, n)),
                   part = vexp<T>(log_p) * (log_p - of.soft(load_part(z + i, n)));
            for (int64_t lane = n; lane < WIDTH<T>; lane++) part[lane] = 0;
            piece += part;
        }
        total += sum<T>(piece);
    }
    return total;
}

template <class T>
struct Distillation {
    const T *logits, *teacher;  // (N, V)
    const int64_t* targets;  // (N,)
    T temperature, weight;
    int64_t ignore_index, N, V;
};

template <class T>
void forward_kernel(T* losses, T* kept, const Distillation<T>& d) {
#pragma omp parallel for if (d.N * d.V > 4096)
    for (int64_t n = 0; n < d.N; n++) {
        const T *z = d.logits + n * d.V, *u = d.teacher + n * d.V;
        ThreeSoftmaxes<T> of(z, u, d.temperature, d.V);
        of.keep(kept, n, d.N);
        losses[n] = 0;
        if (d.targets[n] != d.ignore_index)
            losses[n] = (1 - d.weight) * -of.hard(z[d.targets[n]]) +
                        d.weight * d.temperature * d.temperature * divergence(z, u, of, d.V);
    }
}

template <class T>
void backward_row(T* dz, const T* z, const T* u, int64_t target, const ThreeSoftmaxes<T>& of, T dout, T hard, T soft,
                  int64_t V) {
    T right = vexp<T>(splat<T>(of.hard(z[target])))[0];
    for (int64_t i = 0; i < V; i += WIDTH<T>) {
        int64_t n = std::min(WIDTH<T>, V - i);
        Vec<T> zi = load_part(z + i, n), ui = load_part(u + i, n);
        Vec<T> difference = vexp<T>(of.soft(zi)) - vexp<T>(of.teacher(ui));
        store_part(dz + i, (vexp<T>(of.hard(zi)) * hard + difference * soft) * dout, n);
    }
    T difference = vexp<T>(splat<T>(of.soft(z[target])))[0] - vexp<T>(splat<T>(of.teacher(u[target])))[0];
    dz[target] = ((right - 1) * hard + difference * soft) * dout;
}

template <class T>
void backward_kernel(T* dlogits, const T* dout, const T* kept, const Distillation<T>& d) {
#pragma omp parallel for if (d.N * d.V > 4096)
    for (int64_t n = 0; n < d.N; n++) {
        if (d.targets[n] == d.ignore_index) std::fill_n(dlogits + n * d.V, d.V, T(0));
        else
            backward_row(dlogits + n * d.V, d.logits + n * d.V, d.teacher + n * d.V, d.targets[n],
                         ThreeSoftmaxes<T>(kept, d.temperature, n, d.N), dout[n], 1 - d.weight,
                         d.weight * d.temperature, d.V);
    }
}

// The arrays and numbers of both directions, checked. `targets` are already.
template <class T>
Distillation<T> distillation(const Array& logits, const Array& teacher, const int64_t* targets, double temperature,
                             double weight, int64_t ignore_index) {
    const T* pz = input<T>("logits", logits, {ANY, ANY});
    int64_t N = logits.shape[0], V = logits.shape[1];
    if (!V) fail("logits must have at least one column: got ", logits.shape);
    const T* pu = input<T>("teacher", teacher, {N, V});
    if (!(temperature > 0 && std::isfinite(temperature)))
        fail("temperature must be a number above 0: got ", temperature);
    if (!(weight >= 0 && weight <= 1)) fail("weight must be in [0, 1]: got ", weight);
    return {pz, pu, targets, T(temperature), T(weight), ignore_index, N, V};
}

Tuple distillation_loss_forward(const Array& logits, const Array& teacher, const Array& targets, double temperature,
                                double weight, int64_t ignore_index) {
    return by_dtype("logits", logits, [&](auto zero) {
        using T = decltype(zero);
        check_shape("logits", logits, {ANY, ANY});
        int64_t N = logits.shape[0];
        auto checked = ids("targets", targets, {N}, logits.shape[1], &ignore_index);
        auto d = distillation<T>(logits, teacher, checked, temperature, weight, ignore_index);
        auto losses = fresh<T>({N}), kept = fresh<T>({5, N});
        without_gil([&] { forward_kernel<T>(losses, kept, d); });
        return tuple_of({losses, tuple_of({logits, teacher, checked, kept, temperature, weight, ignore_index})});
    });
}

Object distillation_loss_backward(const Array& dout, const Tuple& cache) {
    Array logits = cached(cache, 0), teacher = cached(cache, 1), targets = cached(cache, 2), kept = cached(cache, 3);
    check_shape("logits", logits, {ANY, ANY});
    auto temperature = cached<double>(cache, 4), weight = cached<double>(cache, 5);
    auto ignore_index = cached<int64_t>(cache, 6);
    return by_dtype("logits", logits, [&](auto zero) -> Object {
        using T = decltype(zero);
        int64_t N = logits.shape[0], V = logits.shape[1];
        const T *pd = input<T>("dout", dout, {N}), *pk = input<T>("cached sums", kept, {5, N});
        auto checked = ids("targets", targets, {N}, V, &ignore_index);
        auto d = distillation<T>(logits, teacher, checked, temperature, weight, ignore_index);
        auto dlogits = fresh<T>({N, V});
        without_gil([&] { backward_kernel<T>(dlogits, pd, pk, d); });
        return dlogits;
    });
}

const Register registered[] = {
    {"distillation_loss_forward(logits, teacher, targets, temperature=1.0, weight=0.9, ignore_index=-1)",
     &distillation_loss_forward},
    {"distillation_loss_backward(dout, cache)", &distillation_loss_backward}};

}  // namespace minillm::distillation_loss
