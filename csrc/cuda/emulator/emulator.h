// The emulator, part 1: threads, barriers and shared memory of a GPU, on one CPU thread; emulator_memory.h: its arrays.
//
// Every CUDA thread of a block is a fiber (a stack of its own that gives way when it has to wait); blocks run one
// after another. The emulator is *unkind*, because a GPU is: what a program may not rely on, it does not get.
//   - Shared and device memory start as NaN, and guard zones of other NaNs around them are checked after each block and
//     kernel.
//   - A schedule (settings.h, `seed`) decides which thread goes on at each meeting: the orders are shuffled, or a warp
//     runs ahead as far as the barriers let it.
//   - A barrier that not all threads reach, or that they reach in different lines, is an error that names the lines.
//   - Sizes beyond those of the hardware, and misaligned accesses, are errors that name the line.
//   - An array that work of one stream may still use is not touched, nor freed, by another that has not waited for it.
// What it cannot see: the memory model below barriers, register spills, time. Ordinary loads and stores it
// sees where it is compiled for that (watched/watched.cpp).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/emulator/emulator_memory.h"
#include "cuda/emulator/fiber.h"
#include "cuda/emulator/settings.h"
#include "cuda/gpu/shared_limit.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define LAUNCH_BOUNDS(...) emu::block->keep_bounds(emu::Place(), __VA_ARGS__)
#define __grid_constant__
#define UNROLL_FOR for
#define UNROLL_4_FOR for
#define DEVICE inline
#define SHARED(T, name) T* name = reinterpret_cast<T*>(emu::block->shared)
#define threadIdx (emu::block->self->id)
#define blockIdx (emu::block->index)
#define gridDim (emu::block->grid)
#define blockDim (dim3(unsigned(emu::block->threads.size())))
#define __syncthreads() emu::block->barrier(emu::Place())
#define __syncthreads_or(x) emu::block->barrier_or(emu::Place(), x)
#define __syncwarp() emu::block->exchange(emu::Slot(), emu::Place())

struct dim3 {
    unsigned x, y, z;
    explicit dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emu {
constexpr int REGISTERS = 65536, RESIDENT = 2048;  // of a multiprocessor: registers, threads

// A place in the source: where `Place()` stands, also when it is a default argument (then, where the call stands).
struct Place {
    const char* file;
    int line;
    Place(const char* file = __builtin_FILE(), int line = __builtin_LINE()) : file(file), line(line) {}
    std::string text() const {
        const char* slash = std::strrchr(file, '/');
        return std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
    }
    bool operator!=(const Place& other) const {
        return line != other.line || (file != other.file && std::strcmp(file, other.file));
    }
};

// Where n threads wait for each other; `round` counts how often they all have come.
struct Meeting {
    int present = 0, round = 0, votes[2] = {};
    Place place;
};

// What a lane shows the other lanes of its warp in a warp-wide instruction.
struct Slot {
    uint32_t words[6] = {};
    const void* row = nullptr;
    float* sums = nullptr;
};
struct Warp {
    Meeting meeting;
    Slot slots[2][32];  // two sets: a lane that runs ahead cannot overwrite what others still read
};

struct Copy {
    void* to;
    const void* from;
    int bytes;
    bool valid;
};

struct Thread {
    dim3 id;
    bool done = false;
    std::function<bool()> may_go;  // empty: yes
    Place place;  // where it waits, or waited last
    std::string lacks;  // what it waits for, where others may never give it
    std::vector<std::vector<Copy>> copies{1};  // groups of asynchronous copies under way; the last is not committed
    std::vector<uint64_t*> made;  // barriers in shared memory that it has initialised
    Fiber fiber;
    bool ready() const { return !done && (!may_go || may_go()); }
};

struct Block {
    dim3 index, grid;
    unsigned char* shared = nullptr;
    size_t shared_bytes = 0;
    std::vector<Thread> threads;
    std::vector<int> order, rank;  // order[i]: the thread whose turn is i-th; rank: its inverse
    std::vector<Warp> warps;
    Meeting all;
    Thread* self = nullptr;
    Fiber home;
    std::string error;
    std::mt19937 random;
    const std::function<void()>* kernel = nullptr;
    // Work of the units beside the threads (emulator_hopper.h): what is left to do; and how much of all that was begun
    // nobody has waited for. `serial` tells blocks apart.
    std::vector<std::function<void()>> beside;
    int under_way = 0, serial = 0;
    int registers = 0;  // of a thread at the start, where the launch bounds say so

    int lane() const { return self->id.x % 32; }

    void go_to(Thread* next) {
        Thread* me = self;
        if (next == me) return;
        self = next;
        switch_fiber(me->fiber, next->fiber);
    }

    // Ends the block; the message goes to whoever launched it. Does not return.
    [[noreturn]] void fail(const std::string& why) {
        error = why + " (block " + std::to_string(index.x) + "," + std::to_string(index.y) + " thread " +
                std::to_string(self->id.x) + ")";
        switch_fiber(self->fiber, home);
        std::abort();
    }

    // Hand over to a thread that can go on: the warp that runs first if the schedule says so, else the next in order.
    // Only when none can, the units beside the threads (TMA copies) get on with their work.
    void give_way() {
        const int n = int(threads.size()), me = rank[self->id.x], warp = me / 32 * 32;
        do {
            if (seed & 1)
                for (int i = warp; i < warp + 32; i++)
                    if (threads[order[i]].ready()) return go_to(&threads[order[i]]);
            const int first = seed & 32 ? int(random() % n) : 1;
            for (int i = first; i < first + n; i++)
                if (threads[order[(me + i) % n]].ready()) return go_to(&threads[order[(me + i) % n]]);
        } while (work_beside());
        for (Thread& thread : threads)
            if (!thread.lacks.empty()) fail("deadlock: " + thread.lacks);
        for (Thread& thread : threads)
            if (!thread.done) fail("deadlock: not every thread comes to " + thread.place.text());
        switch_fiber(self->fiber, home);  // all are done
    }

    // One piece of the work beside the threads, any piece; false if there is none.
    bool work_beside() {
        if (beside.empty()) return false;
        const size_t which = seed ? random() % beside.size() : 0;
        const std::function<void()> piece = beside[which];
        beside.erase(beside.begin() + which);
        piece();
        return true;
    }

    // Wait until `may_go` says so.
    void wait(std::function<bool()> may_go, const Place& place) {
        self->may_go = std::move(may_go);
        self->place = place;
        if (!self->ready() || seed) give_way();
        self->may_go = nullptr;
    }

    // What __launch_bounds__(most, blocks) says of a kernel: a launch of more threads fails, and if it says `blocks` the
    // registers of a multiprocessor are shared out among the threads of so many.
    void keep_bounds(const Place& place, int most, int blocks = 0) {
        const std::string bounds = "the __launch_bounds__ at " + place.text();
        if (int(threads.size()) > most)
            fail("too many threads in a block: " + bounds + " allow " + std::to_string(most) + ", got " +
                 std::to_string(threads.size()));
        most = (most + 31) / 32 * 32;
        if (most * blocks > RESIDENT)
            fail(bounds + " ask for " + std::to_string(most * blocks) + " threads on a multiprocessor, which holds " +
                 std::to_string(RESIDENT));
        if (blocks) registers = std::min(REGISTERS / (most * blocks) / 8 * 8, 248);
    }

    // One more has come to a meeting of n.
    void come(Meeting& meeting, int n) {
        if (++meeting.present < n) return;
        meeting.present = 0;
        meeting.round++;
        meeting.votes[meeting.round & 1] = 0;
    }

    // Wait until n threads have come to this meeting, all from the same place in the source.
    void meet(Meeting& meeting, int n, const Place& place) {
        if (meeting.present && meeting.place != place)
            fail("divergence: some threads are at " + meeting.place.text() + ", others at " + place.text());
        meeting.place = place;
        const int round = meeting.round;
        come(meeting, n);
        wait([&meeting, round] { return meeting.round != round; }, place);
    }
    bool meet_or(Meeting& meeting, int n, const Place& place, bool vote) {
        const int round = meeting.round & 1;
        meeting.votes[round] |= vote;
        meet(meeting, n, place);
        return meeting.votes[round];
    }

    void barrier(const Place& place) { meet(all, int(threads.size()), place); }
    int barrier_or(const Place& place, int vote) { return meet_or(all, int(threads.size()), place, vote); }

    // Every lane shows a slot, then reads those of the others.
    const Slot* exchange(const Slot& mine, const Place& place) {
        Warp& warp = warps[self->id.x / 32];
        Slot* slots = warp.slots[warp.meeting.round & 1];
        slots[lane()] = mine;
        meet(warp.meeting, 32, place);
        return slots;
    }
};
inline Block* block = nullptr;  // the one that runs; kernels run one at a time

inline void run_thread() {
    (*block->kernel)();
    block->self->done = true;
    block->give_way();
}

inline void check_sizes(dim3 grid, int threads, size_t shared) {
    if (threads < 32 || threads > 1024 || threads % 32)
        throw std::runtime_error("a block must have 1 to 32 whole warps: got " + std::to_string(threads) + " threads");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || !grid.x || !grid.y || !grid.z)
        throw std::runtime_error("the grid is out of bounds: " + std::to_string(grid.x) + " x " +
                                 std::to_string(grid.y));
    if (const size_t limit = gpu::shared_limit(capability); shared > limit)
        throw std::runtime_error("a block has at most " + std::to_string(limit) + " bytes of shared memory: got " +
                                 std::to_string(shared));
}

// Shuffled warps, and shuffled lanes inside them.
inline void choose_order(Block& b) {
    const int n = int(b.threads.size());
    std::vector<int> warps(n / 32), lanes(32);
    for (int i = 0; i < n / 32; i++) warps[i] = i;
    for (int i = 0; i < 32; i++) lanes[i] = i;
    if (seed) {
        std::shuffle(warps.begin(), warps.end(), b.random);
        std::shuffle(lanes.begin(), lanes.end(), b.random);
    }
    b.order.resize(n);
    b.rank.resize(n);
    for (int t = 0; t < n; t++) b.rank[b.order[t] = warps[t / 32] * 32 + lanes[t % 32]] = t;
}

inline void run_block(Block& b, size_t shared) {
    b.all = Meeting();
    b.warps.assign(b.threads.size() / 32, Warp());
    std::memset(b.shared, FILL, shared);
    make_guards(b.shared, shared, SHARED_GUARD);
    choose_order(b);
    for (size_t t = 0; t < b.threads.size(); t++) {
        Thread& thread = b.threads[t];
        thread.id = dim3(unsigned(t), 0, 0);
        thread.done = false;
        thread.may_go = nullptr;
        thread.copies.assign(1, {});
        thread.made.clear();
        start_fiber(thread.fiber, run_thread);
    }
    static int blocks_run = 0;
    b.serial = ++blocks_run;
    b.beside.clear();
    b.under_way = 0;
    b.self = &b.threads[b.order[0]];
    switch_fiber(b.home, b.self->fiber);
    if (!b.error.empty()) throw std::runtime_error(b.error);
    if (b.under_way) throw std::runtime_error("a block ended while copies or matmuls that it began were under way");
    check_guard(b.shared - GUARD, SHARED_GUARD, "shared memory");
    check_guard(b.shared + shared, SHARED_GUARD, "shared memory");
}

inline void run(dim3 grid, int threads, size_t shared, const std::function<void()>& kernel) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    check_sizes(grid, threads, shared);
    Block b;
    block = &b;
    const std::unique_ptr<Block*, void (*)(Block**)> nobody_after(&block, [](Block** running) { *running = nullptr; });
    b.grid = grid;
    b.kernel = &kernel;
    b.threads = std::vector<Thread>(threads);
    b.random.seed(seed);
    std::vector<unsigned char> memory(shared + 3 * GUARD);  // shared memory begins at a multiple of 1024
    const uintptr_t start = (reinterpret_cast<uintptr_t>(memory.data()) + 2 * GUARD - 1) / GUARD * GUARD;
    b.shared = reinterpret_cast<unsigned char*>(start);
    b.shared_bytes = shared;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = first_x; x < grid.x; x++) {
                b.index = dim3(x, y, z);
                run_block(b, shared);
            }
    check_device_guards();
}

// What the device is to do, in order; while there is a recording, it is kept there instead, to be replayed.
using Recording = std::vector<std::function<void()>>;
inline Recording* recording = nullptr;
inline void submit(std::function<void()> work) {
    if (recording) recording->push_back(std::move(work));
    else work();
}
inline void refuse_in_recording(const char* what) {
    if (recording) throw std::runtime_error(std::string("a recording cannot hold ") + what);
}
}  // namespace emu

// ---- the host's side, as in gpu_nvcc.h ----

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, int threads, size_t shared, stream_t stream, A... args) {
    (emu::use_arrays_of<P>(P(args), stream), ...);
    emu::submit([=] { emu::run(grid, threads, shared, [=] { kernel(P(args)...); }); });
}
