// How the emulator runs: what Python and tests may change.
#pragma once

#include <cstdint>
#include <vector>

namespace emu {
// 0: threads take turns in order. Else the orders are shuffled by this seed, and
//   bit 0: the warp that runs goes on as far as it can;
//   bit 1: asynchronous copies land at once, not as late as allowed;    bit 2: each copy tosses a coin for that;
//   bit 5: not the next thread in order goes on, but any.
inline unsigned seed = 0;
inline unsigned first_x = 0;                // blocks before it are left out: tests of the last of very many
inline int capability = 90;                 // what the device says it is
inline int64_t bank_conflicts = 0;          // 16-byte rows of one ldmatrix phase that met in one bank group
inline std::vector<int> writers;            // of each byte of shared memory, the last thread; empty: nobody watches
inline void (*watcher)(const void* p, int bytes, bool writes, int line) = nullptr;      // told of load4 and store4
inline volatile int unwatched = 0;  // above 0: it is the emulator that touches memory, no thread of a kernel
struct Unwatched {
    Unwatched() { unwatched = unwatched + 1; }
    ~Unwatched() { unwatched = unwatched - 1; }
};
}  // namespace emu
