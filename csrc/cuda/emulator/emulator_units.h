// What Hopper's units hold of a block beside its threads: matmuls under way, and shared memory as the units see it.
#pragma once

#include <map>
#include <set>

#include "cuda/emulator/emulator_ptx.h"

namespace emu {
constexpr int HALF = 2;  // bytes of a number

// Byte address in shared memory -> where the 128-byte swizzle puts it: bits 4 to 6 take those of the row, 7 to 9.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// One matmul of a warp: its 16 of the 64 rows.
struct Matmul {
    uint64_t a, b;
    int columns;
    bool add, a_across, b_across, a_in_registers;  // across: rows run along m or n, not along k
    float (*number)(uint32_t, int);  // half i of a word, as float
    float* sums[32];
    const uint32_t* registers[32];  // of a, where they lie there
    uint32_t a_then[32][4];  // and what they held when the matmul was begun
    Place place;
};
// The registers of all lanes that matmuls under way add to, and their true values.
struct Sums {
    std::vector<float> values[32];
    float* lanes[32];
    int matmuls = 0;
};
// Registers of lane 0 that belong to a matmul until a wait names them: which group it was in; those of A, what they held.
struct Lent {
    int group;
    uint32_t then[4];
    Place place;
};
struct WarpUnit {
    std::vector<std::vector<Matmul>> groups{1};  // the last is not committed yet
    int committed = 0;  // groups so far
    std::map<const void*, Lent> lent, never_named;  // never_named: A's, of matmuls that are over
    std::map<const float*, Sums> sums;  // by the address of lane 0's
    std::set<const void*> sums_of;  // what of `lent` are sums
    bool fenced = false;
    size_t begun = 0;
    int registers = 0;
};
struct Begun {  // what all four warps of a warpgroup must say alike
    uint64_t a, b;
    Place place;
};
// All of one block.
struct Units {
    int serial = -1, free_registers = 0;
    std::vector<WarpUnit> warps;
    std::vector<std::vector<Begun>> begun;  // by warpgroup
    std::vector<unsigned char> shared;  // as the units see it
    Meeting named[16];
};
inline Units& units() {
    static Units all;
    if (all.serial == block->serial) return all;
    all = Units();
    all.serial = block->serial;
    all.warps.resize(block->warps.size());
    for (WarpUnit& warp : all.warps) warp.registers = block->registers;
    all.begun.resize((block->warps.size() + 3) / 4);
    all.shared.assign(block->shared_bytes, FILL);
    return all;
}
inline int warp_number() { return block->self->id.x / 32; }
}  // namespace emu
