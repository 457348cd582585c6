// How many threads a kernel gets: all, or fewer while other work wants the same cores.
//
// Threads that meet at barriers are as fast as the last of them, and where a core is shared, the last one waits for
// whole time slices: two threads beside one busy process may take longer than one. So kernel calls are watched, and
// where the calling thread loses time (it sleeps at barriers, or waits for a core), fewer threads are tried, and kept
// if that is faster:
//
//   usual   a window of calls with as many threads as usual. Nothing lost, and all in use: watch again later
//   trial   else one with fewer (or with more, where not all are in use). Not faster than the window before: given up,
//           and early if it is far from it
//   check   one as usual again, for what came before the trial may be an accident. Not faster than this: given up
//
// Windows are compared by kinds of calls: the time of all calls whose kind the window before has seen, and their number
// times its mean of the kind. A trial that failed doubles the time until the next one, and takes a ninth of all time at
// most. Sums have one order whatever the number of threads, so no result changes by this.
#pragma once

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace minillm {

class Pace {
    static constexpr double WINDOW = 0.04, LONGEST = 1, SHORT = 0.04, LONG = 0.8;  // seconds
    static constexpr double LOST = 0.15, BETTER = 1.05, MUCH_WORSE = 1.3;
    struct Times {
        double sum = 0;
        int count = 0;
    };
    typedef std::unordered_map<const void*, Times> Kinds;
    enum Phase { USUAL, TRIAL, CHECK } phase = USUAL;
    int most = 0, home = 0, tried = 0;  // threads: all; as usual; in a trial
    double pause = 0, patience = SHORT;  // until the next window; after a trial that failed
    Kinds before, seen;  // of the window before, and of this one
    double time = 0, lost = 0,
           trial_time = 0;  // of the window; of which the calling thread did not run; of the last trial
    double compared = 0, expected = 0;  // of the window, calls whose kind is in `before`, and as they were there

    static int fewer(int n) { return n - std::max(1, n / 4); }
    int more(int n) const { return std::min(most, n + std::max(1, n / 3)); }

    void begin(Phase next) {
        phase = next;
        before = phase == USUAL ? Kinds() : std::move(seen);
        seen.clear();
        time = lost = compared = expected = 0;
    }

    void rest(double seconds) {
        pause = seconds;
        begin(USUAL);
    }

    void fail() {
        patience = std::min(2 * patience, LONG);
        rest(std::max(patience, 8 * trial_time));
    }

    void end_usual() {
        bool waits = lost >= LOST * time && home > 1;
        if (!waits && home == most) return rest(patience = SHORT);
        tried = waits ? fewer(home) : more(home);
        begin(TRIAL);
    }

    void end_trial() {
        trial_time = time;
        if (compared >= WINDOW && expected > BETTER * compared) begin(CHECK);
        else fail();
    }

    void end_check() {
        if (compared < WINDOW || compared <= BETTER * expected) return fail();
        home = tried;
        rest(patience = SHORT);
    }

public:
    // For the next call, where `all` may be used.
    int threads(int all) {
        if (all != most) *this = Pace(), most = home = all;
        return phase == TRIAL ? tried : home;
    }
    bool watches() const { return pause <= 0; }

    // After a call: its kind, its time and for how much of that the calling thread did not run (known if watched).
    void add(const void* kind, double seconds, double not_running) {
        if (!watches()) return void(pause -= seconds);
        Times& times = seen[kind];
        times = {times.sum + seconds, times.count + 1};
        time += seconds, lost += not_running;
        if (auto known = before.find(kind); known != before.end())
            compared += seconds, expected += known->second.sum / known->second.count;
        bool hopeless = phase == TRIAL && tried > home && compared >= WINDOW / 2 && compared > MUCH_WORSE * expected;
        if ((phase == USUAL ? time : compared) < WINDOW && time < LONGEST && !hopeless) return;
        if (phase == USUAL) end_usual();
        else if (phase == TRIAL) end_trial();
        else end_check();
    }
};

}  // namespace minillm
