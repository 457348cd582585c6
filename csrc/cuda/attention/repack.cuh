// Arrays as the tensor cores want them: 16-bit numbers, rows that begin at multiples of 16 bytes, HS a multiple of 8.
// An array that is so already is used where it lies; any other is copied and converted, padded with zeros.
#pragma once

#include <type_traits>

#include "cuda/attention/common.cuh"

namespace minillm::attention {
// HS rounded up to a multiple of 8; the scale stays that of the real HS.
inline Sizes with_padding(Sizes n) {
    n.HS = (n.HS + 7) / 8 * 8;
    return n;
}

constexpr int REPACK_THREADS = 256, REPACK_BLOCK = 32 * REPACK_THREADS;     // numbers a block

// to[t][d] = from[t][d] for the rows of each head; zero from `filled` to n.HS.
template <class To, class From>
__global__ void repack(View<To> to, View<From> from, Sizes n, int filled) {
    const int64_t bh = blockIdx.x, first = int64_t(blockIdx.y) * REPACK_BLOCK, end = int64_t(n.T) * n.HS;
    for (int64_t i = first + threadIdx.x; i < first + REPACK_BLOCK && i < end; i += REPACK_THREADS) {
        const int64_t t = i / n.HS, d = i % n.HS;
        rows_of(to, bh, n)[t][d] = d < filled ? To(float(rows_of(from, bh, n)[t][d])) : To(0.0f);
    }
}

template <class To, class From>
void launch_repack(View<To> to, View<From> from, const Sizes& n, int filled, stream_t stream) {
    const int64_t blocks_a_head = (int64_t(n.T) * n.HS + REPACK_BLOCK - 1) / REPACK_BLOCK;
    if (blocks_a_head > 65535) throw std::runtime_error("T is too large for an array that has to be converted");
    launch(repack<To, From>, dim3(unsigned(n.heads()), unsigned(blocks_a_head)), REPACK_THREADS, 0, stream, to, from, n,
           filled);
}

template <class T>
bool in_chunks(const View<T>& a, const Sizes& n) {
    return n.HS % 8 == 0 && a.batch % 8 == 0 && a.head % 8 == 0 && a.row % 8 == 0 &&
           reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
}

// An array of T, seen as one of E (const E: an input; E: an output, to be written back).
template <class E, class T>
class Packed {
    using Plain = typename std::remove_const<E>::type;
    using Source = typename std::conditional<std::is_const<E>::value, const T, T>::type;
    View<Source> source;
    Sizes n;
    stream_t stream;
    Plain* copy = nullptr;

public:
    View<E> view;

    Packed(const View<Source>& a, const Sizes& sizes, stream_t s) : source(a), n(sizes), stream(s) {
        if (sizeof(T) == sizeof(E) && in_chunks(a, n)) {
            view = {reinterpret_cast<E*>(a.data), a.batch, a.head, a.row};
            return;
        }
        const Sizes padded = with_padding(n);
        const int64_t head = int64_t(n.T) * padded.HS;
        copy = static_cast<Plain*>(gpu::allocate(n.heads() * head * sizeof(E), stream));
        view = {copy, n.NH * head, head, padded.HS};
        if constexpr (std::is_const<E>::value) launch_repack(plain(), as_numbers(), padded, n.HS, stream);
    }
    Packed(const Packed&) = delete;
    ~Packed() {
        if (copy) gpu::release(copy, stream);
    }
    void write_back() {
        if (copy) launch_repack(as_numbers(), view, n, n.HS, stream);
    }

private:
    View<Plain> plain() const { return {copy, view.batch, view.head, view.row}; }
    // The source with numbers that convert: 16-bit ones are E.
    auto as_numbers() const {
        using Number = typename std::conditional<sizeof(T) == sizeof(E), E, Source>::type;
        return View<Number>{reinterpret_cast<Number*>(source.data), source.batch, source.head, source.row};
    }
};
}  // namespace minillm::attention
