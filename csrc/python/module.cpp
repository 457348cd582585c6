// The extension of one instruction set, minillm._cpp.MODULE: all functions that the files of csrc/cpu register.
//
// The same sources are compiled once per instruction set (see setup.py), each time into a module of its own, so that
// nothing compiled for AVX-512 can be linked into the module that an older CPU loads. Python picks the module at import.
// To add an op, see register.h.
#include <pthread.h>

#include "cpu/isa/openmp.h"
#include "python/register.h"

namespace minillm {

// fork copies one thread, and libgomp would wait for the others of its pool for ever: so the pool ends before a fork, and
// parent and child start a new one when they need it. LLVM's OpenMP does that itself.
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__)
const int at_fork = pthread_atfork([] { omp_pause_resource_all(omp_pause_hard); }, nullptr, nullptr);
#endif

const Register threads[] = {{"max_threads()", +[] { return int64_t(omp_get_max_threads()); }},
                            {"set_threads(n)", +[](int64_t n) { omp_set_num_threads(int(n)); }}},
               lent_buffer(&add_lent_buffer);

}  // namespace minillm

#define TEXT(name) #name
#define INIT(name)                                                                           \
    extern "C" __attribute__((visibility("default"))) _object* PyInit_##name() {             \
        return minillm::new_module(TEXT(name), "minillm's kernels for one instruction set"); \
    }
#define INIT_OF(name) INIT(name)
INIT_OF(MODULE)
