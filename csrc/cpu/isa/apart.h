// Threads on different cores, for the time of a kernel call.
//
// Threads that sleep and wake many times in a millisecond may end up on one core, and the system can take tens of
// milliseconds to notice, or not notice at all (virtual machines whose cores seem to share no cache); meanwhile all
// takes twice as long. So the other threads of the pool are told where to run, whenever the calling thread has moved: as many
// threads as cores get a core each, fewer keep off the core of the calling thread. They stay so. The calling thread,
// which would follow whom it wakes, is bound for the time of the call: children of the process inherit from it.
//
// Whoever binds threads by OMP_PROC_BIND, or has more threads than cores, is left alone.
#pragma once

#include "cpu/isa/openmp.h"
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <vector>

namespace minillm {

inline std::atomic<int> forks{0};  // of this process: its pool of threads ends with each

class Apart {
#if defined(__linux__)
    struct Thread {
        pid_t id;
        int core;
    };
    std::vector<Thread> others;  // of the pool, and where they were when it was looked at
    cpu_set_t placed_in;  // where the calling thread might run, when the others were placed
    int core = -1, forks_then = -1;  // of the calling thread, when the others were placed
    bool bound = false;

    static cpu_set_t only(int core) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        return set;
    }
    bool is_taken(int by_core, size_t before) const {
        bool taken = by_core == core;
        for (size_t i = 0; i < before; i++) taken |= others[i].core == by_core;
        return taken;
    }

    // Also makes the pool of n threads, which inherit where the calling thread may run: it must not be bound then.
    void find_others(int n) {
        others.assign(n - 1, {0, -1});
#pragma omp parallel num_threads(n)
        if (int me = omp_get_thread_num(); me > 0 && me < n)
            others[me - 1] = {pid_t(syscall(SYS_gettid)), sched_getcpu()};
    }

    void place_others() {
        bool all_cores = CPU_COUNT(&placed_in) == int(others.size()) + 1;
        for (size_t i = 0; i < others.size(); i++) {
            cpu_set_t set = placed_in;
            CPU_CLR(core, &set);
            if (all_cores) {
                int c = others[i].core;
                if (c < 0 || !CPU_ISSET(c, &placed_in) || is_taken(c, i))
                    for (c = 0; !CPU_ISSET(c, &placed_in) || is_taken(c, others.size());) c++;
                set = only(others[i].core = c);
            }
            if (others[i].id) sched_setaffinity(others[i].id, sizeof set, &set);
        }
    }

public:
    void begin(int n) {
        if (n == 1 || omp_get_proc_bind() != omp_proc_bind_false) return;
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < n) return;
        bool new_pool = int(others.size()) != n - 1 || forks_then != forks;
        if (new_pool) find_others(n), forks_then = forks;
        int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE || !CPU_ISSET(here, &allowed)) return;
        if (new_pool || here != core || !CPU_EQUAL(&allowed, &placed_in)) {
            core = here, placed_in = allowed;
            place_others();
        }
        cpu_set_t set = only(core);
        bound = sched_setaffinity(0, sizeof set, &set) == 0;
    }
    void end() {
        if (bound) sched_setaffinity(0, sizeof placed_in, &placed_in);
        bound = false;
    }
#else
public:
    void begin(int) {}
    void end() {}
#endif
};

}  // namespace minillm
