// AMX: a register is a tile of 16 rows x 64 bytes, and one instruction is a matmul of two of them (TDPBF16PS). The engine
// that uses it is gemm/amx.h.
//
//   C (16, 16 floats) += A (16, 16 pairs) @ B (16 pairs deep, 16 columns)        16 * 16 * 32 multiply-adds
//
// The registers are far larger than others, so Linux wants to be asked (arch_prctl) before a process may use them.
// Emulated<...> below does in plain C++ what the instruction does, to the bit, so that packing and loops are tested on
// machines without AMX. This file has run on the emulation only, not yet on such a machine.
#pragma once

#include <cmath>

#include "cpu/simd/bfloat16.h"

#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace minillm {

// ---- eight registers, in hardware ----

struct alignas(64) TileConfig {  // what LDTILECFG reads: palette 1, 16 rows of 64 bytes in each register
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "LDTILECFG reads 64 bytes");

// The operands of an instruction are part of its name, so numbers of registers are template arguments.
#if defined(__AMX_BF16__)
struct AmxRegisters {
    static constexpr bool ROUNDS = true;  // where there is AMX-BF16, there is VCVTNE2PS2BF16
    AmxRegisters() {  // the shape belongs to the thread, and other libraries set it too
        TileConfig config;
        asm volatile("ldtilecfg %0" ::"m"(config));
    }
    ~AmxRegisters() { asm volatile("tilerelease"); }

    template <int R>
    void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(R));
    }
    template <int R>
    void load(const void* p, int64_t stride) {  // bytes between rows
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(R) : "memory");
    }
    template <int R>
    void store(void* p, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(R) : "memory");
    }
    template <int C, int A, int B>
    void multiply_add() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    }
};

// Asked once; a kernel that refuses leaves us with vectors.
inline bool has_amx() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    static const bool granted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return granted;
}
#else
inline bool has_amx() { return false; }
#endif

// ---- the same in plain C++ ----

struct EmulatedRegisters {
    static constexpr bool ROUNDS = false;
    Pair tile[8][16][16];  // 16 rows of 64 bytes

    template <int R>
    void zero() {
        std::memset(tile[R], 0, sizeof tile[R]);
    }
    template <int R>
    void load(const void* p, int64_t stride) {
        for (int row = 0; row < 16; row++) std::memcpy(tile[R][row], (const char*)p + row * stride, 64);
    }
    template <int R>
    void store(void* p, int64_t stride) {
        for (int row = 0; row < 16; row++) std::memcpy((char*)p + row * stride, tile[R][row], 64);
    }

    // TDPBF16PS: the terms of even and of odd k are summed apart, in order, each from zero with one rounding a
    // term; then one sum is added to the other and both to C. Numbers under 2^-126, in or out, are zeros.
    template <int C, int A, int B>
    void multiply_add() {
        for (int m = 0; m < 16; m++) {
            float even[16] = {}, odd[16] = {};
            for (int p = 0; p < 16; p++)
                for (int n = 0; n < 16; n++) {  // the compiler makes vectors of it
                    even[n] = fused(tile[A][m][p] << 16, tile[B][p][n] << 16, even[n]);
                    odd[n] = fused(tile[A][m][p] & 0xffff0000, tile[B][p][n] & 0xffff0000, odd[n]);
                }
            for (int n = 0; n < 16; n++) {
                float c = flushed(flushed(number(tile[C][m][n])) + flushed(even[n] + odd[n]));
                std::memcpy(&tile[C][m][n], &c, sizeof c);
            }
        }
    }

    static float number(Pair bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    static float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
    static float fused(Pair a, Pair b, float sum) {
        return flushed(std::fma(flushed(number(a)), flushed(number(b)), sum));
    }
};

}  // namespace minillm
