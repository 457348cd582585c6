// Dropout with a mask that is a function of (seed, step, site, element). Formulas: minillm/ops/dropout.py.
//
//   keep[i] = bits(i) >= ceil(p * 2^32)          out[i] = keep[i] ? x[i] / (1 - p) : 0          dx the same, from dout
//
// bits(i) is Philox 4x64-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten
// rounds of two 64 x 64 -> 128 bit products; one call of it serves eight elements. That is dear beside one
// multiplication, so forward caches keep, a bit an element (1/32 of x), and backward draws nothing. Parallel over
// groups of elements, since any of them can be drawn by itself.
#include "common.h"

struct PhiloxKey {
    uint64_t seed, step, site;
};

inline void philox_round(uint64_t c[4], uint64_t k0, uint64_t k1) {
    typedef unsigned __int128 Wide;
    Wide a = Wide(0xD2E7470EE14C6C93u) * c[0], b = Wide(0xCA5A826395121157u) * c[2];
    c[0] = uint64_t(b >> 64) ^ c[1] ^ k0;
    c[1] = uint64_t(b);
    c[2] = uint64_t(a >> 64) ^ c[3] ^ k1;
    c[3] = uint64_t(a);
}

// keep of the elements 8 * block ... 8 * block + 7, one bit each, the first lowest. Each of the four words gives 32
// bits to two of them, the low half first. Counter word 0 starts at 1, as in NumPy.
inline uint8_t keep_block(uint64_t block, const PhiloxKey& key, uint64_t complement) {
    uint64_t c[4] = {block + 1, key.step, key.site, 0};
#pragma GCC unroll 10
    for (uint64_t round = 0; round < 10; round++)
        philox_round(c, key.seed + round * 0x9E3779B97F4A7C15u, round * 0xBB67AE8584CAA73Bu);
    uint64_t keep = 0;
    for (int word = 3; word >= 0; word--) {                          // bits + (2^32 - threshold) reaches 2^32 if kept
        keep = keep * 2 + (((c[word] >> 32) + complement) >> 32);
        keep = keep * 2 + (((c[word] & 0xFFFFFFFF) + complement) >> 32);
    }
    return uint8_t(keep);
}

constexpr int64_t DROPOUT_GROUP = 1024;                              // elements, a multiple of 8

inline void dropout_mask_kernel(uint8_t* keep, int64_t n, double p, const PhiloxKey& key) {
    const uint64_t complement = (uint64_t(1) << 32) - uint64_t(std::ceil(p * 4294967296.0));
#pragma omp parallel for schedule(static) if (n > DROPOUT_GROUP)
    for (int64_t group = 0; group < (n + DROPOUT_GROUP - 1) / DROPOUT_GROUP; group++)
        for (int64_t i = group * DROPOUT_GROUP; i < std::min(n, (group + 1) * DROPOUT_GROUP); i += 8)
            keep[i / 8] = keep_block(uint64_t(i) / 8, key, complement);
}

// v in the lanes whose bits are set, 0 in the others. Lane 0 is element i, a multiple of WIDTH.
template <class T>
Vec<T> kept(Vec<T> v, const uint8_t* keep, int64_t i) {
    typedef typename LaneInt<T>::type Int;
    Int bits = (keep[i / 8] | keep[i / 8 + 1] << 8) >> i % 8;
    return (bits & (Int(1) - Lanes<T>{}) << lane_numbers<T>()) != 0 ? v : Vec<T>{};
}

template <class T>
void dropout_kernel(T* out, const T* x, const uint8_t* keep, int64_t n, double p) {
    const T scale = T(1 / (1 - p));
#pragma omp parallel for schedule(static) if (n > DROPOUT_GROUP)
    for (int64_t group = 0; group < (n + DROPOUT_GROUP - 1) / DROPOUT_GROUP; group++) {
        int64_t i = group * DROPOUT_GROUP, end = std::min(n, i + DROPOUT_GROUP);
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) store(out + i, kept<T>(load(x + i) * scale, keep, i));
        if (i < end) store_part(out + i, kept<T>(load_part(x + i, end - i) * scale, keep, i), end - i);
    }
}

PhiloxKey philox_key(const py::tuple& key) {
    try {
        if (key.size() == 3) return {key[0].cast<uint64_t>(), key[1].cast<uint64_t>(), key[2].cast<uint64_t>()};
    } catch (const py::cast_error&) {
    }
    fail("key must be (seed, step, site), three integers in [0, 2^64): got " + string(py::str(key)));
}

constexpr int64_t mask_bytes(int64_t n) { return (n + 7) / 8 + 1; }      // and a byte that `kept` may look at

py::array_t<uint8_t> keep_mask(int64_t n, double p, const py::tuple& key) {
    PhiloxKey words = philox_key(key);
    auto keep = fresh<uint8_t>({mask_bytes(n)});
    uint8_t* pk = keep.mutable_data();
    py::gil_scoped_release nogil;
    dropout_mask_kernel(pk, n, p, words);
    return keep;
}

template <class T>
py::array_t<T> dropped(const char* name, const py::array& x, const Shape& shape, double p, const py::array& keep) {
    const T* px = input<T>(name, x, shape);
    auto out = fresh<T>(shape);
    T* po = out.mutable_data();
    const uint8_t* pk = input<uint8_t>("cached keep", keep, {mask_bytes(out.size())});
    py::gil_scoped_release nogil;
    dropout_kernel<T>(po, px, pk, out.size(), p);
    return out;
}

py::tuple dropout_forward(py::array x, double p, py::tuple key) {
    if (!(p >= 0 && p < 1)) fail("p must be a number with 0 <= p < 1: got " + std::to_string(p));
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        input<decltype(zero)>("x", x, shape_of(x));
        py::array keep = keep_mask(x.size(), p, key);
        auto out = dropped<decltype(zero)>("x", x, shape_of(x), p, keep);
        return py::make_tuple(out, py::make_tuple(keep, p, py::cast(shape_of(x)), x.dtype()));
    });
}

py::array dropout_backward(py::array dout, py::tuple cache) {
    auto shape = cache[2].cast<Shape>();
    return by_dtype("x", py::array(cache[3].cast<py::dtype>(), Shape{0}), [&](auto zero) -> py::array {
        return dropped<decltype(zero)>("dout", dout, shape, cache[1].cast<double>(), cached(cache, 0));
    });
}

void bind_dropout(py::module_& m) {
    m.def("dropout_forward", &dropout_forward, py::arg("x"), py::arg("p"), py::arg("key"));
    m.def("dropout_backward", &dropout_backward, py::arg("dout"), py::arg("cache"));
}
