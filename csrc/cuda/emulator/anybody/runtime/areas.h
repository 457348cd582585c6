// Address space: where shared memory, device memory and the module's own variables lie, and the cells beside them.
#pragma once

#include "memory.h"
#include "report.h"

namespace minillm_cuda {
// Address space with a cell for each word of it; the pages come when they are touched.
struct Area {
    uintptr_t begin = 0;
    size_t bytes = 0;
    Cell* cells = nullptr;
    bool has(uintptr_t address) const { return address - begin < bytes; }
    Cell* cell(uintptr_t address) const { return cells + (address - begin) / 4; }
};

struct Memory {
    Area shared, device, globals;
    uint32_t* pages;                        // of device memory: 1 + the number of the array that lies there
    uintptr_t next;                         // where the next array may begin
    Memory();
    uintptr_t code = 0, code_end = 0, module_begin = 0, module_end = 0;
    std::vector<Array> arrays;
};
extern Memory& m;

// The shared variable at an offset of the block's slot, or nullptr; or the nearest.
const SharedVariable* shared_at(uintptr_t offset, bool nearest);
inline std::string bytes_text(size_t n) { return say(n, n == 1 ? " byte" : " bytes"); }
}  // namespace minillm_cuda
