// The vocabulary of hopper.h on the GPU. Compile for sm_90a.
#pragma once

#include <cudaTypedefs.h>

#include "cuda/gpu/gpu_nvcc.h"

using TensorMap = CUtensorMap;

// ---- barriers in shared memory ----

// clang-format off: PTX in columns

DEVICE void barrier_init(uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// TMA may use the barriers that this thread has made.
DEVICE void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void barrier_arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(shared_address(barrier)) : "memory");
}
// Arrive, and let the phase last until so many more bytes have landed.
DEVICE void barrier_expect(uint64_t* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Until the phase of this parity is over. (Of a fresh barrier, phase 1 counts as over.)
DEVICE void barrier_wait(uint64_t* barrier, int parity) {
    for (uint32_t over = 0; !over;)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(over) : "r"(shared_address(barrier)), "r"(parity) : "memory");
}

// Barriers of the hardware, 1 to 15 (0 is __syncthreads): until `threads` threads have come, some by `pass` only.
DEVICE void named_barrier(int id, int threads) {
    asm volatile("barrier.cta.sync %0, %1;" :: "r"(id), "r"(threads) : "memory");
}
DEVICE void named_barrier_pass(int id, int threads) {
    asm volatile("barrier.cta.arrive %0, %1;" :: "r"(id), "r"(threads) : "memory");
}
DEVICE bool named_barrier_or(int id, int threads, bool x) {         // is x true for any of them?
    uint32_t any;
    asm volatile("{ .reg .pred p, q; setp.ne.u32 p, %3, 0; barrier.cta.red.or.pred q, %1, %2, p; selp.u32 %0, 1, 0, q;}"
                 : "=r"(any) : "r"(id), "r"(threads), "r"(uint32_t(x)) : "memory");
    return any;
}

// ---- TMA ----

DEVICE void tma_load(void* to, const TensorMap& map, uint64_t* barrier, int d, int t, int h, int b) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];"
                 :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(barrier)), "r"(d), "r"(t), "r"(h), "r"(b)
                 : "memory");
}
DEVICE void fence_for_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- the tensor cores ----

// nvcc does not know that a matmul goes on after its instruction: it must believe that these are written here.
template <int N>
DEVICE void pin(float (&d)[N][4]) {
    UNROLL_FOR (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3]) :: "memory");
}
template <int N>
DEVICE void pin(uint32_t (&a)[N][4]) {
    UNROLL_FOR (int i = 0; i < N; i++)
        asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3]) :: "memory");
}
// Before matmuls: the registers named are as the matmuls shall find them.
template <class... Registers>
DEVICE void wgmma_fence(Registers&... used) {
    (pin(used), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most LATER of the committed groups are under way; the registers named belong to the threads again.
template <int LATER, class... Registers>
DEVICE void wgmma_wait(Registers&... done) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(LATER) : "memory");
    (pin(done), ...);
}

// Operands %0 .. %31 and %32 .. %63 are the sums, what follows are a, b and whether to add.
#define FOUR(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SUMS_32(i) FOUR(i), FOUR(i + 1), FOUR(i + 2), FOUR(i + 3), FOUR(i + 4), FOUR(i + 5), FOUR(i + 6), FOUR(i + 7)
#define NAMES_32                                                                     \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
    "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_64                                                                                \
    NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
             "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA(N, TYPE, NAMES, A, B, ADD, LAYOUT)                                                            \
    "{ .reg .pred p; setp.ne.b32 p, " ADD ", 0; wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE \
    " {" NAMES "}, " A ", " B ", p, 1, 1, " LAYOUT "; }"
#define SS_128(TYPE)                                                                                      \
    asm volatile(WGMMA("128", TYPE, NAMES_64, "%64", "%65", "%66", "%67, %68") : SUMS_32(0), SUMS_32(8) \
                 : "l"(a), "l"(b), "r"(int(add)), "n"(int(A_ACROSS)), "n"(int(B_ACROSS)))
#define SS_64(TYPE)                                                                                       \
    asm volatile(WGMMA("64", TYPE, NAMES_32, "%32", "%33", "%34", "%35, %36") : SUMS_32(0)                  \
                 : "l"(a), "l"(b), "r"(int(add)), "n"(int(A_ACROSS)), "n"(int(B_ACROSS)))
#define RS_64(TYPE)                                                                                     \
    asm volatile(WGMMA("64", TYPE, NAMES_32, "{%32,%33,%34,%35}", "%36", "%37", "1") : SUMS_32(0)   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)))
#define RS_128(TYPE)                                                                                    \
    asm volatile(WGMMA("128", TYPE, NAMES_64, "{%64,%65,%66,%67}", "%68", "%69", "1") : SUMS_32(0), SUMS_32(8) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)))

// d (64 x 8 N8) = or += A B^T, later: both operands in shared memory, their rows along k, or across (along m or n).
template <class E, bool A_ACROSS = false, bool B_ACROSS = false, int N8>
DEVICE void wgmma_ss(float (&d)[N8][4], uint64_t a, uint64_t b, bool add) {
    static_assert(N8 == 8 || N8 == 16, "64 or 128 columns");
    constexpr bool is_bf16 = std::is_same<E, bf16>::value;
    if constexpr (N8 == 8 && is_bf16) SS_64("bf16");
    else if constexpr (N8 == 8) SS_64("f16");
    else if constexpr (is_bf16) SS_128("bf16");
    else SS_128("f16");
}
// d (64 x 8 N8) = or += A B, later: A in registers as in `mma`, B in shared memory with its rows along n.
template <class E, int N8>
DEVICE void wgmma_rs(float (&d)[N8][4], const uint32_t (&a)[4], uint64_t b, bool add) {
    static_assert(N8 == 8 || N8 == 16, "64 or 128 columns");
    constexpr bool is_bf16 = std::is_same<E, bf16>::value;
    if constexpr (N8 == 8 && is_bf16) RS_64("bf16");
    else if constexpr (N8 == 8) RS_64("f16");
    else if constexpr (is_bf16) RS_128("bf16");
    else RS_128("f16");
}
#undef FOUR
#undef SUMS_32
#undef NAMES_32
#undef NAMES_64
#undef WGMMA
#undef SS_64
#undef SS_128
#undef RS_64
#undef RS_128

// Of the registers that the block was launched with, a warpgroup gives some back, or takes some that others gave.
template <int N>
DEVICE void keep_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(N)); }
template <int N>
DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(N)); }

// clang-format on
// ---- the host's side ----

// Describes a tensor of 16-bit numbers to TMA: sizes of its axes, innermost first; bytes from one to the
// next along axes 1 to 3; and the box that one copy takes. libcuda has this; it is looked up, so nothing links to it.
inline TensorMap tensor_map(const void* data, const uint64_t (&sizes)[4], const uint64_t (&strides)[3],
                            const uint32_t (&box)[4]) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult how;
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &how),
          "cuTensorMapEncodeTiled");
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &how), "cuTensorMapEncodeTiled");
#endif
    if (how != cudaDriverEntryPointSuccess)
        throw std::runtime_error("this NVIDIA driver has no cuTensorMapEncodeTiled");
    TensorMap map;
    const uint32_t one[4] = {1, 1, 1, 1};
    const CUresult result = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found)(
        &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, const_cast<void*>(data), sizes, strides, box, one,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        throw std::runtime_error("cuTensorMapEncodeTiled refused an array: error " + std::to_string(int(result)));
    return map;
}
