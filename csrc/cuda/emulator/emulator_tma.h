// Hopper's barriers in shared memory, and TMA, whose copies they wait for. See emulator_hopper.h.
//
// A copy lands in two halves, and only when no thread can go on (or, by the schedule, at once, or by coin).
#pragma once

#include "cuda/emulator/emulator_units.h"

// A tensor as TMA knows it: axes from the innermost on, strides and box of one copy.
struct alignas(64) TensorMap {
    const unsigned char* data;
    uint64_t sizes[4], strides[3];
    uint32_t box[4];
};

// ---- barriers in shared memory ----

namespace emu {
// The 64 bits of a barrier. NaN-filled memory is none.
struct Phase {
    uint64_t pending : 15, count : 15, parity : 1, published : 1, magic : 8;
    int64_t bytes : 24;  // that are expected and have not landed
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
// Do a piece of work at once or later, as the schedule says.
inline void sooner_or_later(std::function<void()> piece) {
    const bool at_once = seed & 4 ? block->random() & 1 : seed & 2;
    if (at_once) piece();
    else block->beside.push_back(std::move(piece));
}

// Rows [from, to) of a box land: row by row, 16 bytes by 16 bytes, zeros outside the tensor.
inline void land_rows(const TensorMap& map, unsigned char* target, const int64_t (&at)[4], int from, int to) {
    const Unwatched here;
    for (int r = from; r < to; r++)
        for (uint32_t i = 0; i < map.box[0]; i++) {
            const uint64_t index[4] = {uint64_t(at[0] + i), uint64_t(at[1] + r), uint64_t(at[2]), uint64_t(at[3])};
            bool inside = true;  // below zero is huge, and outside
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
// What the threads have stored so far, the units see from now on; where stores are watched, what this thread has stored.
inline void fence_for_async() {
    const emu::Unwatched here;
    std::vector<unsigned char>& seen = emu::units().shared;
    if (emu::writers.empty()) std::memcpy(seen.data(), emu::block->shared, seen.size());
    for (size_t i = 0; i < emu::writers.size(); i++)
        if (emu::writers[i] == int(emu::block->self->id.x)) seen[i] = emu::block->shared[i];
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
