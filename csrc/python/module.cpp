// The extension of one instruction set, minillm._cpp.MODULE: all functions that the files of csrc/cpu register.
//
// The same sources are compiled once per instruction set (see setup.py), each time into a module of its own, so that
// nothing compiled for AVX-512 can be linked into the module that an older CPU loads. Python picks the module at import.
// To add an op, see register.h.
#include <pthread.h>

#include "cpu/isa/openmp.h"
#include "cpu/isa/paced.h"
#include "cpu/memory/lent_pages.h"
#include "python/register.h"

namespace minillm {

// fork copies one thread, and libgomp would wait for the others of its pool for ever: so the pool ends before a fork, and
// parent and child start a new one when they need it. LLVM's OpenMP does that itself.
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__)
const int at_fork = pthread_atfork([] { omp_pause_resource_all(omp_pause_hard); }, nullptr, nullptr);
#endif
const int counts_forks = pthread_atfork([] { forks++; }, nullptr, nullptr);

const bool paced = (around_kernels = {&Paced::before, &Paced::after}, true);

// A pace of its own, for tests: the calls are simulated.
Pace& pace_of(const Object& handle) {
    if (auto* pace = held<Pace>(handle)) return *pace;
    fail_type("pace", handle);
}

void pace_add(const Object& pace, int64_t kind, double seconds, double not_running) {
    pace_of(pace).add(reinterpret_cast<const void*>(kind), seconds, not_running);
}

// The gradient buffer, which lends its pages (memory/lent_pages.h).
struct LentBuffer {
    Object array;  // kept alive
    LentPages pages;
};

LentBuffer& lent(const Object& handle) {
    if (auto* buffer = held<LentBuffer>(handle)) return *buffer;
    fail_type("buffer", handle);
}

Object lend(const Array& array) {
    check_contiguous("array", array);
    if (!array.writeable) fail("array must be writeable");
    return handle_of(new LentBuffer{array, {array.data, array.size() * array.itemsize}});
}

void expect(const Object& buffer, int64_t begin, int64_t end) {
    LentPages& pages = lent(buffer).pages;
    if (begin < 0 || begin > end || end > pages.bytes()) fail("expect: begin and end must lie in the buffer, in order");
    pages.expect(begin, end);
}

const Register registered[] = {
    {"new_pace()", +[] { return handle_of(new Pace); }},
    {"pace_threads(pace, all)",
     +[](const Object& pace, int64_t all) { return int64_t(pace_of(pace).threads(int(all))); }},
    {"pace_add(pace, kind, seconds, not_running)", &pace_add},
    {"threads_now()", +[] { return int64_t(Paced::threads_now()); }},
    {"max_threads()", +[] { return int64_t(omp_get_max_threads()); }},
    {"set_threads(n)", +[](int64_t n) { omp_set_num_threads(int(n)); }},
    {"lend(array)", &lend},
    {"clear_lent(buffer)", +[](const Object& buffer) { lent(buffer).pages.clear(); }},
    {"expect_lent(buffer, begin, end)", &expect}};

}  // namespace minillm

DEFINE_MODULE(MODULE, "minillm's kernels for one instruction set")
