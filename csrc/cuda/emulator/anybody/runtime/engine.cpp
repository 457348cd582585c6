#include "engine.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "memory.h"
#include "report.h"

namespace minillm_cuda {
Thread* current = nullptr;
Launch* launched = nullptr;
unsigned schedule = 0;
double seconds = 20;
uintptr_t stacks = 0;
size_t stacks_bytes = 0;

namespace {
constexpr size_t STACK = 256 << 10, PAGE = 4096;
size_t most_threads = 16384;                // at once; fewer where address space is short
std::mt19937 random_numbers;
uint64_t blocks_begun = 0;
int spins = 0;                              // times in a row that a thread gave way without meeting anybody

struct Stacks {
    size_t guarded = 0;
    Stacks() {
        void* memory = MAP_FAILED;
        for (most_threads *= 2; memory == MAP_FAILED && most_threads > 1024;) {
            most_threads /= 2;
            stacks_bytes = STACK * most_threads;
            memory =
                mmap(nullptr, stacks_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        }
        if (memory == MAP_FAILED) abort();
        stacks = reinterpret_cast<uintptr_t>(memory);
    }
    // Stack i, with a page below it that nobody may touch.
    char* get(size_t i) {
        char* stack = reinterpret_cast<char*>(stacks) + i * STACK;
        for (; guarded <= i; guarded++) mprotect(reinterpret_cast<char*>(stacks) + guarded * STACK, PAGE, PROT_NONE);
        return stack;
    }
};
std::vector<Block*>& pool() {               // blocks that were used before: their memory serves again
    static auto* blocks = new std::vector<Block*>();
    return *blocks;
}

// The running thread cannot go on: the next one does, or the host decides.
void go_on() {
    Thread* me = current;
    if (launched->ready.empty()) {
        current = nullptr;
        emu::switch_fiber(me->fiber, launched->home);
        return;
    }
    current = launched->ready.front();
    launched->ready.pop_front();
    if (current != me) emu::switch_fiber(me->fiber, current->fiber);
}

void wait(uintptr_t place) {
    current->waits_at = place;
    go_on();
}

void release(std::vector<Thread*>& threads) {
    if (schedule) std::shuffle(threads.begin(), threads.end(), random_numbers);
    for (Thread* thread : threads) {
        thread->waits_at = 0;
        if (thread == current) continue;
        if (schedule & 1) launched->ready.push_front(thread);
        else launched->ready.push_back(thread);
    }
    threads.clear();
    spins = 0;
}

// Everything that the threads did before is known to all of them.
void all_known(const std::vector<Thread*>& threads) {
    uint32_t clock = 0;
    for (const Thread* thread : threads) clock = std::max(clock, thread->clock + 1);
    for (Thread* thread : threads) thread->clock = thread->base = clock;
}

void complete(Barrier& b) {
    all_known(b.waiting);
    const uint64_t count = b.voted, all = b.voted == b.arrived, any = b.voted > 0;
    for (Thread* thread : b.waiting) thread->votes = all | any << 1 | count << 2;
    release(b.waiting);
    b.arrived = 0;
}

std::string waiting_text(const Block& block) {
    int waiting = 0;
    for (const Thread& thread : block.threads) waiting += !thread.done;
    return say(waiting, " of ", block.threads.size(), " threads");
}

// A barrier of the whole block is complete when all threads that are left have come; but none should have left.
void check_block_barrier(Block& block) {
    Barrier& b = block.barriers[0];
    if (!b.arrived || b.expected || b.arrived < block.alive) return;
    if (block.alive < int(block.threads.size()) && !known("divergence", b.place, 0))
        found({"divergence", "error",
               say("__syncthreads is reached by ", waiting_text(block),
                   " of the block: the "
                   "others have left the kernel"),
               b.place});
    complete(b);
}

// What each lane knows of the others after __syncwarp.
void join(Thread* first, unsigned members) {
    uint32_t knows[32] = {}, base = 0;
    for (int lane = 0; lane < 32; lane++) {
        if (!(members >> lane & 1)) continue;
        const Thread& t = first[lane];
        base = std::max(base, t.base);
        for (int other = 0; other < 32; other++) knows[other] = std::max(knows[other], t.knows[other]);
        knows[lane] = std::max(knows[lane], t.clock + 1);
    }
    for (int lane = 0; lane < 32; lane++)
        if (members >> lane & 1) {
            std::copy(knows, knows + 32, first[lane].knows);
            first[lane].base = base;
            first[lane].clock++;
        }
}

void check_gatherings(Block& block, Warp& warp) {
    Thread* first = &block.threads[(&warp - block.warps.data()) * 32];
    for (size_t i = 0; i < warp.open.size(); i++) {
        std::shared_ptr<Gathering> g = warp.open[i];
        if (g->mask & warp.alive & ~g->present) continue;
        warp.open.erase(warp.open.begin() + i--);
        if (g->kind == Kind::sync) join(first, g->present);
        std::vector<Thread*> members;
        for (int lane = 0; lane < 32; lane++)
            if (g->present >> lane & 1) members.push_back(first + lane);
        release(members);
    }
}

void run_thread() {
    launched->call(launched->arguments);
    Thread& me = *current;
    me.done = true;
    for (auto& group : me.copies)
        for (auto& copy : group) copy();
    me.warp->alive &= ~(1u << me.lane);
    me.block->alive--;
    check_block_barrier(*me.block);
    check_gatherings(*me.block, *me.warp);
    go_on();
    abort();
}

Index index_of(uint64_t i, const Index& size) {
    return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

void start_block(Launch& l) {
    static Stacks memory;
    const size_t slot = l.live.size();
    if (slot == pool().size()) pool().push_back(new Block());
    Block& b = *pool()[slot];
    const int n = l.threads_per_block;
    b.index = index_of(l.next_block, l.grid);
    b.born = b.serial = ++blocks_begun;
    b.acquired = 0;
    b.slot = int(slot);
    b.alive = n;
    b.sampled = l.next_block < (l.cooperative ? 1 : 2);
    l.next_block++;
    if (int(b.threads.size()) != n) b.threads = std::vector<Thread>(n);
    b.warps.assign((n + 31) / 32, Warp());
    for (Barrier& barrier : b.barriers) barrier = Barrier();
    std::vector<Thread*> begin;
    for (int i = 0; i < n; i++) {
        Thread& t = b.threads[i];
        t.block = &b;
        t.warp = &b.warps[i / 32];
        t.warp->alive |= 1u << i % 32;
        t.id = index_of(i, l.size);
        t.number = i;
        t.lane = i % 32;
        t.done = t.fenced = false;
        t.waits_at = 0;
        t.clock = t.base = 1;
        t.steps = 0;
        std::fill(t.knows, t.knows + 32, 0);
        t.learned.clear();
        t.copies.resize(1);
        t.copies[0].clear();
        emu::start_fiber_on(t.fiber, run_thread, memory.get(slot * n + i), STACK);
        begin.push_back(&t);
    }
    l.live.push_back(&b);
    release(begin);
}

bool more_blocks_fit(const Launch& l) {
    return l.next_block < l.blocks && (l.live.size() + 1) * l.threads_per_block <= most_threads &&
           l.live.size() < SHARED_SLOTS;
}

// Nobody can go on, but not all are done.
void deadlock(Launch& l) {
    for (const Block* block : l.live) {
        std::vector<const Thread*> stuck;
        for (const Thread& t : block->threads)
            if (!t.done) stuck.push_back(&t);
        if (stuck.empty()) continue;
        const uintptr_t here = stuck[0]->waits_at;
        uintptr_t there = 0;
        int number = 0;
        for (const Thread* t : stuck) {
            number += t->waits_at == here;
            if (t->waits_at != here) there = t->waits_at;
        }
        std::string text = say(number, " threads wait here for others that do not come");
        if (there) text += say("; ", stuck.size() - number, " wait at {other}");
        if (stuck.size() < block->threads.size()) text += say("; ", block->threads.size() - stuck.size(), " have left");
        current = const_cast<Thread*>(stuck[0]);
        found({"deadlock", "error", text, here, there});
        current = nullptr;
        return;
    }
}

struct sigaction before[NSIG];

void on_signal(int number, siginfo_t* info, void* context) {
    uintptr_t pc = last_place;
#if defined(__x86_64__)
    const auto at = uintptr_t(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]) + 1;
    if (in_users_code(at)) pc = at;
#endif
    if (number == SIGPROF || number == SIGALRM) {
        const char* name = launched && launched->name ? launched->name : "the kernel";
        found({"hang", "error",
               number == SIGPROF ? say(name, " still runs after ", int(seconds), " s of CPU time")
                                 : say(name, " still runs after ", int(2 * seconds), " s"),
               pc});
        write_counts();
        _exit(124);
    }
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    const bool stack = number == SIGSEGV && address - stacks < stacks_bytes;
    found({"crash", "error",
           stack               ? "a thread needs more than 256 KB of stack (endless recursion, or large local arrays)"
           : number == SIGFPE  ? std::string("division by zero")
           : number == SIGABRT ? std::string("the kernel calls abort")
           : number == SIGILL  ? std::string("the kernel traps")
                               : "the kernel touches memory that does not exist, " + what_is(address),
           pc});
    write_counts();
    sigaction(number, &before[number], nullptr);  // the instruction faults again, in front of whoever else watches
}

// While a kernel runs its faults and its time are ours.
void watch(bool on) {
    static char* stack = static_cast<char*>(malloc(1 << 16));
    stack_t other{};
    other.ss_sp = stack;
    other.ss_size = 1 << 16;
    sigaltstack(&other, nullptr);
    for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGPROF, SIGALRM}) {
        struct sigaction action{};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        if (on) sigaction(number, &action, &before[number]);
        else sigaction(number, &before[number], nullptr);
    }
    const auto after = [on](double s) {
        itimerval timer{};
        if (on) timer.it_value = {long(s), long((s - double(long(s))) * 1e6)};
        return timer;
    };
    const itimerval of_cpu = after(seconds), of_clock = after(2 * seconds);  // on a busy machine the clock is first
    setitimer(ITIMER_PROF, &of_cpu, nullptr);
    setitimer(ITIMER_REAL, &of_clock, nullptr);
}

void run_blocks(Launch& l) {
    do {
        do start_block(l);
        while (l.cooperative && l.next_block < l.blocks);
        while (!l.ready.empty() && !l.abandoned) {
            current = l.ready.front();
            l.ready.pop_front();
            emu::switch_fiber(l.home, current->fiber);
            current = nullptr;
        }
        for (const Block* block : l.live)
            if (block->alive && !l.abandoned) {
                deadlock(l);
                l.abandoned = true;
            }
        for (Block* block : l.live) end_of_block(*block);
        l.live.clear();
    } while (l.next_block < l.blocks && !l.abandoned);
}
}  // namespace

int run_launch(Launch& l) {
    random_numbers.seed(schedule);
    l.blocks = uint64_t(l.grid.x) * l.grid.y * l.grid.z;
    l.first_serial = blocks_begun + 1;
    launched = &l;
    start_of_launch(l);
    watch(true);
    run_blocks(l);
    watch(false);
    end_of_launch(l);
    launched = nullptr;
    return l.abandoned ? 719 : 0;  // cudaErrorLaunchFailure
}

void abandon() {
    Thread* me = current;
    launched->abandoned = true;
    current = nullptr;
    emu::switch_fiber(me->fiber, launched->home);
    abort();
}

void give_way() {
    if (launched->ready.empty() && ++spins > 8 && more_blocks_fit(*launched)) start_block(*launched);
    launched->ready.push_back(current);
    go_on();
}

uint64_t block_barrier(int which, int expected, int vote, uintptr_t place) {
    Block& block = *current->block;
    Barrier& b = block.barriers[which];
    if (b.arrived && b.place != place && !expected && !known("divergence", b.place, place))
        found({"divergence", "error", "some threads of the block are at this __syncthreads, others at {other}", b.place,
               place});
    if (!b.arrived) b.voted = 0;
    b.expected = expected;
    b.place = place;
    b.voted += vote != 0;
    b.arrived++;
    b.waiting.push_back(current);
    if (!expected && b.arrived >= block.alive) check_block_barrier(block);
    else if (expected && b.arrived >= expected) complete(b);
    else wait(place);
    return current->votes;
}

void grid_barrier(uintptr_t place) {
    Launch& l = *launched;
    if (!l.cooperative) {
        found({"launch", "error", "grid.sync() needs a launch by cudaLaunchCooperativeKernel", place});
        if (l.blocks > 1) abandon();
    }
    Barrier& b = l.grid_barrier;
    int alive = 0;
    for (const Block* block : l.live) alive += block->alive;
    b.arrived++;
    b.waiting.push_back(current);
    if (b.arrived < alive) return wait(place);
    complete(b);
    l.first_serial = blocks_begun + 1;
    for (Block* block : l.live) block->serial = ++blocks_begun;
}

std::shared_ptr<const Gathering> gather(Kind kind, unsigned mask, const uint64_t* words, int count, uintptr_t place) {
    Thread& me = *current;
    Warp& warp = *me.warp;
    if (!(mask >> me.lane & 1)) {
        if (!known("divergence", place, 0))
            found({"divergence", "error",
                   say("lane ", me.lane, " takes part in a warp-wide instruction whose mask ", hexadecimal(mask),
                       " leaves it out"),
                   place});
        mask = 1u << me.lane;
    }
    std::shared_ptr<Gathering> mine;
    for (auto& g : warp.open)
        if (g->mask == mask && g->kind == kind && !(g->present >> me.lane & 1)) mine = g;
    if (!mine) {
        mine = std::make_shared<Gathering>();
        mine->mask = mask;
        mine->kind = kind;
        mine->place = place;
        warp.open.push_back(mine);
    } else if (mine->place != place && kind != Kind::sync && !known("divergence", mine->place, place)) {
        found({"divergence", "error", "some lanes of the mask are at this warp-wide instruction, others at {other}",
               mine->place, place});
    }
    std::copy(words, words + count, mine->values[me.lane]);
    mine->present |= 1u << me.lane;
    if (mask & warp.alive & ~mine->present) wait(place);
    else check_gatherings(*me.block, warp);
    return mine;
}
}  // namespace minillm_cuda
