// The emulator, part 3: Hopper's TMA, its barriers in memory, and the tensor cores that work for a warpgroup.
//
// Unkind again. A copy lands in two halves, and only when no thread can go on (or, by the schedule, at once, or by
// coin). A matmul is computed when it is waited for, from what its operands hold *then*; until that its registers hold
// NaN, and touching them is an error. The tensor cores see what TMA wrote and what a fence_for_async published,
// not what threads have just stored. Layouts are decoded from the bits of the descriptor, at full addresses.
// What it cannot see: which of two threads' stores a fence covers; time.
#pragma once

#include <map>

#include "cuda/emulator/emulator_ptx.h"

// A tensor as TMA knows it: axes from the innermost on, strides and box of one copy.
struct alignas(64) TensorMap {
    const unsigned char* data;
    uint64_t sizes[4], strides[3];
    uint32_t box[4];
};

namespace emu {
constexpr int CHUNK = 16, HALF = 2;                     // bytes of a unit of the swizzle, and of a number

// Byte address in shared memory -> where the 128-byte swizzle puts it: bits 4 to 6 take those of the row, 7 to 9.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// One matmul of a warp: its 16 of the 64 rows.
struct Matmul {
    uint64_t a, b;
    int columns;
    bool add, a_in_registers;
    float (*number)(uint32_t, int);                     // half i of a word, as float
    float* sums[32];
    const uint32_t* registers[32];                      // of a, where they lie there
    uint32_t a_then[32][4];                             // and what they held when the matmul was begun
};
// The registers of all lanes that matmuls under way add to, and their true values.
struct Sums {
    std::vector<float> values[32];
    float* lanes[32];
    int matmuls = 0;
};
struct WarpUnit {
    std::vector<std::vector<Matmul>> groups{1};        // the last is not committed yet
    std::map<const float*, Sums> sums;                  // by the address of lane 0's
    bool fenced = false;
    size_t begun = 0;
    int registers = 0;
};
struct Begun {                                          // what all four warps of a warpgroup must say alike
    uint64_t a, b;
    Place place;
};
// All of one block.
struct Units {
    int serial = -1, free_registers = 0;
    std::vector<WarpUnit> warps;
    std::vector<std::vector<Begun>> begun;              // by warpgroup
    std::vector<unsigned char> shared;                  // as the units see it
    Meeting named[16];
};
inline Units& units() {
    static Units all;
    if (all.serial == block->serial) return all;
    all = Units();
    all.serial = block->serial;
    all.warps.resize(block->warps.size());
    const int each = int(std::min<size_t>(65536 / block->threads.size() / 8 * 8, 248));
    for (WarpUnit& warp : all.warps) warp.registers = each;
    all.begun.resize((block->warps.size() + 3) / 4);
    all.shared.assign(block->shared_bytes, FILL);
    return all;
}
inline int warp_number() { return block->self->id.x / 32; }

// Do a piece of work at once or later, as the schedule says.
inline void sooner_or_later(std::function<void()> piece) {
    const bool at_once = seed & 4 ? block->random() & 1 : seed & 2;
    if (at_once) piece();
    else block->beside.push_back(std::move(piece));
}

// ---- barriers in shared memory ----

// The 64 bits of a barrier. NaN-filled memory is none.
struct Phase {
    uint64_t pending : 15, count : 15, parity : 1, published : 1, magic : 8;
    int64_t bytes : 24;                                 // that are expected and have not landed
};
static_assert(sizeof(Phase) == 8, "one word");
constexpr uint64_t MAGIC = 0x5a;

inline Phase& phase_of(uint64_t* barrier, const Place& place) {
    check_aligned(barrier, 8, "barrier", place);
    auto& phase = *reinterpret_cast<Phase*>(barrier);
    if (phase.magic != MAGIC) block->fail("barrier at " + place.text() + ": it was not initialised");
    return phase;
}
inline void end_phase_if_complete(Phase& phase) {
    if (phase.pending || phase.bytes) return;
    phase.pending = phase.count;
    phase.parity ^= 1;
}
}  // namespace emu

inline uint32_t shared_address(const void* p) {
    return uint32_t(static_cast<const unsigned char*>(p) - emu::block->shared);
}

inline void barrier_init(uint64_t* barrier, int arrivals, emu::Place here = {}) {
    emu::check_aligned(barrier, 8, "barrier", here);
    emu::Phase phase = {};
    phase.pending = phase.count = arrivals;
    phase.magic = emu::MAGIC;
    std::memcpy(barrier, &phase, 8);
    emu::block->self->made.push_back(barrier);
}
inline void fence_barrier_init() {
    for (uint64_t* barrier : emu::block->self->made) reinterpret_cast<emu::Phase*>(barrier)->published = 1;
}
inline void barrier_arrive(uint64_t* barrier, emu::Place here = {}) {
    emu::Phase& phase = emu::phase_of(barrier, here);
    if (!phase.pending) emu::block->fail("barrier at " + here.text() + ": more arrivals than it counts");
    phase.pending--;
    emu::end_phase_if_complete(phase);
    if (emu::seed & 32) emu::block->give_way();
}
inline void barrier_expect(uint64_t* barrier, int bytes, emu::Place here = {}) {
    emu::phase_of(barrier, here).bytes += bytes;
    barrier_arrive(barrier, here);
}
inline void barrier_wait(uint64_t* barrier, int parity, emu::Place here = {}) {
    const emu::Phase& phase = emu::phase_of(barrier, here);
    emu::block->wait([&phase, parity] { return phase.parity != parity; }, here);
}

inline void named_barrier(int id, int threads, emu::Place here = {}) {
    emu::Meeting& meeting = emu::units().named[id];
    const int round = meeting.round;
    emu::block->come(meeting, threads);
    emu::block->wait([&meeting, round] { return meeting.round != round; }, here);
}
inline void named_barrier_pass(int id, int threads) { emu::block->come(emu::units().named[id], threads); }
inline bool named_barrier_or(int id, int threads, bool x, emu::Place here = {}) {
    return emu::block->meet_or(emu::units().named[id], threads, here, x);
}

// ---- TMA ----

namespace emu {
// Rows [from, to) of a box land: row by row, 16 bytes by 16 bytes, zeros outside the tensor.
inline void land_rows(const TensorMap& map, unsigned char* target, const int64_t (&at)[4], int from, int to) {
    for (int r = from; r < to; r++)
        for (uint32_t i = 0; i < map.box[0]; i++) {
            const uint64_t index[4] = {uint64_t(at[0] + i), uint64_t(at[1] + r), uint64_t(at[2]), uint64_t(at[3])};
            bool inside = true;                                 // below zero is huge, and outside
            uint64_t offset = index[0] * HALF;
            for (int axis = 0; axis < 4; axis++) {
                inside &= index[axis] < map.sizes[axis];
                if (axis) offset += index[axis] * map.strides[axis - 1];
            }
            uint16_t x = 0;
            if (inside) std::memcpy(&x, map.data + offset, HALF);
            const uint32_t address = swizzled(shared_address(target) + (r * map.box[0] + i) * HALF);
            std::memcpy(block->shared + address, &x, HALF);
            std::memcpy(units().shared.data() + address, &x, HALF);
        }
}
}  // namespace emu

inline void tma_load(void* to, const TensorMap& map, uint64_t* barrier, int d, int t, int h, int b,
                     emu::Place here = {}) {
    emu::check_aligned(to, 128, "tma_load to", here);
    emu::check_aligned(&map, 64, "tma_load's tensor map", here);
    if (!emu::phase_of(barrier, here).published)
        emu::block->fail("tma_load at " + here.text() + ": TMA cannot see this barrier before a fence");
    const int rows = map.box[1], row_bytes = map.box[0] * emu::HALF;
    auto* target = static_cast<unsigned char*>(to);
    if (target < emu::block->shared || target + rows * row_bytes > emu::block->shared + emu::block->shared_bytes)
        emu::block->fail("tma_load at " + here.text() + ": outside shared memory");
    emu::block->under_way += 2;
    for (int half = 0; half < 2; half++)
        emu::sooner_or_later([=] {
            const int from = half ? rows / 2 : 0, until = half ? rows : rows / 2;
            emu::land_rows(map, target, {d, t, h, b}, from, until);
            emu::Phase& phase = emu::phase_of(barrier, here);
            phase.bytes -= (until - from) * row_bytes;
            emu::end_phase_if_complete(phase);
            emu::block->under_way--;
        });
}
// What the threads have stored so far, the units see from now on.
inline void fence_for_async() {
    std::vector<unsigned char>& seen = emu::units().shared;
    std::memcpy(seen.data(), emu::block->shared, seen.size());
}

// ---- the tensor cores ----

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

inline void load_a(float (&a)[16][16], const Matmul& p) {
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 8 && p.a_in_registers; i++)  // register i / 2: row g + 8 (i/2 % 2), k from 8 (i/4)
            a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] = p.number(p.registers[lane][i / 2], i % 2);
    for (int row = 0; row < 16 && !p.a_in_registers; row++)
        for (int k = 0; k < 16; k++)
            a[row][k] = p.number(seen_by_units(decode(p.a, warp_number() % 4 * 16 + row, k, true)), 0);
}

// Add one matmul to the true values of its sums, for all lanes of this warp.
inline void compute(const Matmul& p, Sums& sums) {
    float a[16][16], b[16];
    load_a(a, p);
    for (int lane = 0; lane < 32 && p.a_in_registers; lane++)
        if (std::memcmp(p.a_then[lane], p.registers[lane], 16))
            block->fail("registers of a matmul under way were written");
    for (int column = 0; column < p.columns; column++) {
        for (int k = 0; k < 16; k++) b[k] = p.number(seen_by_units(decode(p.b, column, k, !p.a_in_registers)), 0);
        for (int row = 0; row < 16; row++) {
            float sum = 0;
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k];
            float& value = sums.values[row % 8 * 4 + column % 8 / 2][column / 8 * 4 + row / 8 * 2 + column % 2];
            value = p.add ? value + sum : sum;
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
    if (emu::block->lane() == 0) emu::units().warps[emu::warp_number()].groups.emplace_back();
    emu::block->exchange({}, here);
}
template <int LATER, class... Registers>
void wgmma_wait(Registers&... done) {
    const emu::Place here;
    emu::WarpUnit& unit = emu::units().warps[emu::warp_number()];
    emu::block->exchange({}, here);
    if (emu::block->lane() == 0) emu::finish_matmuls(unit, LATER);
    unit.fenced = false;
    emu::block->exchange({}, here);
    const bool early = (unit.sums.count(reinterpret_cast<const float*>(&done)) + ... + 0);
    if (early) emu::block->fail("wgmma_wait: a matmul that adds to its registers is still under way");
}

template <class E>
void wgmma_ss(float (&d)[16][4], uint64_t a, uint64_t b, bool add, emu::Place here = {}) {
    emu::wgmma<E>({a, b, 128, add}, d[0], nullptr, here);
}
template <class E, int N8>
void wgmma_rs(float (&d)[N8][4], const uint32_t (&a)[4], uint64_t b, bool add, emu::Place here = {}) {
    static_assert(N8 == 8 || N8 == 16, "64 or 128 columns");
    emu::wgmma<E>({0, b, 8 * N8, add}, d[0], a, here);
}

namespace emu {
inline void set_registers(int n, bool give, const Place& place) {
    block->exchange({}, place);
    WarpUnit& unit = units().warps[warp_number()];
    if (n % 8 || n < 24 || n > 256 || (give ? n > unit.registers : n < unit.registers))
        block->fail("registers at " + place.text() + ": from " + std::to_string(unit.registers) + " to " +
                    std::to_string(n));
    if (block->lane() == 0) {
        block->wait([&unit, n] { return units().free_registers >= n - unit.registers; }, place);
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

// ---- the host's side ----

// Refuses what cuTensorMapEncodeTiled refuses.
inline TensorMap tensor_map(const void* data, const uint64_t (&sizes)[4], const uint64_t (&strides)[3],
                            const uint32_t (&box)[4]) {
    TensorMap map = {static_cast<const unsigned char*>(data), {}, {}, {}};
    bool fine = reinterpret_cast<uintptr_t>(data) % 16 == 0 && box[0] * emu::HALF <= 128;
    for (int i = 0; i < 4; i++) {
        map.sizes[i] = sizes[i];
        map.box[i] = box[i];
        fine &= sizes[i] >= 1 && sizes[i] <= uint64_t(1) << 32 && box[i] >= 1 && box[i] <= 256;
    }
    for (int i = 0; i < 3; i++) {
        map.strides[i] = strides[i];
        fine &= strides[i] % 16 == 0 && strides[i] < uint64_t(1) << 40;
    }
    if (!fine) throw std::runtime_error("cuTensorMapEncodeTiled refused an array");
    return map;
}
