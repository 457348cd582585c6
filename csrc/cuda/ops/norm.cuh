// LayerNorm and RMSNorm, with the residual addition before them or without. Formulas: minillm/ops/layernorm.py,
// rmsnorm.py and residual_layernorm.py. One source for the four ops: CENTRED says whether there are a mean and a bias.
//
//   s = x + y               mean = sum(s) / C               rstd = 1 / sqrt(sum((s - mean)^2) / C + eps)
//   xhat = (s - mean) * rstd                                out = xhat * weight + bias
//
//   g = dout * weight       dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsum
//   dbias = sum over rows of dout                           dweight = sum over rows of dout * xhat
//
// Memory-bandwidth bound: what counts is how often each array is read. norm_naive.cuh is the step before. Here:
//   - A team of lanes takes a row together, four neighbours a lane (coalesced, vectorised): a warp where a row is 4 KB
//     or less, so that nothing has to wait for other warps; eight warps where it is more.
//   - A row that is needed again stays in shared memory. Each lane reads only what it wrote, so no barrier is needed.
//   - Fused: the addition, the statistics and the result are one pass; and so are dx, dweight and dbias, for which dout
//     and x are read once. A block adds up dweight and dbias of all its rows and writes them once, and column_sums adds
//     those of the blocks up. The order of these sums depends on sizes and alignment alone: the same bits every time.
// Grid: the rows, a team each; of the backward at most 512 blocks, some four a multiprocessor of the largest GPUs.
#pragma once

#include <algorithm>

#include "cuda/gpu/device.h"
#include "cuda/gpu/shared_limit.h"
#include "cuda/ops/elementwise.cuh"
#include "cuda/ops/reduce.cuh"

namespace minillm::cuda {
constexpr int64_t WARP_BYTES = 4 << 10;  // a row up to this long is one warp's
constexpr int64_t MOST_BLOCKS = 512;  // of the backward
constexpr int64_t MOST_PARTS = 1 << 24;  // numbers that they leave, about

// What a kernel is compiled for. WARPS: of a team; TEAMS: of a block, which take a row each. ALIGNED: load4 will do.
template <int WARPS_, bool ALIGNED_>
struct Lanes {
    static constexpr int WARPS = WARPS_, LANES = 32 * WARPS, TEAMS = WARPS == 1 ? 4 : 1, THREADS = LANES * TEAMS;
    static constexpr int STEP = 4 * LANES;
    static constexpr bool ALIGNED = ALIGNED_;
};
inline int64_t padded(int64_t C) { return (C + 3) / 4 * 4; }

template <class T>
struct NormForward {  // y may be null: then there is no s
    const T *x, *y, *weight, *bias;
    T *s, *out, *mean, *rstd;
    T eps;
    int64_t N, C, width;  // width: C rounded up to a multiple of 4
    bool kept;  // rows fit into shared memory
};

template <class T>
struct NormBackward {  // dsum may be null
    const T *dsum, *dout, *x, *weight, *mean, *rstd;
    T *dx, *parts;  // parts: (count, dweight | dbias, width)
    int64_t N, C;
    int64_t width, blocks, count;  // these and the following: see `plan`
    size_t shared;
    bool aligned, kept;
};

template <class T>
DEVICE T sum_of(const Vec4<T>& v) {
    return (v.x + v.y) + (v.z + v.w);
}
// The squared distances of those numbers that are among the `left` ones before the row's end.
template <class T>
DEVICE T squares_of(const Vec4<T>& v, T mean, int64_t left) {
    const T a = v.x - mean, b = left > 1 ? v.y - mean : 0, c = left > 2 ? v.z - mean : 0, d = left > 3 ? v.w - mean : 0;
    return (a * a + b * b) + (c * c + d * d);
}

template <class T, bool CENTRED, class L>
__global__ void norm_forward(NormForward<T> a) {
    SHARED(T, room);  // 8 numbers for block_sum, then the teams' rows
    const int team = threadIdx.x / L::LANES, first = 4 * (threadIdx.x % L::LANES);
    const int64_t n = int64_t(blockIdx.x) * L::TEAMS + team, C = a.C;
    if (n >= a.N) return;  // the whole team
    const auto of = [&](auto* array) { return row_of(array + n * C, C, L::ALIGNED); };
    const auto weight = row_of(a.weight, C, L::ALIGNED), bias = row_of(a.bias, C, L::ALIGNED);
    const Row<T> copy{room + 8 + team * a.width, a.width, true};

    T sum = 0;
    UNROLL_4_FOR (int64_t i = first; i < C; i += L::STEP) {
        Vec4<T> v = of(a.x).get(i);
        if (a.y) {
            v = map4([](T x, T y) { return x + y; }, v, of(a.y).get(i));
            of(a.s).put(i, v);
        }
        if (a.kept) copy.put(i, v);
        sum += CENTRED ? sum_of(v) : squares_of(v, T(0), C - i);
    }
    const Row<T> s = a.kept ? copy : of(a.y ? a.s : const_cast<T*>(a.x));  // as one that is written: so s is
    T mean = 0, square = block_sum<L::WARPS>(sum, room) / C;
    if (CENTRED) {
        mean = square;
        sum = 0;
        for (int64_t i = first; i < C; i += L::STEP) sum += squares_of(s.get(i), mean, C - i);
        square = block_sum<L::WARPS>(sum, room) / C;
    }
    const T rstd = 1 / sqrt(square + a.eps);
    UNROLL_4_FOR (int64_t i = first; i < C; i += L::STEP) {
        Vec4<T> v = map4([=](T x, T w) { return (x - mean) * rstd * w; }, s.get(i), weight.get(i));
        if (CENTRED) v = map4([](T x, T b) { return x + b; }, v, bias.get(i));
        of(a.out).put(i, v);
    }
    if (first == 0) {
        if (CENTRED) a.mean[n] = mean;
        a.rstd[n] = rstd;
    }
}

// A block takes rows blockIdx.x * TEAMS + team, and every gridDim.x * TEAMS further. Shared memory: 8 numbers for
// block_sum; then, if `kept`, of each team its part of dweight and of dbias, and dout and xhat of the row at hand.
// Where that does not fit, the parts are added up in device memory.
template <class T, bool CENTRED, class L>
__global__ void norm_backward(NormBackward<T> a) {
    SHARED(T, room);
    const int team = threadIdx.x / L::LANES, first = 4 * (threadIdx.x % L::LANES);
    const int64_t C = a.C, W = a.width, start = int64_t(blockIdx.x) * L::TEAMS + team;
    T* mine = room + 8 + team * 4 * W;
    const Row<T> dweight{a.kept ? mine : a.parts + start * 2 * W, W, true}, dbias{dweight.data + W, W, true};
    const Row<T> kept_dout{mine + 2 * W, W, true}, kept_xhat{mine + 3 * W, W, true};
    const auto weight = row_of(a.weight, C, L::ALIGNED);
    const auto plus = [](T x, T y) { return x + y; };
    const auto times = [](T x, T y) { return x * y; };
    for (int64_t i = first; i < C; i += L::STEP) {
        dweight.put(i, {});
        dbias.put(i, {});
    }
    for (int64_t n = start; n < a.N; n += int64_t(gridDim.x) * L::TEAMS) {
        const auto of = [&](auto* array) { return row_of(array + n * C, C, L::ALIGNED); };
        const T mean = CENTRED ? a.mean[n] : T(0), rstd = a.rstd[n];
        const auto normalised = [=](T x) { return (x - mean) * rstd; };
        T g_sum = 0, gx_sum = 0;
        UNROLL_4_FOR (int64_t i = first; i < C; i += L::STEP) {
            const Vec4<T> d = of(a.dout).get(i), xhat = map4(normalised, of(a.x).get(i));
            const Vec4<T> g = map4(times, d, weight.get(i));
            if (a.kept) {
                kept_dout.put(i, d);
                kept_xhat.put(i, xhat);
            }
            dweight.put(i, map4(plus, dweight.get(i), map4(times, d, xhat)));
            if (CENTRED) dbias.put(i, map4(plus, dbias.get(i), d));
            if (CENTRED) g_sum += sum_of(g);
            gx_sum += sum_of(map4(times, g, xhat));
        }
        const T g_mean = CENTRED ? block_sum<L::WARPS>(g_sum, room) / C : T(0);
        const T gx_mean = block_sum<L::WARPS>(gx_sum, room) / C;
        UNROLL_4_FOR (int64_t i = first; i < C; i += L::STEP) {
            const Vec4<T> d = a.kept ? kept_dout.get(i) : of(a.dout).get(i);
            const Vec4<T> xhat = a.kept ? kept_xhat.get(i) : map4(normalised, of(a.x).get(i));
            Vec4<T> dx =
                map4([=](T d, T w, T x) { return (d * w - g_mean - x * gx_mean) * rstd; }, d, weight.get(i), xhat);
            if (a.dsum) dx = map4(plus, dx, of(a.dsum).get(i));
            of(a.dx).put(i, dx);
        }
    }
    if (!a.kept) return;
    __syncthreads();
    for (int64_t i = 4 * threadIdx.x; i < 2 * W; i += 4 * L::THREADS) {
        Vec4<T> total = load4(room + 8 + i);
        for (int other = 1; other < L::TEAMS; other++) total = map4(plus, total, load4(room + 8 + other * 4 * W + i));
        store4(a.parts + int64_t(blockIdx.x) * 2 * W + i, total);
    }
}

// ---- launchers ----

// Call f with the lanes for rows of C numbers. Unaligned rows, which are slow anyway, always get a warp each.
template <class T, class F>
void by_lanes(bool aligned, int64_t C, F f) {
    if (!aligned) f(Lanes<1, false>());
    else if (C * int64_t(sizeof(T)) <= WARP_BYTES) f(Lanes<1, true>());
    else f(Lanes<8, true>());
}

// Bytes of shared memory of a block with `rows` rows a team: 8 numbers alone where rows do not fit.
template <class T, class L>
size_t shared_for(int64_t width, int rows, bool& fit) {
    const size_t bytes = (8 + L::TEAMS * rows * width) * sizeof(T);
    fit = bytes <= gpu::shared_limit(gpu::capability());
    return fit ? bytes : 8 * sizeof(T);
}

template <class T, bool CENTRED>
void run_norm_forward(NormForward<T> a, stream_t stream) {
    if (!a.N) return;
    a.width = padded(a.C);
    by_lanes<T>(aligned({a.x, a.y, a.weight, a.bias, a.s, a.out}, a.C), a.C, [&](auto lanes) {
        using L = decltype(lanes);
        const size_t shared = shared_for<T, L>(a.width, 1, a.kept);
        launch(norm_forward<T, CENTRED, L>, blocks_for(a.N, L::TEAMS), L::THREADS, shared, stream, a);
    });
}

// Sets the sizes of the backward; then `parts` must have room for `count` times 2 * width numbers.
template <class T>
void plan(NormBackward<T>& a) {
    a.width = padded(a.C);
    a.aligned = aligned({a.dsum, a.dout, a.x, a.weight, a.dx}, a.C);
    by_lanes<T>(a.aligned, a.C, [&](auto lanes) {
        using L = decltype(lanes);
        a.shared = shared_for<T, L>(a.width, 4, a.kept);
        const int64_t rows = (a.N + L::TEAMS - 1) / L::TEAMS, most = 1 + MOST_PARTS / (a.width + 1);
        a.blocks = std::min({rows, most, MOST_BLOCKS});
        a.count = a.kept ? a.blocks : a.blocks * L::TEAMS;
    });
}

// dweight and dbias may be null; `add`: they are added to.
template <class T, bool CENTRED>
void run_norm_backward(const NormBackward<T>& a, T* dweight, T* dbias, bool add, stream_t stream) {
    by_lanes<T>(a.aligned, a.C, [&](auto lanes) {
        using L = decltype(lanes);
        if (a.N) launch(norm_backward<T, CENTRED, L>, dim3(unsigned(a.blocks)), L::THREADS, a.shared, stream, a);
    });
    run_column_sums<T>({a.parts, a.count, 2 * a.width, a.C, {dweight, dbias}, add, a.width}, stream);
}
}  // namespace minillm::cuda
