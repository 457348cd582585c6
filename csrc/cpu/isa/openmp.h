// OpenMP, or what a compiler without it needs to build the same sources for one thread.
#pragma once

#if defined(_OPENMP)
#include <omp.h>
#else
enum omp_proc_bind_t { omp_proc_bind_false };
inline int omp_get_thread_num() { return 0; }
inline int omp_get_num_threads() { return 1; }
inline int omp_get_max_threads() { return 1; }
inline void omp_set_num_threads(int) {}
inline omp_proc_bind_t omp_get_proc_bind() { return omp_proc_bind_false; }
#endif
