// CUDA's words: qualifiers, built-in variables, launches, shared memory, barriers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __align__(n) __attribute__((aligned(n)))
#define __managed__
#define __grid_constant__
#define __noinline__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __cluster_dims__(...)
#define __CUDACC__ 1
#define __CUDACC_VER_MAJOR__ 12
#define CUDART_VERSION 12040
#define CUDA_VERSION 12040
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __shared__ MINILLM_the_rewriter_missed_this_shared_variable

// Ours: inlined always, so that the place of an access is the user's line; or never, and not watched itself.
#define MINILLM_INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define MINILLM_QUIET __attribute__((noinline, disable_sanitizer_instrumentation))
#else
#define MINILLM_QUIET __attribute__((noinline, noclone, no_sanitize("thread", "undefined")))
#endif

typedef struct minillm_cuda_stream* cudaStream_t;
typedef struct minillm_cuda_event* cudaEvent_t;

extern "C" {
// Of one thread they are constants, which the compiler may keep.
uint3 minillm_cuda_thread() __attribute__((const));
uint3 minillm_cuda_block() __attribute__((const));
uint3 minillm_cuda_block_size() __attribute__((const));
uint3 minillm_cuda_grid_size() __attribute__((const));

void* minillm_cuda_shared(const void* site, const char* name, size_t bytes, int dynamic);
void minillm_cuda_touch(const void* p, size_t bytes, unsigned flags, const void* place);  // runtime/memory.h: READ, ...
int minillm_cuda_launch(const char* file, int line, const char* name, const uint3* grid, const uint3* block,
                        size_t shared, int cooperative, void (*call)(void*), void* arguments, size_t bytes);

// What the head of a kernel says, in its body's first line: the text and the line of it.
void minillm_cuda_launch_bounds(const char* text, int line, long most, long blocks);
void minillm_cuda_maxnreg(const char* text, int line, long registers);

void __syncthreads();
int __syncthreads_count(int vote);
int __syncthreads_and(int vote);
int __syncthreads_or(int vote);
void __threadfence();
void __threadfence_block();
void __threadfence_system();
void __trap();
void __nanosleep(unsigned);
long long clock64();
size_t __cvta_generic_to_shared(const void*);
void* __cvta_shared_to_generic(size_t);
unsigned __isShared(const void*);
unsigned __isGlobal(const void*);
}

#define threadIdx (minillm_cuda_thread())
#define blockIdx (minillm_cuda_block())
#define blockDim (::minillm_cuda::read_dim(minillm_cuda_block_size()))
#define gridDim (::minillm_cuda::read_dim(minillm_cuda_grid_size()))
constexpr int warpSize = 32;

namespace minillm_cuda {
MINILLM_INLINE dim3 read_dim(uint3 x) { return dim3(x.x, x.y, x.z); }

template <class T>
MINILLM_INLINE T& shared(const void* site, const char* name) {
    return *static_cast<T*>(minillm_cuda_shared(site, name, sizeof(T), 0));
}
template <class T>
MINILLM_INLINE T* dynamic_shared(const char* name) {
    return static_cast<T*>(minillm_cuda_shared(nullptr, name, 0, 1));
}
// An `extern __shared__` array declared outside of functions.
template <class T>
struct DynamicShared {
    MINILLM_INLINE operator T*() const { return dynamic_shared<T>("extern __shared__"); }
    template <class U>
    MINILLM_INLINE explicit operator U*() const {
        return reinterpret_cast<U*>(dynamic_shared<T>("extern __shared__"));
    }
};

MINILLM_INLINE void launch_bounds(const char* text, int line, long most, long blocks = 0, long = 0) {
    minillm_cuda_launch_bounds(text, line, most, blocks);
}
MINILLM_INLINE void maxnreg(const char* text, int line, long registers) { minillm_cuda_maxnreg(text, line, registers); }

template <class Kernel, class... A>
struct Bound {
    Kernel kernel;
    std::tuple<A...> arguments;
    static void call(void* self) {
        auto& me = *static_cast<Bound*>(self);
        std::apply(me.kernel, me.arguments);
    }
};
template <class Kernel, class... A>
int launch_as(int cooperative, const char* file, int line, const char* name, dim3 grid, dim3 block, size_t shared,
              Kernel kernel, A... a) {
    Bound<Kernel, A...> bound{kernel, std::tuple<A...>(a...)};
    const uint3 grid_size{grid.x, grid.y, grid.z}, block_size{block.x, block.y, block.z};
    return minillm_cuda_launch(file, line, name, &grid_size, &block_size, shared, cooperative,
                               &Bound<Kernel, A...>::call, &bound, sizeof bound);
}
template <class Kernel, class... A>
void launch(const char* file, int line, const char* name, dim3 grid, dim3 block, size_t shared, cudaStream_t,
            Kernel kernel, A... a) {
    launch_as(0, file, line, name, grid, block, shared, kernel, a...);
}
}  // namespace minillm_cuda

#define MINILLM_SHARED(name, ...)           \
    static char minillm_site_of_##name = 0; \
    auto& name = ::minillm_cuda::shared<__VA_ARGS__>(&minillm_site_of_##name, #name)
#define MINILLM_DYNAMIC(name, ...) auto* name = ::minillm_cuda::dynamic_shared<__VA_ARGS__>(#name)
#define MINILLM_DYNAMIC_GLOBAL(name, ...) static const ::minillm_cuda::DynamicShared<__VA_ARGS__> name
