// Dropout with a mask that is a function of (seed, step, site, element). Formulas: minillm/ops/dropout.py.
//
//   out[i] = bits(i) >= ceil(p * 2^32) ? x[i] / (1 - p) : 0          dx the same, from dout
//
// bits(i) is Philox 4x64-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds
// of two 64 x 64 -> 128 bit products. One block of four words serves eight elements. Loop order: a group of blocks writes
// its bits into scratch, then one vector loop applies them. Parallel over groups: any element can be drawn by itself.
#include "common.h"

struct PhiloxKey {
    uint64_t seed, step, site;
};

inline void philox_round(uint64_t c[4], uint64_t k0, uint64_t k1) {
    unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93u * c[0], b = (unsigned __int128)0xCA5A826395121157u * c[2];
    uint64_t c0 = uint64_t(b >> 64) ^ c[1] ^ k0, c2 = uint64_t(a >> 64) ^ c[3] ^ k1;
    c[0] = c0;
    c[1] = uint64_t(b);
    c[2] = c2;
    c[3] = uint64_t(a);
}

// Bits of the elements 8 * block ... 8 * block + 7, low half of each word first. Counter word 0 starts at 1, as NumPy's.
inline void philox_block(uint32_t bits[8], uint64_t block, const PhiloxKey& key) {
    uint64_t c[4] = {block + 1, key.step, key.site, 0}, k0 = key.seed, k1 = 0;
    for (int round = 0; round < 10; round++) {
        philox_round(c, k0, k1);
        k0 += 0x9E3779B97F4A7C15u;
        k1 += 0xBB67AE8584CAA73Bu;
    }
    for (int word = 0; word < 4; word++) {
        bits[2 * word] = uint32_t(c[word]);
        bits[2 * word + 1] = uint32_t(c[word] >> 32);
    }
}

template <class T>
void dropout_kernel(T* out, const T* x, int64_t n, double p, const PhiloxKey& key) {
    constexpr int64_t GROUP = 512;                                   // elements
    const uint64_t threshold = uint64_t(std::ceil(p * 4294967296.0));
    const T scale = T(1 / (1 - p));
#pragma omp parallel for schedule(static) if (n > 4096)
    for (int64_t group = 0; group < (n + GROUP - 1) / GROUP; group++) {
        uint32_t bits[GROUP];
        int64_t begin = group * GROUP, count = std::min(GROUP, n - begin);
        for (int64_t i = 0; i < count; i += 8) philox_block(bits + i, uint64_t(begin + i) / 8, key);
        for (int64_t i = 0; i < count; i++) out[begin + i] = bits[i] >= threshold ? x[begin + i] * scale : T(0);
    }
}

PhiloxKey philox_key(const py::tuple& key) {
    try {
        if (key.size() == 3) return {key[0].cast<uint64_t>(), key[1].cast<uint64_t>(), key[2].cast<uint64_t>()};
    } catch (const py::cast_error&) {
    }
    fail("key must be (seed, step, site), three integers in [0, 2^64): got " + string(py::str(key)));
}

template <class T>
py::array_t<T> dropped(const char* name, const py::array& x, const Shape& shape, double p, const py::tuple& key) {
    const T* px = input<T>(name, x, shape);
    PhiloxKey words = philox_key(key);
    auto out = fresh<T>(shape);
    T* po = out.mutable_data();
    py::gil_scoped_release nogil;
    dropout_kernel<T>(po, px, out.size(), p, words);
    return out;
}

py::tuple dropout_forward(py::array x, double p, py::tuple key) {
    if (!(p >= 0 && p < 1)) fail("p must be a number with 0 <= p < 1: got " + std::to_string(p));
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        auto out = dropped<decltype(zero)>("x", x, shape_of(x), p, key);
        return py::make_tuple(out, py::make_tuple(p, key, py::cast(shape_of(x)), x.dtype()));
    });
}

py::array dropout_backward(py::array dout, py::tuple cache) {
    auto shape = cache[2].cast<Shape>();
    return by_dtype("x", py::array(cache[3].cast<py::dtype>(), Shape{0}), [&](auto zero) -> py::array {
        return dropped<decltype(zero)>("dout", dout, shape, cache[0].cast<double>(), cache[1].cast<py::tuple>());
    });
}

void bind_dropout(py::module_& m) {
    m.def("dropout_forward", &dropout_forward, py::arg("x"), py::arg("p"), py::arg("key"));
    m.def("dropout_backward", &dropout_backward, py::arg("dout"), py::arg("cache"));
}
