// The emulator, part 3: Hopper's TMA, its barriers in memory, and the tensor cores that work for a warpgroup.
//
// Unkind again: copies and matmuls happen as late as the rules allow, or at once, by the schedule. The tensor cores see
// what TMA wrote and what a fence_for_async published, not what threads have just stored; and where stores are seen
// (watched/watched.cpp) only those of the thread that says so. What it cannot see: time.
#pragma once

#include "cuda/emulator/emulator_tma.h"
#include "cuda/emulator/emulator_wgmma.h"
