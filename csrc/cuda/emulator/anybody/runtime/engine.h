// The engine: the threads of a launch as fibers (../../fiber.h), and where they meet.
//
// Blocks run one after another unless they wait for each other (cooperative launches, spinning); the threads of a block
// take turns and give way at barriers, at warp-wide instructions, and after many steps without one. What a thread knows
// of the others' accesses is kept in clocks, so that a race is seen also where this order hid it:
//   a thread's clock counts its meetings; `base` is the clock below which it knows what every thread of its block did;
//   `knows[l]` the same for lane l of its own warp; `learned`, if not empty, what it got to know by atomics and fences.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../fiber.h"

namespace minillm_cuda {
struct Index { unsigned x, y, z; };
struct Block;
struct Warp;

struct Thread {
    emu::Fiber fiber;
    Block* block = nullptr;
    Warp* warp = nullptr;
    Index id{};
    int number = 0, lane = 0;
    bool done = false;
    uintptr_t waits_at = 0;  // the place where it waits, or 0
    uint32_t clock = 1, base = 0, knows[32] = {};
    std::vector<uint32_t> learned;
    bool fenced = false;
    unsigned steps = 0;
    uint64_t votes = 0;  // at the last barrier (block_barrier)
    std::vector<std::vector<std::function<void()>>> copies{1};  // cp.async: groups under way; the last is open
};

// Threads that wait for each other.
struct Barrier {
    int arrived = 0, voted = 0, expected = 0;
    uintptr_t place = 0;
    std::vector<Thread*> waiting;
};

// A warp-wide instruction that some lanes have reached.
enum class Kind { sync, shuffle, ballot, match, matrix };
struct Gathering {
    unsigned mask, present = 0;
    Kind kind;
    uintptr_t place;
    uint64_t values[32][6];
};
struct Warp {
    unsigned alive = 0;
    unsigned active = 0, active_read = 0;  // __activemask: the lanes that came, and those that have read it
    uintptr_t active_at = 0;
    std::vector<std::shared_ptr<Gathering>> open;
    int registers = 0;  // of a thread, since setmaxnreg at this place has said so (resources.cpp)
    uintptr_t registers_at = 0;
};

struct Block {
    Index index{};
    uint64_t born = 0;  // the serial that it began with: owns its shared memory
    uint64_t serial = 0, acquired = 0;  // acquired: blocks up to that serial are known by atomics and fences
    int slot = 0, alive = 0;
    bool sampled = false;  // its accesses are logged for the advice on speed
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Barrier barriers[16];
    std::vector<uint64_t> filled;  // shared variables: the block (born) for which they were poisoned
};

struct SharedVariable {
    const void* site;
    std::string name;
    size_t bytes, offset;
};

struct Launch {
    const char *file, *name;
    int line;
    Index grid, size;
    int threads_per_block;
    size_t dynamic_shared;
    bool cooperative;
    void (*call)(void*);
    void* arguments;
    size_t arguments_bytes;
    uint64_t first_serial = 0;
    uint64_t next_block = 0, blocks = 0;
    std::deque<Thread*> ready;
    std::vector<Block*> live;
    Barrier grid_barrier;
    std::vector<SharedVariable> shared;
    size_t shared_bytes = 0;
    emu::Fiber home;
    bool abandoned = false;
    int registers = 0;  // of a thread, where the kernel's head says it
    int refused = 0;  // the CUDA error of a launch that breaks what the head says
};

extern Thread* current;  // the thread that runs, or null: the host
extern Launch* launched;  // the launch that runs, or null
extern unsigned schedule;  // minillm_cuda_seed
extern double seconds;
extern uintptr_t stacks;  // the fibers' stacks: memory of their own threads
extern size_t stacks_bytes;

int run_launch(Launch& launch);  // a CUDA error code
void give_way();  // others may go on
void abandon();  // end the launch here; does not return
void fence();
void atomic_order(uintptr_t address);  // an atomic releases and acquires, if a fence stands before it
// What another thread of the same block did at `clock`: does this thread know of it?
inline bool knows_of(const Thread& me, int thread, uint32_t clock) {
    if (clock < me.base || thread == me.number) return true;
    if (thread / 32 == me.number / 32 && clock < me.knows[thread % 32]) return true;
    return !me.learned.empty() && clock < me.learned[thread];
}

// The votes of all that came: bit 0 all, bit 1 any, from bit 2 on their count.
uint64_t block_barrier(int which, int expected, int vote, uintptr_t place);
void grid_barrier(uintptr_t place);
// All lanes of `mask` come with up to 6 words; the result is what they brought.
std::shared_ptr<const Gathering> gather(Kind kind, unsigned mask, const uint64_t* words, int count, uintptr_t place);
}  // namespace minillm_cuda
