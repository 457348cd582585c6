// Hopper's tensor cores that work for a warpgroup, and the registers that its warpgroups hand to each other. See
// emulator_hopper.h.
//
// A matmul is computed when it is waited for, from what its operands hold *then*; until that its registers hold NaN, and
// touching them is an error. A wait must name the registers of the matmuls that it ends. Layouts are decoded from the
// bits of the descriptor, at full addresses.
#pragma once

#include "cuda/emulator/emulator_units.h"

namespace emu {
inline uint16_t seen_by_units(uint32_t address) {
    const std::vector<unsigned char>& shared = units().shared;
    if (address + HALF > shared.size()) block->fail("a matmul reads outside shared memory");
    uint16_t x;
    std::memcpy(&x, shared.data() + address, HALF);
    return x;
}

// Element (row, k) of an operand whose rows run along k, or (column, k) of one whose rows run along the columns.
inline uint32_t decode(uint64_t descriptor, int row, int k, bool rows_along_k) {
    const uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4,
                   stride = (descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7))
        block->fail("a matmul's descriptor must say 128-byte swizzle and base offset 0");
    return swizzled(start + (rows_along_k ? row % 8 * 128 + row / 8 * stride + k * HALF
                                          : row % 64 * HALF + row / 64 * leading + k % 8 * 128 + k / 8 * stride));
}

// a[k][row]
inline void load_a(float (&a)[16][16], const Matmul& p) {
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 8 && p.a_in_registers; i++)  // register i / 2: row g + 8 (i/2 % 2), k from 8 (i/4)
            a[lane % 4 * 2 + i % 2 + i / 4 * 8][lane / 4 + i / 2 % 2 * 8] = p.number(p.registers[lane][i / 2], i % 2);
    for (int row = 0; row < 16 && !p.a_in_registers; row++)
        for (int k = 0; k < 16; k++)
            a[k][row] = p.number(seen_by_units(decode(p.a, warp_number() % 4 * 16 + row, k, !p.a_across)), 0);
}

// Add one matmul to the true values of its sums, for all lanes of this warp.
inline void compute(const Matmul& p, Sums& sums) {
    float a[16][16];
    load_a(a, p);
    for (int lane = 0; lane < 32 && p.a_in_registers; lane++)
        if (std::memcmp(p.a_then[lane], p.registers[lane], 16))
            block->fail("registers of a matmul under way were written");
    for (int column = 0; column < p.columns; column++) {
        float sum[16] = {};  // of all rows at once, which the CPU does side by side
        for (int k = 0; k < 16; k++) {
            const float b = p.number(seen_by_units(decode(p.b, column, k, !p.b_across)), 0);
            for (int row = 0; row < 16; row++) sum[row] += a[k][row] * b;
        }
        for (int row = 0; row < 16; row++) {
            float& value = sums.values[row % 8 * 4 + column % 8 / 2][column / 8 * 4 + row / 8 * 2 + column % 2];
            value = p.add ? value + sum[row] : sum[row];
        }
    }
}

// All matmuls of the oldest groups, until `left` groups are under way (-1: and the one that is not committed).
inline void finish_matmuls(WarpUnit& unit, int left) {
    while (int(unit.groups.size()) - 1 > left && !unit.groups.empty()) {
        for (const Matmul& p : unit.groups.front()) {
            Sums& sums = unit.sums.at(p.sums[0]);
            compute(p, sums);
            block->under_way--;
            if (--sums.matmuls) continue;
            for (int lane = 0; lane < 32; lane++) {
                const auto* bytes = reinterpret_cast<const unsigned char*>(sums.lanes[lane]);
                for (size_t i = 0; i < 4 * sums.values[lane].size(); i++)
                    if (bytes[i] != FILL) block->fail("the sums of a matmul under way were touched");
                std::copy(sums.values[lane].begin(), sums.values[lane].end(), sums.lanes[lane]);
            }
            unit.sums.erase(p.sums[0]);
        }
        unit.groups.erase(unit.groups.begin());
    }
    if (unit.groups.empty()) unit.groups.resize(1);
}

// Keep the values of fresh sums, and put NaN in their place.
inline void take_over(Sums& sums, const Matmul& p) {
    const size_t n = p.columns / 2;
    for (int lane = 0; lane < 32 && !sums.matmuls; lane++) {
        sums.lanes[lane] = p.sums[lane];
        sums.values[lane].assign(p.sums[lane], p.sums[lane] + n);
        std::memset(static_cast<void*>(p.sums[lane]), FILL, 4 * n);
    }
    sums.matmuls++;
}

// To the compiler, registers that no wait has named are as they were before the matmul: it may keep old numbers of them,
// and write A's before the matmul has read them.
inline void end_loans(WarpUnit& unit, int later, const std::vector<std::pair<const void*, size_t>>& named) {
    for (auto loan = unit.lent.begin(); loan != unit.lent.end();) {
        const auto [registers, lent] = *loan;
        const auto* at = static_cast<const char*>(registers);
        const bool is_named = std::any_of(named.begin(), named.end(), [&](const auto& range) {
            const auto* start = static_cast<const char*>(range.first);
            return at >= start && at < start + range.second;
        });
        if (lent.group >= unit.committed - later) {
            ++loan;
            continue;
        }
        if (!is_named && unit.sums_of.count(registers))
            block->fail("wgmma_wait does not name the sums of the matmul at " + lent.place.text() + ", which it ends");
        if (!is_named) unit.never_named.insert_or_assign(registers, lent);
        loan = unit.lent.erase(loan);
    }
}
inline void lend_registers(WarpUnit& unit, const Matmul& p) {
    unit.sums_of.insert(p.sums[0]);
    unit.lent.insert_or_assign(p.sums[0], Lent{unit.committed, {}, p.place});
    if (!p.a_in_registers) return;
    Lent lent = {unit.committed, {}, p.place};
    std::memcpy(lent.then, p.registers[0], 16);
    if (auto old = unit.never_named.find(p.registers[0]);
        old != unit.never_named.end() && std::memcmp(old->second.then, lent.then, 16))
        block->fail("the registers of A of the matmul at " + old->second.place.text() +
                    " were written again, but no wgmma_wait has named them");
    unit.lent.insert_or_assign(p.registers[0], lent);
}

// Lane 0 begins the matmul of its warp, when all lanes have shown their registers.
inline void begin(Matmul p, const Slot* slots, const Place& place) {
    WarpUnit& unit = units().warps[warp_number()];
    std::vector<Begun>& begun = units().begun[warp_number() / 4];
    if (!unit.fenced) block->fail("matmul at " + place.text() + ": no wgmma_fence since the start or the last wait");
    if (unit.begun == begun.size()) begun.push_back({p.a, p.b, place});
    const Begun& first = begun[unit.begun++];
    if (first.place != place || first.a != p.a || first.b != p.b)
        block->fail("matmul at " + place.text() + ": the four warps of a warpgroup differ, see " + first.place.text());
    for (int lane = 0; lane < 32; lane++) {
        p.sums[lane] = slots[lane].sums;
        p.registers[lane] = static_cast<const uint32_t*>(slots[lane].row);
        if (p.a_in_registers) std::memcpy(p.a_then[lane], p.registers[lane], 16);
    }
    p.place = place;
    lend_registers(unit, p);
    take_over(unit.sums[p.sums[0]], p);
    unit.groups.back().push_back(p);
    block->under_way++;
    const bool at_once = seed & 4 ? block->random() & 1 : seed & 2;
    if (at_once) finish_matmuls(unit, -1);
}

template <class E>
void wgmma(Matmul p, float* sums, const uint32_t* registers, const Place& place) {
    Slot mine;
    mine.sums = sums;
    mine.row = registers;
    p.number = half<E>;
    p.a_in_registers = registers != nullptr;
    const Slot* slots = block->exchange(mine, place);
    if (block->lane() == 0) begin(p, slots, place);
    block->exchange(mine, place);
}
}  // namespace emu

template <class... Registers>
void wgmma_fence(Registers&...) {
    emu::units().warps[emu::warp_number()].fenced = true;
}
inline void wgmma_commit(emu::Place here = {}) {
    emu::block->exchange({}, here);
    if (emu::block->lane() == 0) {
        emu::units().warps[emu::warp_number()].groups.emplace_back();
        emu::units().warps[emu::warp_number()].committed++;
    }
    emu::block->exchange({}, here);
}
template <int LATER, class... Registers>
void wgmma_wait(Registers&... done) {
    const emu::Place here;
    emu::WarpUnit& unit = emu::units().warps[emu::warp_number()];
    emu::block->exchange({}, here);
    if (emu::block->lane() == 0) {
        emu::finish_matmuls(unit, LATER);
        emu::end_loans(unit, LATER, {{&done, sizeof done}...});
    }
    unit.fenced = false;
    emu::block->exchange({}, here);
    const bool early = (unit.sums.count(reinterpret_cast<const float*>(&done)) + ... + 0);
    if (early) emu::block->fail("wgmma_wait: a matmul that adds to its registers is still under way");
}

template <class E, bool A_ACROSS = false, bool B_ACROSS = false, int N8>
void wgmma_ss(float (&d)[N8][4], uint64_t a, uint64_t b, bool add, emu::Place here = {}) {
    static_assert(N8 == 8 || N8 == 16, "64 or 128 columns");
    emu::wgmma<E>({a, b, 8 * N8, add, A_ACROSS, B_ACROSS}, d[0], nullptr, here);
}
template <class E, int N8>
void wgmma_rs(float (&d)[N8][4], const uint32_t (&a)[4], uint64_t b, bool add, emu::Place here = {}) {
    static_assert(N8 == 8 || N8 == 16, "64 or 128 columns");
    emu::wgmma<E>({0, b, 8 * N8, add, false, true}, d[0], a, here);
}

namespace emu {
inline void set_registers(int n, bool give, const Place& place) {
    block->exchange({}, place);
    WarpUnit& unit = units().warps[warp_number()];
    if (!block->registers)
        block->fail("registers at " + place.text() + ": ptxas ignores this without __launch_bounds__(threads, blocks)");
    if (n % 8 || n < 24 || n > 256 || (give ? n > unit.registers : n < unit.registers))
        block->fail("registers at " + place.text() + ": from " + std::to_string(unit.registers) + " to " +
                    std::to_string(n));
    if (block->lane() == 0) {
        block->self->lacks = "registers at " + place.text() + ": " + std::to_string(n) + " a thread never come free, " +
                             "for the block was launched with " + std::to_string(block->registers) + " for each of " +
                             std::to_string(block->threads.size());
        block->wait([&unit, n] { return units().free_registers >= n - unit.registers; }, place);
        block->self->lacks.clear();
        units().free_registers -= n - unit.registers;
    }
    block->exchange({}, place);
    unit.registers = n;
}
}  // namespace emu
template <int N>
void keep_registers(emu::Place here = {}) {
    emu::set_registers(N, true, here);
}
template <int N>
void take_registers(emu::Place here = {}) {
    emu::set_registers(N, false, here);
}
