// OpenMP in one place. Work is cut into a fixed number of chunks, whatever the number of threads, so that a sum over
// chunks has one order and results do not depend on how many threads there are.
#pragma once

#include "cpu/isa/openmp.h"
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cstdint>

namespace minillm {

constexpr int64_t CHUNKS = 16;      // pieces of a reduction over rows

struct Range { int64_t begin, end; };

inline Range chunk_of(int64_t n, int64_t chunk) { return {n * chunk / CHUNKS, n * (chunk + 1) / CHUNKS}; }

// Threads that sleep and wake many times in a millisecond may end up on one core, and the system can take many milliseconds
// to notice; meanwhile all takes twice as long. So for the time of a region, each thread stays on a core of its own:
//
//   Team team;
//   #pragma omp parallel
//   { KeptApart apart(team); ... }
//
// For regions of a hundred microseconds or more, of which this takes a few. Between them the system may move the threads
// as it likes; whoever binds threads by OMP_PROC_BIND, or has more threads than cores, is left alone.
struct Team {
    static constexpr int MOST = 64;
    int core[MOST];                       // where each thread was at the start
};

class KeptApart {
#if defined(__linux__)
    cpu_set_t allowed;
    bool bound = false;

    void stay_on(int core) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        bound = sched_setaffinity(0, sizeof one, &one) == 0;
    }

    // The core of thread `me`, or if a thread before it is there, one that nobody has; -1 if there is none.
    int place(const Team& team, int me, int threads) const {
        int others = 0;                                              // before me, that need another core, too
        for (int i = 1; i < me; i++) others += !first_there(team, i);
        if (first_there(team, me)) return team.core[me];
        for (int core = 0; core < CPU_SETSIZE; core++)
            if (CPU_ISSET(core, &allowed) && std::find(team.core, team.core + threads, core) == team.core + threads &&
                others-- == 0)
                return core;
        return -1;
    }
    static bool first_there(const Team& team, int i) {
        return std::find(team.core, team.core + i, team.core[i]) == team.core + i;
    }

public:
    explicit KeptApart(Team& team) {
        int me = omp_get_thread_num(), threads = omp_get_num_threads();
        if (threads == 1 || threads > Team::MOST || omp_get_proc_bind() != omp_proc_bind_false) return;
        team.core[me] = sched_getcpu();
#pragma omp barrier
        if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < threads) return;
        int core = place(team, me, threads);
        if (core >= 0) stay_on(core);
    }
    ~KeptApart() {
        if (bound) sched_setaffinity(0, sizeof allowed, &allowed);
    }
    KeptApart(const KeptApart&) = delete;
#else
public:
    explicit KeptApart(Team&) {}
#endif
};

}  // namespace minillm
