// The scatter-add of an embedding's backward:  d[tokens[n]] += dout[n], rows of C numbers.
//
// Two tokens may want the same row, and atomics would add in another order each time. So every row gets one owner, who
// adds what belongs to it in the order of n: the bits are those of a loop over n, and of the CPU's kernel.
//
// Step 1, naive: a thread owns a column and walks over all tokens: C threads (768 of the 270,000 that an H200 holds).
// Step 2: sort the places by token first. A key is token * N + n, so keys differ and a row's come in the order of n:
//   sort_runs    each block sorts RUN keys in shared memory, by counting for each how many are smaller;
//   merge_runs   log2(N / RUN) times: a key's place in the merged run is its own plus the number of smaller keys in the
//                other run, which a binary search finds;
//   add_rows     a warp for each 128 columns of each place in the sorted order. Where a token's keys begin, it adds all of
//                its rows; elsewhere it has nothing to do.
// What is left to gain: a token that is a tenth of the batch has one warp a strip, which walks over all of its rows.
#pragma once

#include "cuda/ops/threads.cuh"

namespace minillm::scatter {
using namespace cuda;
constexpr int RUN = 128, STRIP = 128;  // keys that a block sorts; columns of a warp

template <class T>
__global__ void naive_scatter(T* d, const T* dout, const int64_t* tokens, int64_t N, int64_t C) {
    const int64_t c = thread_number();
    if (c >= C) return;
    for (int64_t n = 0; n < N; n++) d[tokens[n] * C + c] += dout[n * C + c];
}

template <class Key>
__global__ void sort_runs(Key* keys, const Key* tokens, int64_t N) {
    SHARED(Key, run);
    const int64_t n = thread_number(), begin = n - threadIdx.x;
    const Key key = n < N ? tokens[n] * N + n : INT64_MAX;
    run[threadIdx.x] = key;
    __syncthreads();
    if (n >= N) return;
    int smaller = 0;
    for (int i = 0; i < RUN; i++) smaller += run[i] < key;
    keys[begin + smaller] = key;
}

// The first place in keys[low, high) whose key is at least this one.
DEVICE int64_t first_from(const int64_t* keys, int64_t low, int64_t high, int64_t key) {
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (keys[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low;
}

template <class Key>
__global__ void merge_runs(Key* to, const Key* from, int64_t run, int64_t N) {
    const int64_t i = thread_number();
    if (i >= N) return;
    const int64_t begin = i / (2 * run) * (2 * run), middle = begin + run < N ? begin + run : N,
                  end = middle + run < N ? middle + run : N;
    if (i < middle) to[i + first_from(from, middle, end, from[i]) - middle] = from[i];
    else to[i - middle + first_from(from, begin, middle, from[i])] = from[i];
}

template <class T>
__global__ void add_rows(T* d, const T* dout, const int64_t* keys, int64_t N, int64_t C, bool aligned) {
    const int64_t strips = (C + STRIP - 1) / STRIP, warp = thread_number() / 32;
    const int64_t i = warp / strips, c = warp % strips * STRIP + threadIdx.x % 32 * 4;
    if (i >= N || c >= C) return;
    const int64_t token = keys[i] / N, first = token * N;
    if (i && keys[i - 1] >= first) return;  // another warp has begun with this token
    const int64_t end = first_from(keys, i, N, first + N);
    const Row<T> row = row_of(d + token * C, C, aligned);
    Vec4<T> sum = row.get(c);
    UNROLL_4_FOR (int64_t k = i; k < end; k++)
        sum = map4([](T a, T b) { return a + b; }, sum, row_of(dout + (keys[k] - first) * C, C, aligned).get(c));
    row.put(c, sum);
}

// keys: room for 2 * N numbers.
template <class T>
void scatter_add(T* d, const T* dout, const int64_t* tokens, int64_t* keys, int64_t N, int64_t C, stream_t stream) {
    if (!N || !C) return;
    int64_t* other = keys + N;
    launch(sort_runs<int64_t>, blocks_for(N, RUN), RUN, RUN * sizeof(int64_t), stream, keys, tokens, N);
    for (int64_t run = RUN; run < N; run *= 2) {
        launch(merge_runs<int64_t>, blocks_for(N, THREADS), THREADS, 0, stream, other, keys, run, N);
        std::swap(keys, other);
    }
    over(32 * N * ((C + STRIP - 1) / STRIP), add_rows<T>, stream, d, dout, keys, N, C, aligned({d, dout}, C));
}
}  // namespace minillm::scatter
