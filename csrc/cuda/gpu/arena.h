// Memory of the device that results leave and results take again, so that a step of training, once it has run, allocates
// nothing new: each of its arrays finds the block that the same array of the step before has left.
//
// All work goes to one stream, so a block that is given back may be written at once by whatever is launched next.
// Defined in arena.cpp, in plain C++ on device.h.
#pragma once

#include <memory>

#include "cuda/gpu/device.h"

namespace gpu {
Stream current_stream();  // where all work goes: the default stream, unless `use_stream` said another
void use_stream(Stream stream);

// A block of at least so many bytes, given back when the last copy of the pointer is gone. On the emulator a block is full
// of NaN each time; on a GPU it holds what was left there.
std::shared_ptr<void> take(size_t bytes);

struct ArenaCounts {
    int64_t allocations = 0;  // blocks that the system has been asked for, ever
    int64_t in_use = 0, kept = 0;  // bytes that arrays hold; bytes that wait for one
};
ArenaCounts arena_counts();
void empty_arena();  // the system gets back what waits

// Work that was recorded to be replayed, always on the same memory. So what waits in the arena as a recording begins is set
// apart from then on, for this and all later ones, which never run at the same time: what one leaves in it the next may
// write over. Arrays that a recording filled hold until another is replayed.
class Recording {
    Graph graph;

public:
    static void begin();
    static void give_up();  // after an error: nothing is kept
    Recording();  // of what was launched since `begin`
    Recording(const Recording&) = delete;
    ~Recording();
    void replay() const { gpu::replay(graph, current_stream()); }
};

template <class T>
struct Block {  // room for `count` numbers, to work in
    std::shared_ptr<void> memory;
    T* data;
    explicit Block(int64_t count) : memory(take(count * sizeof(T))), data(static_cast<T*>(memory.get())) {}
};
}  // namespace gpu
