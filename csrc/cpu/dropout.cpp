// Dropout with a mask that is a function of (seed, step, site, element). Formulas: minillm/ops/dropout.py.
//
//   keep[i] = bits(i) >= ceil(p * 2^32)          out[i] = keep[i] ? x[i] / (1 - p) : 0          dx the same, from dout
//
// bits(i) is Philox 4x64-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten
// rounds of two 64 x 64 -> 128 bit products; one call of it serves eight elements. That is dear beside one
// multiplication, so forward caches keep, a bit an element (1/32 of x), and backward draws nothing. Parallel over
// groups of elements, since any of them can be drawn by itself.
#include <cmath>

#include "cpu/isa/threads.h"
#include "cpu/simd/vec.h"
#include "python/register.h"

namespace minillm::dropout {

struct PhiloxKey { uint64_t seed, step, site; };

void philox_round(uint64_t c[4], uint64_t k0, uint64_t k1) {
    typedef unsigned __int128 Wide;
    Wide a = Wide(0xD2E7470EE14C6C93u) * c[0], b = Wide(0xCA5A826395121157u) * c[2];
    c[0] = uint64_t(b >> 64) ^ c[1] ^ k0;
    c[1] = uint64_t(b);
    c[2] = uint64_t(a >> 64) ^ c[3] ^ k1;
    c[3] = uint64_t(a);
}

// keep of the elements 8 * block ... 8 * block + 7, one bit each, the first lowest. Each of the four words gives 32
// bits to two of them, the low half first. Counter word 0 starts at 1, as in NumPy.
uint8_t keep_block(uint64_t block, const PhiloxKey& key, uint64_t complement) {
    uint64_t c[4] = {block + 1, key.step, key.site, 0};
    UNROLL_FOR (uint64_t round = 0; round < 10; round++)
        philox_round(c, key.seed + round * 0x9E3779B97F4A7C15u, round * 0xBB67AE8584CAA73Bu);
    uint64_t keep = 0;
    for (int word = 3; word >= 0; word--) {  // bits + (2^32 - threshold) reaches 2^32 if kept
        keep = keep * 2 + (((c[word] >> 32) + complement) >> 32);
        keep = keep * 2 + (((c[word] & 0xFFFFFFFF) + complement) >> 32);
    }
    return uint8_t(keep);
}

constexpr int64_t GROUP = 1024;  // elements, a multiple of 8

void mask_kernel(uint8_t* keep, int64_t n, double p, const PhiloxKey& key) {
    const uint64_t complement = (uint64_t(1) << 32) - uint64_t(std::ceil(p * 4294967296.0));
#pragma omp parallel for schedule(static) if (n > GROUP)
    for (int64_t group = 0; group < (n + GROUP - 1) / GROUP; group++)
        for (int64_t i = group * GROUP; i < std::min(n, (group + 1) * GROUP); i += 8)
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
#pragma omp parallel for schedule(static) if (n > GROUP)
    for (int64_t group = 0; group < (n + GROUP - 1) / GROUP; group++) {
        int64_t i = group * GROUP, end = std::min(n, i + GROUP);
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) store(out + i, kept<T>(load(x + i) * scale, keep, i));
        if (i < end) store_part(out + i, kept<T>(load_part(x + i, end - i) * scale, keep, i), end - i);
    }
}

PhiloxKey philox_key(const Tuple& key) {
    auto word = [&](int64_t i) { return i < key.size() ? to<uint64_t>(key[i]) : std::nullopt; };
    auto seed = word(0), step = word(1), site = word(2);
    if (key.size() == 3 && seed && step && site) return {*seed, *step, *site};
    fail("key must be (seed, step, site), three integers in [0, 2^64): got ", key);
}

constexpr int64_t mask_bytes(int64_t n) { return (n + 7) / 8 + 1; }  // and a byte that `kept` may look at

template <class T>
Result<T> dropped(const char* name, const Array& x, const Shape& shape, double p, const Array& keep) {
    const T* px = input<T>(name, x, shape);
    const uint8_t* pk = input<uint8_t>("cached keep", keep, {mask_bytes(x.size())});
    auto out = fresh<T>(shape);
    without_gil([&] { dropout_kernel<T>(out, px, pk, x.size(), p); });
    return out;
}

Tuple dropout_forward(const Array& x, double p, const Tuple& key) {
    if (!(p >= 0 && p < 1)) fail("p must be a number with 0 <= p < 1: got ", p);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        input<T>("x", x, x.shape);
        PhiloxKey words = philox_key(key);
        auto keep = fresh<uint8_t>({mask_bytes(x.size())});
        without_gil([&] { mask_kernel(keep, x.size(), p, words); });
        return tuple_of({dropped<T>("x", x, x.shape, p, *to<Array>(keep)), tuple_of({keep, p, x.shape, x.dtype})});
    });
}

Object dropout_backward(const Array& dout, const Tuple& cache) {
    return by_dtype("x", cached<string>(cache, 3), [&](auto zero) -> Object {
        return dropped<decltype(zero)>("dout", dout, cached<Shape>(cache, 2), cached<double>(cache, 1),
                                       cached(cache, 0));
    });
}

const Register registered[] = {{"dropout_forward(x, p, key)", &dropout_forward},
                               {"dropout_backward(dout, cache)", &dropout_backward}};

}  // namespace minillm::dropout
