// The extension of one instruction set, minillm._cpp.MODULE: all functions that the files of csrc/cpu register.
//
// The same sources are compiled once per instruction set (see setup.py), each time into a module of its own, so that
// nothing compiled for AVX-512 can be linked into the module that an older CPU loads. Python picks the module at import.
// To add an op, see register.h.
#include "cpu/isa/openmp.h"
#include "python/register.h"

namespace minillm {

const Register threads[] = {{"max_threads()", +[] { return int64_t(omp_get_max_threads()); }},
                            {"set_threads(n)", +[](int64_t n) { omp_set_num_threads(int(n)); }}},
               lent_buffer(&add_lent_buffer);

}  // namespace minillm

MINILLM_INIT_OF(MODULE, "minillm's kernels for one instruction set")
