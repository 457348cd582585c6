// Order between threads by atomics and fences: `__threadfence(); atomicAdd(&done, 1)` in one thread, an atomic on the same
// word in another, and the second knows what the first did before its fence. (CUDA's memory model asks for a second
// fence; hardware forgives its absence, and so do we.)
#include <algorithm>
#include <unordered_map>

#include "engine.h"

namespace minillm_cuda {
namespace {
struct Released {
    uint64_t serial = 0, acquired = 0;
    std::vector<uint32_t> clocks;  // by thread of that block
};
std::unordered_map<uintptr_t, Released>& words() {
    static auto* all = new std::unordered_map<uintptr_t, Released>();
    return *all;
}

void acquire(Thread& me, const Released& r) {
    Block& block = *me.block;
    block.acquired = std::max(block.acquired, r.acquired);
    if (r.serial != block.serial) {
        block.acquired = std::max(block.acquired, r.serial);
        return;
    }
    me.learned.resize(block.threads.size());
    for (size_t t = 0; t < me.learned.size(); t++) me.learned[t] = std::max(me.learned[t], r.clocks[t]);
}

void publish(Thread& me, Released& r) {
    const Block& block = *me.block;
    if (r.serial != block.serial) r.clocks.assign(block.threads.size(), 0);
    r.serial = block.serial;
    r.acquired = block.acquired;
    for (size_t t = 0; t < r.clocks.size(); t++) {
        uint32_t knows = me.base;
        if (int(t) / 32 == me.number / 32) knows = std::max(knows, me.knows[t % 32]);
        if (!me.learned.empty()) knows = std::max(knows, me.learned[t]);
        r.clocks[t] = std::max(r.clocks[t], int(t) == me.number ? me.clock + 1 : knows);
    }
    me.clock++;
}
}  // namespace

void fence() { current->fenced = true; }

void atomic_order(uintptr_t address) {
    const auto place = words().find(address);
    if (place != words().end() && place->second.serial >= launched->first_serial) acquire(*current, place->second);
    if (current->fenced) publish(*current, words()[address]);
}
}  // namespace minillm_cuda
