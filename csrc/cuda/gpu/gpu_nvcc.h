// The vocabulary of gpu.h on the GPU: the CUDA runtime, and one line of PTX an instruction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

using bf16 = __nv_bfloat16;
using fp16 = __half;
using stream_t = cudaStream_t;
#define DEVICE __device__ __forceinline__
#define LAUNCH_BOUNDS(...)  // __launch_bounds__ has said so
#define UNROLL_FOR _Pragma("unroll") for
#define UNROLL_4_FOR _Pragma("unroll 4") for
#define SHARED(T, name)                                           \
    extern __shared__ __align__(1024) unsigned char shared_raw[]; \
    T* name = reinterpret_cast<T*>(shared_raw)

// ---- the device's side ----

// clang-format off: PTX in columns

template <class T>
DEVICE Vec4<T> load4(const T* from) { return *reinterpret_cast<const Vec4<T>*>(from); }
// Of what no thread writes while the kernel runs, so that loads may overtake stores.
DEVICE Vec4<float> load4_readonly(const float* from) {
    const float4 v = __ldg(reinterpret_cast<const float4*>(from));
    return {v.x, v.y, v.z, v.w};
}
DEVICE Vec4<double> load4_readonly(const double* from) {
    const double2 v = __ldg(reinterpret_cast<const double2*>(from)), w = __ldg(reinterpret_cast<const double2*>(from) + 1);
    return {v.x, v.y, w.x, w.y};
}
template <class T>
DEVICE void store4(T* to, const Vec4<T>& x) { *reinterpret_cast<Vec4<T>*>(to) = x; }

template <class T>
DEVICE Vec2<T> load2(const T* from) { return *reinterpret_cast<const Vec2<T>*>(from); }
template <class T>
DEVICE void store2(T* to, const Vec2<T>& x) { *reinterpret_cast<Vec2<T>*>(to) = x; }

DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Two floats -> a pair of E, `low` in the lower half.
template <class E>
DEVICE uint32_t pack(float low, float high) {
    if constexpr (std::is_same<E, bf16>::value) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return *reinterpret_cast<uint32_t*>(&pair);
    } else {
        __half2 pair = __floats2half2_rn(low, high);
        return *reinterpret_cast<uint32_t*>(&pair);
    }
}

template <int BYTES>
DEVICE void cp_async(void* to, const void* from, bool valid) {     // reads nothing and writes zeros where not valid
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                     :: "r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(valid ? BYTES : 0) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

DEVICE void ldmatrix(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEVICE void ldmatrix_t(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// c (16x8 float) += a (16x16) @ b (16x8), a and b of E: bf16 or fp16.
#define MMA(TYPE)                                                                                                     \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                                               \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                         \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <class E>
DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same<E, bf16>::value) MMA("bf16");
    else MMA("f16");
}
#undef MMA

// clang-format on
// ---- the host's side ----

inline void check(cudaError_t error, const std::string& what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();                                 // forget it: the next call starts clean
    throw std::runtime_error(what + ": " + cudaGetErrorString(error));
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, int threads, size_t shared, stream_t stream, A... args) {
    if (shared > 48 << 10)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)),
              "this GPU does not give a block " + std::to_string(shared) + " bytes of shared memory");
    kernel<<<grid, threads, shared, stream>>>(P(args)...);
    check(cudaGetLastError(), "kernel launch");
}
