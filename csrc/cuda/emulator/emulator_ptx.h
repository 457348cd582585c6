// The emulator, part 2: what the GPU's instructions do. Each has the name and the arguments of its twin in gpu_nvcc.h.
// Layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix"; a `g = lane / 4`, `t = lane % 4` there.
#pragma once

#include "cuda/emulator/emulator.h"

// As CUDA's: the number wins over NaN.
inline float max(float a, float b) { return fmaxf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
using std::exp;
using std::log;
inline float exp2_fast(float x) { return exp2f(x); }

// bfloat16: the upper half of a float; rounded to nearest, ties to even.
struct bf16 {
    uint16_t bits;
    bf16() = default;
    explicit bf16(float f) {
        uint32_t u;
        std::memcpy(&u, &f, 4);
        const bool nan = (u & 0x7fffffff) > 0x7f800000;
        bits = nan ? 0x7fff : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
    }
    explicit operator float() const {
        uint32_t u = uint32_t(bits) << 16;
        float f;
        std::memcpy(&f, &u, 4);
        return f;
    }
};

// float16: 1 sign, 5 exponent, 10 fraction bits; rounded to nearest, ties to even.
struct fp16 {
    uint16_t bits;
    fp16() = default;
    explicit fp16(float f) {
        const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
        const float size = std::fabs(f);
        if (std::isnan(f)) bits = 0x7fff;
        else if (size >= 65520) bits = sign | 0x7c00;                                       // infinity
        else if (size < 6.103515625e-05f)
            bits = sign | uint16_t(nearbyintf(size * 16777216));  // below 2^-14: steps of 2^-24
        else {
            int exponent;
            const float fraction = frexpf(size, &exponent);                                 // in [0.5, 1)
            bits = uint16_t(sign | (((exponent + 14) << 10) + int(nearbyintf(fraction * 2048)) - 1024));
        }
    }
    explicit operator float() const {
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                           : exponent     ? ldexpf(float(1024 + fraction), exponent - 25)
                                          : ldexpf(float(fraction), -24);
        return bits & 0x8000 ? -size : size;
    }
};

namespace emu {
template <class P>
void check_aligned(P pointer, size_t bytes, const char* what, const Place& place) {
    if (reinterpret_cast<uintptr_t>(pointer) % bytes)
        block->fail(std::string(what) + " at " + place.text() + ": the address is not a multiple of " +
                    std::to_string(bytes) + " bytes");
}
inline void land(const Copy& copy) {
    if (copy.valid) std::memcpy(copy.to, copy.from, copy.bytes);
    else std::memset(copy.to, 0, copy.bytes);
}
template <class E>
float half(uint32_t word, int i) {                      // half i of a pair
    E h;
    h.bits = uint16_t(word >> (16 * i));
    return float(h);
}
// A quarter warp reads 8 rows of 16 bytes at once; they come in one turn if they lie in different bank groups.
inline void count_conflicts(const Slot* slots, int lane) {
    if (lane % 8) return;
    unsigned seen = 0;
    for (int i = 0; i < 8; i++) {
        const unsigned group = 1u << (reinterpret_cast<uintptr_t>(slots[lane + i].row) / 16 % 8);
        bank_conflicts += (seen & group) != 0;
        seen |= group;
    }
}
}  // namespace emu

template <class T>
Vec4<T> load4(const T* from, emu::Place here = {}) {
    emu::check_aligned(from, alignof(Vec4<T>), "load4", here);
    if (emu::watcher) emu::watcher(from, sizeof(Vec4<T>), false, here.line);
    const emu::Unwatched rest;
    return *reinterpret_cast<const Vec4<T>*>(from);
}
template <class T>
Vec4<T> load4_readonly(const T* from, emu::Place here = {}) {
    return load4(from, here);
}
template <class T>
void store4(T* to, const Vec4<T>& x, emu::Place here = {}) {
    emu::check_aligned(to, alignof(Vec4<T>), "store4", here);
    if (emu::watcher) emu::watcher(to, sizeof(Vec4<T>), true, here.line);
    const emu::Unwatched rest;
    *reinterpret_cast<Vec4<T>*>(to) = x;
}

template <class T>
Vec2<T> load2(const T* from, emu::Place here = {}) {
    emu::check_aligned(from, alignof(Vec2<T>), "load2", here);
    return *reinterpret_cast<const Vec2<T>*>(from);
}
template <class T>
void store2(T* to, const Vec2<T>& x, emu::Place here = {}) {
    emu::check_aligned(to, alignof(Vec2<T>), "store2", here);
    *reinterpret_cast<Vec2<T>*>(to) = x;
}

// The value of the lane whose number differs in the bits of `mask`.
template <class T>
T __shfl_xor_sync(unsigned members, T value, int mask, emu::Place here = {}) {
    if (members != ~0u) emu::block->fail("shuffle at " + here.text() + ": all 32 lanes must take part");
    emu::Slot mine;
    std::memcpy(mine.words, &value, sizeof value);
    std::memcpy(&value, emu::block->exchange(mine, here)[emu::block->lane() ^ mask].words, sizeof value);
    return value;
}

// Copy BYTES (4, 8 or 16) from device to shared memory, later; zeros where not `valid`.
template <int BYTES>
void cp_async(void* to, const void* from, bool valid, emu::Place here = {}) {
    emu::check_aligned(to, BYTES, "cp_async to", here);
    if (valid) emu::check_aligned(from, BYTES, "cp_async from", here);
    const emu::Copy copy{to, from, BYTES, valid};
    const bool at_once = emu::seed & 4 ? emu::block->random() & 1 : emu::seed & 2;
    if (at_once) emu::land(copy);
    else emu::block->self->copies.back().push_back(copy);
}
inline void cp_async_commit() { emu::block->self->copies.emplace_back(); }
// Until at most N committed groups of this thread are under way. They land as late as that allows.
template <int N>
void cp_async_wait() {
    auto& groups = emu::block->self->copies;
    while (int(groups.size()) > N + 1) {
        for (const emu::Copy& copy : groups.front()) emu::land(copy);
        groups.erase(groups.begin());
    }
}

template <class E>
uint32_t pack(float low, float high) {
    return E(low).bits | uint32_t(E(high).bits) << 16;
}

namespace emu {
// Four 8x8 matrices of 16-bit numbers; lane i points at row i % 8 of matrix i / 8. Lane (g, t) receives in r[m] the
// elements (g, 2t) and (g, 2t + 1) of matrix m, or of its transpose.
inline void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed, const Place& here) {
    check_aligned(row, 16, "ldmatrix", here);
    Slot mine;
    mine.row = row;
    {
        const Unwatched here;
        std::memcpy(mine.words, row, 16);
    }
    const Slot* slots = block->exchange(mine, here);
    const int lane = block->lane(), g = lane / 4, t = lane % 4;
    count_conflicts(slots, lane);
    for (int m = 0; m < 4; m++) {
        if (transposed) {
            const uint32_t low = slots[8 * m + 2 * t].words[g / 2] >> 16 * (g % 2) & 0xffff;
            const uint32_t high = slots[8 * m + 2 * t + 1].words[g / 2] >> 16 * (g % 2) & 0xffff;
            r[m] = low | high << 16;
        } else {
            r[m] = slots[8 * m + g].words[t];
        }
    }
}
}  // namespace emu
inline void ldmatrix(uint32_t (&r)[4], const void* row, emu::Place here = {}) { emu::ldmatrix(r, row, false, here); }
inline void ldmatrix_t(uint32_t (&r)[4], const void* row, emu::Place here = {}) { emu::ldmatrix(r, row, true, here); }

// c (16x8 float) += a (16x16) @ b (16x8), a and b of E: bf16 or fp16. Of c, lane (g, t) holds (g, 2t), (g, 2t+1),
// (g+8, 2t), (g+8, 2t+1).
template <class E>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, emu::Place here = {}) {
    emu::Slot mine;
    std::memcpy(mine.words, a, 16);
    mine.words[4] = b0;
    mine.words[5] = b1;
    const emu::Slot* slots = emu::block->exchange(mine, here);
    const int g = emu::block->lane() / 4, t = emu::block->lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int lower = i / 2, column = 2 * t + i % 2;             // row g + 8 * lower
        float sum = 0;
        for (int k = 0; k < 16; k += 2) {
            const uint32_t pair_a = slots[4 * g + k % 8 / 2].words[lower + k / 8 * 2];
            const uint32_t pair_b = slots[4 * column + k % 8 / 2].words[4 + k / 8];
            sum +=
                emu::half<E>(pair_a, 0) * emu::half<E>(pair_b, 0) + emu::half<E>(pair_a, 1) * emu::half<E>(pair_b, 1);
        }
        c[i] += sum;
    }
}
