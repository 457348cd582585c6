// What Hopper (compute capability 9.0) adds to the vocabulary of gpu.h. Three units work beside the threads, and the
// threads only tell them what to do and wait:
//
//   TMA                     tma_load: a box of a tensor in device memory -> shared memory, swizzled on the way; zeros
//                           outside the tensor. One thread asks for a whole tile.
//   the tensor cores        wgmma_ss, wgmma_rs: 64 x N += 64 x 16 @ 16 x N for the 128 threads of a warpgroup; B is
//                           read straight from shared memory, where a `descriptor` says how it lies. Matmuls are begun
//                           between wgmma_fence and wgmma_commit; until wgmma_wait nobody may touch their registers.
//   barriers in memory      barrier_init, barrier_arrive, barrier_expect, barrier_wait: a barrier counts arrivals and
//                           bytes; when both have come its phase (0, 1, 0, ...) is over, and whoever waited goes on.
//
// Both units read and write shared memory past the threads' own path to it (the "async proxy"): what threads have
// stored there the tensor cores see only after fence_for_async. Sources: PTX ISA 8.x, sections on mbarrier,
// cp.async.bulk.tensor, wgmma and its matrix descriptor.
#pragma once

#include "cuda/gpu/gpu.h"

#ifdef __CUDACC__
#include "cuda/gpu/hopper_nvcc.h"
#else
#include "cuda/emulator/emulator_hopper.h"
#endif

// Where an operand lies. Tiles here are panels of 64 numbers (128 bytes) a row, and 16-byte chunk c of row r lies at
// place c ^ (r % 8) of its row, as TMA's 128-byte swizzle puts it; tiles begin at multiples of 1024 bytes.
//   an operand whose rows run along k (Q, K): 8 rows take 1024 bytes, `leading` is not used;
//   one whose rows run along n (V): 8 rows along k take 1024 bytes, and the next panel lies `leading` bytes further.
DEVICE uint64_t descriptor(const void* start, int leading) {
    constexpr uint64_t EIGHT_ROWS = 1024, SWIZZLE_128 = 1;
    return uint64_t(shared_address(start) >> 4 & 0x3fff) | uint64_t(leading >> 4) << 16 | (EIGHT_ROWS >> 4) << 32 |
           SWIZZLE_128 << 62;
}
