// Before and after a kernel call, of whichever thread of Python: how many threads it gets (pace.h), where (apart.h).
#pragma once

#include <time.h>

#include <unordered_map>

#include "cpu/isa/apart.h"
#include "cpu/isa/openmp.h"
#include "cpu/isa/pace.h"

namespace minillm {

class Paced {
    static constexpr double LONG = 3e-4;  // seconds: calls worth three system calls, some microseconds
    static constexpr size_t MOST_KINDS = 4096;
    std::unordered_map<const void*, double> last;  // how long the last call took, by kind
    Pace pace;
    Apart apart;
    int all = 1;  // threads that may be used
    bool watched = false;
    double start = 0, ran = 0;  // on the clock; CPU time of the calling thread

    static double seconds(clockid_t clock) {
        timespec now;
        clock_gettime(clock, &now);
        return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
    }
    static Paced& mine() {
        thread_local Paced of_this_thread;
        return of_this_thread;
    }

    void begin(const void* kind) {
        all = omp_get_max_threads();
        if (all == 1) return;
        int n = pace.threads(all);
        if (n < all) omp_set_num_threads(n);
        auto before = last.find(kind);
        if (before == last.end() || before->second > LONG) apart.begin(n);
        watched = pace.watches();
        start = seconds(CLOCK_MONOTONIC);
        if (watched) ran = seconds(CLOCK_THREAD_CPUTIME_ID);
    }
    void end(const void* kind) {
        if (all == 1) return;
        apart.end();
        double time = seconds(CLOCK_MONOTONIC) - start;
        pace.add(kind, time, watched ? time - (seconds(CLOCK_THREAD_CPUTIME_ID) - ran) : 0);
        if (last.size() > MOST_KINDS) last.clear();
        last[kind] = time;
        omp_set_num_threads(all);
    }

public:
    static int threads_now() { return mine().pace.threads(omp_get_max_threads()); }
    static void before(const void* kind) { mine().begin(kind); }
    static void after(const void* kind) { mine().end(kind); }
};

}  // namespace minillm
