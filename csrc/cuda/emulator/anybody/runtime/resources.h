// setmaxnreg: how many registers the threads of a warp have (resources.cpp).
#pragma once

#include "engine.h"

namespace minillm_cuda {
void set_registers(int n, bool more, uintptr_t place);  // of the running thread's warp
void check_registers(const Block& block);               // at its end: did they suffice for all warps?
}  // namespace minillm_cuda
