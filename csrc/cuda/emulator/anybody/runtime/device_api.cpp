// The device side of words.h, warp.h and atomics.h.
#include <chrono>
#include <cstring>

#include "../atomics.h"
#include "../warp.h"
#include "memory.h"
#include "ptx.h"
#include "report.h"

using namespace minillm_cuda;
#undef __syncwarp
#define PLACE reinterpret_cast<uintptr_t>(__builtin_return_address(0))

namespace {
// Device functions that host code calls have nobody to act for.
bool from_host(const char* what, uintptr_t place) {
    if (current) return false;
    found({"host memory", "error", say("host code calls ", what, ", which only a kernel can"), place});
    return true;
}
uint3 three(const Index& i) { return {i.x, i.y, i.z}; }
// The lanes with which this warp began: not all 32 in the last one of a block of odd size.
unsigned lanes_of_warp() {
    const int left = launched->threads_per_block - current->number / 32 * 32;
    return left >= 32 ? ~0u : (1u << left) - 1;
}
}  // namespace

namespace minillm_cuda {
uint64_t shuffle_lanes(int mode, unsigned mask, uint64_t word, int operand, int width, uintptr_t place) {
    const int lane = current->lane;
    if (width < 1 || width > 32 || (width & (width - 1))) {
        found({"divergence", "error", say("a shuffle's width is 1, 2, 4, 8, 16 or 32: got ", width), place});
        width = 32;
    }
    const int first = lane & ~(width - 1);
    int from = mode == 0   ? first + (operand & (width - 1))
               : mode == 1 ? lane - operand
               : mode == 2 ? lane + operand
                           : lane ^ operand;
    if (from < (mode == 1 ? first : 0) || from >= first + width) from = lane;
    const auto lanes = gather(Kind::shuffle, mask, &word, 1, place);
    if (!(lanes->present >> from & 1)) {
        if (!known("undefined lane", place, 0))
            found({"undefined lane", "error",
                   say("lane ", lane, " asks for the value of lane ", from, ", which ",
                       mask >> from & 1 ? "does not exist or has left the kernel" : "is not in the mask"),
                   place});
        return word;
    }
    return lanes->values[from][0];
}

unsigned lane_votes(unsigned mask, int vote, uintptr_t place, unsigned* present) {
    const uint64_t word = vote != 0;
    const auto lanes = gather(Kind::ballot, mask, &word, 1, place);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++)
        if (lanes->present >> lane & 1) bits |= unsigned(lanes->values[lane][0]) << lane;
    *present = lanes->present;
    return bits;
}
}  // namespace minillm_cuda

extern "C" {
uint3 minillm_cuda_thread() { return current ? three(current->id) : uint3{}; }
uint3 minillm_cuda_block() { return current ? three(current->block->index) : uint3{}; }
uint3 minillm_cuda_block_size() { return launched ? three(launched->size) : uint3{1, 1, 1}; }
uint3 minillm_cuda_grid_size() { return launched ? three(launched->grid) : uint3{1, 1, 1}; }

void* minillm_cuda_shared(const void* site, const char* name, size_t bytes, int dynamic) {
    return shared_variable(site, name, bytes, dynamic, PLACE);
}
void minillm_cuda_touch(const void* p, size_t bytes, unsigned flags, const void* place) {
    touch(uintptr_t(p), bytes, flags, uintptr_t(place));
}

void __syncthreads() {
    if (!from_host("__syncthreads", PLACE)) block_barrier(0, 0, 0, PLACE);
}
int __syncthreads_count(int vote) { return int(block_barrier(0, 0, vote, PLACE) >> 2); }
int __syncthreads_and(int vote) { return int(block_barrier(0, 0, vote, PLACE) & 1); }
int __syncthreads_or(int vote) { return int(block_barrier(0, 0, vote, PLACE) >> 1 & 1); }
void minillm_cuda_barrier(int which, int threads) { block_barrier(which, threads, 0, PLACE); }
void minillm_cuda_grid_barrier() { grid_barrier(PLACE); }
void __threadfence() { fence(); }
void __threadfence_block() { fence(); }
void __threadfence_system() { fence(); }
void __trap() {
    found({"crash", "error", "the kernel calls __trap()", PLACE});
    abandon();
}
void __nanosleep(unsigned) { give_way(); }
long long clock64() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
// A 32-bit number, as on the device: PTX takes it back.
size_t __cvta_generic_to_shared(const void* p) { return shared_offset(uintptr_t(p)); }
void* __cvta_shared_to_generic(size_t p) { return reinterpret_cast<void*>(shared_address(p)); }
unsigned __isShared(const void* p) {
    return shared_address(0) <= uintptr_t(p) && shared_offset(uintptr_t(p)) < SHARED_SLOT;
}
unsigned __isGlobal(const void* p) { return in_device_memory(uintptr_t(p)); }

uint64_t minillm_cuda_shuffle(int mode, unsigned mask, uint64_t word, int operand, int width) {
    if (from_host("a shuffle", PLACE)) return word;
    return shuffle_lanes(mode, mask, word, operand, width, PLACE);
}
unsigned __ballot_sync(unsigned mask, int vote) {
    unsigned present;
    if (const unsigned lacking = mask & ~lanes_of_warp(); lacking && !known("partial warp", PLACE, 0))
        found(
            {"partial warp", "note",
             say("the mask names ", __builtin_popcount(lacking), " lanes that this warp has not, since the block has ",
                 launched->threads_per_block, " threads: their bits are 0"),
             PLACE});
    return lane_votes(mask, vote, PLACE, &present);
}
int __all_sync(unsigned mask, int vote) {
    unsigned present;
    return lane_votes(mask, vote, PLACE, &present) == present;
}
int __any_sync(unsigned mask, int vote) {
    unsigned present;
    return lane_votes(mask, vote, PLACE, &present) != 0;
}
unsigned minillm_cuda_match(int all, unsigned mask, uint64_t value, int* same) {
    const auto lanes = gather(Kind::match, mask, &value, 1, PLACE);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++)
        if (lanes->present >> lane & 1 && lanes->values[lane][0] == value) bits |= 1u << lane;
    if (!all) return bits;
    *same = bits == lanes->present;
    return *same ? bits : 0;
}
uint64_t minillm_cuda_reduce(int op, unsigned mask, uint64_t value) {
    const auto lanes = gather(Kind::match, mask, &value, 1, PLACE);
    uint64_t out = value;
    bool first = true;
    for (int lane = 0; lane < 32; lane++) {
        if (!(lanes->present >> lane & 1)) continue;
        const uint64_t x = lanes->values[lane][0];
        if (first) out = x;
        else if (op == 0) out += x;
        else if (op == 1) out = int64_t(x) < int64_t(out) ? x : out;
        else if (op == 2) out = int64_t(x) > int64_t(out) ? x : out;
        else out = op == 3 ? out & x : op == 4 ? out | x : out ^ x;
        first = false;
    }
    return out;
}
void minillm_cuda_syncwarp(unsigned mask) { gather(Kind::sync, mask, nullptr, 0, PLACE); }

// The lanes that come here before some turns pass in which none does: all others of the warp wait elsewhere, or are slow.
unsigned __activemask() {
    Warp& warp = *current->warp;
    if (!warp.active || warp.active_at != PLACE || warp.active_read) warp.active = warp.active_read = 0;
    warp.active_at = PLACE;
    warp.active |= 1u << current->lane;
    unsigned seen = 0;
    for (int quiet = 0; quiet < 3; quiet = warp.active == seen ? quiet + 1 : 0) {
        seen = warp.active;
        give_way();
    }
    warp.active_read |= 1u << current->lane;
    const unsigned mine = warp.active;
    if (warp.active_read == warp.active) warp.active = warp.active_read = 0;
    return mine;
}

void minillm_cuda_atomic(const void* p, size_t bytes, int reads, const void* place) {
    if (!current) return touch(uintptr_t(p), bytes, WRITE, uintptr_t(place));
    current->steps += 100;
    touch(uintptr_t(p), bytes, WRITE | ATOMIC | (reads ? 0 : ONLY_WRITES), uintptr_t(place));
    atomic_order(uintptr_t(p));
}
}
