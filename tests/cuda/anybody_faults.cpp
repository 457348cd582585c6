// Kernels with one fault each, and kernels without, for the emulator of anybody's CUDA: as the rewriter leaves them
// (csrc/cuda/emulator/anybody/interface.h). test_anybody.py runs each by its name and looks for the fault in the line
// that says `FAULT name`.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace cg = cooperative_groups;
constexpr int N = 256;

#define LAUNCH(kernel, grid, block, shared, ...) \
    ::minillm_cuda::launch(__FILE__, __LINE__, #kernel, grid, block, shared, 0, [=](auto... a) { kernel(a...); }, __VA_ARGS__)
#define KERNEL(name) __global__ void name(float* out, const float* x, int n)

// ---- right ones ----

KERNEL(tree) {
    MINILLM_SHARED(s, float[N]);
    const int i = threadIdx.x;
    s[i] = x[i];
    __syncthreads();
    for (int k = N / 2; k > 0; k /= 2) {
        if (i < k) s[i] += s[i + k];
        __syncthreads();
    }
    if (i == 0) out[0] = s[0];
}
KERNEL(warps) {
    const float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x % 64];
    float sum = v.x + v.y + v.z + v.w;
    for (int k = 16; k > 0; k /= 2) sum += __shfl_down_sync(0xffffffff, sum, k);
    if (threadIdx.x % 32 == 0 && threadIdx.x < 64) atomicAdd(out, sum);
}
KERNEL(last_block) {                        // the last block adds what the others left
    MINILLM_SHARED(last, bool);
    if (threadIdx.x == 0) {
        out[1 + blockIdx.x] = x[blockIdx.x];
        __threadfence();
        last = atomicInc(reinterpret_cast<unsigned*>(out), gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0)
        for (int b = 1; b < gridDim.x; b++) out[1] += out[1 + b];
}
KERNEL(groups) {
    const auto tile = cg::tiled_partition<8>(cg::this_thread_block());
    const float sum = cg::reduce(tile, x[threadIdx.x], cg::plus<float>());
    if (tile.thread_rank() == 0) out[tile.meta_group_rank()] = sum;
    if (threadIdx.x % 3 == 0) {
        const auto those = cg::coalesced_threads();
        if (those.thread_rank() == 0) atomicAdd(out + 200, float(those.size()));
    }
}
KERNEL(matrices) {                          // x (16x16) times itself, transposed, by wmma and by PTX
    using namespace nvcuda;
    MINILLM_SHARED(h, __half[256]);
    for (int i = threadIdx.x; i < 256; i += 32) h[i] = __float2half(x[i] / 16 - 8);
    __syncwarp();
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> a;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> b;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> c;
    wmma::load_matrix_sync(a, h, 16);
    wmma::load_matrix_sync(b, h, 16);
    wmma::fill_fragment(c, 0.0f);
    wmma::mma_sync(c, a, b, c);
    wmma::store_matrix_sync(out, c, 16, wmma::mem_row_major);
    unsigned r[4], q[2];
    const int lane = threadIdx.x;
    unsigned from = __cvta_generic_to_shared(h + lane % 16 * 16 + lane / 16 * 8);
    ::minillm_cuda::Ptx("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];")
        .op("=r", r[0]).op("=r", r[1]).op("=r", r[2]).op("=r", r[3]).op("r", from).run();
    from = __cvta_generic_to_shared(h + lane % 8 * 16 + lane / 8 % 2 * 8);
    ::minillm_cuda::Ptx("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];").op("=r", q[0]).op("=r", q[1]).op("r", from).run();
    float d[4] = {};
    ::minillm_cuda::Ptx("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};")
        .op("+f", d[0]).op("+f", d[1]).op("+f", d[2]).op("+f", d[3]).op("r", r[0]).op("r", r[1]).op("r", r[2]).op("r", r[3])
        .op("r", q[0]).op("r", q[1]).run();
    __syncwarp();
    for (int e = 0; e < 4; e++)             // the two agree: zeros in out[256 + ...]
        out[256 + lane * 4 + e] = d[e] - out[(lane / 4 + e / 2 * 8) * 16 + lane % 4 * 2 + e % 2];
}
KERNEL(inline_ptx) {
    float y;
    unsigned lane;
    ::minillm_cuda::Ptx("ex2.approx.ftz.f32 %0, %1;").op("=f", y).op("f", x[threadIdx.x] / 64).run();
    ::minillm_cuda::Ptx("mov.u32 %0, %%laneid;").op("=r", lane).run();
    ::minillm_cuda::Ptx("{ .reg .pred p; setp.lt.u32 p, %1, 4; @p add.f32 %0, %0, 0f3F800000; }").op("+f", y).op("r", lane).run();
    out[threadIdx.x] = y;
}
KERNEL(copies) {                            // asynchronous copies, one stage
    MINILLM_DYNAMIC(s, float);
    __pipeline_memcpy_async(s + 4 * threadIdx.x, x + 4 * threadIdx.x, 16);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    for (int i = threadIdx.x; i < N; i += blockDim.x) out[i] = s[N - 1 - i];
}
KERNEL(halves) {                            // neighbours write the halves of one word
    __half* h = reinterpret_cast<__half*>(out);
    h[threadIdx.x] = __hmul(__float2half(x[threadIdx.x]), __float2half(2.0f));
}
KERNEL(partial) {                           // 40 threads, 2 dimensions: the second warp has 8 lanes
    const int i = threadIdx.x + blockDim.x * threadIdx.y;
    const unsigned mask = __ballot_sync(0xffffffff, i < 36);
    out[i] = float(__popc(mask)) + float(__syncthreads_count(i % 2));
}
KERNEL(spin) {                              // a lock, with the fences that it needs
    int* lock = reinterpret_cast<int*>(out + 1);
    while (atomicCAS(lock, 0, 1)) {}
    __threadfence();
    out[0] += 1;
    __threadfence();
    atomicExch(lock, 0);
}
__global__ void whole_grid(float* out, const float* x, int n) {
    const auto grid = cg::this_grid();
    const int i = grid.thread_rank();
    out[i] = x[i];
    grid.sync();
    const float y = out[n - 1 - i];
    grid.sync();
    out[i] = y;
}

// ---- faulty ones ----

KERNEL(past_the_end) { out[threadIdx.x + 1 + n - N] = x[threadIdx.x]; }  // FAULT past_the_end
KERNEL(before_the_beginning) { out[threadIdx.x] = x[int(threadIdx.x) - 1]; }  // FAULT before_the_beginning
KERNEL(past_shared) {
    MINILLM_DYNAMIC(s, float);
    s[threadIdx.x + 1] = x[threadIdx.x];  // FAULT past_shared
}
KERNEL(index_of_a_row) {
    MINILLM_SHARED(s, float[16][16]);
    s[threadIdx.x / 16][threadIdx.x % 16 + n / N] = 1;  // FAULT index_of_a_row
}
KERNEL(no_barrier) {
    MINILLM_SHARED(s, float[N]);
    s[threadIdx.x] = x[threadIdx.x];
    out[threadIdx.x] = s[N - 1 - threadIdx.x];  // FAULT no_barrier
}
KERNEL(no_second_barrier) {
    MINILLM_SHARED(s, float[N]);
    for (int k = 0; k < 2; k++) {
        s[threadIdx.x] = x[threadIdx.x];  // FAULT no_second_barrier
        __syncthreads();
        out[threadIdx.x] = s[N - 1 - threadIdx.x];
    }
}
KERNEL(no_syncwarp) {                       // the warp-synchronous style of old
    MINILLM_SHARED(s, float[64]);
    volatile float* v = s;
    v[threadIdx.x % 64] = 1;
    __syncthreads();
    if (threadIdx.x < 32) v[threadIdx.x] += v[threadIdx.x + 16];  // FAULT no_syncwarp
}
KERNEL(blocks_collide) { out[0] += x[blockIdx.x]; }  // FAULT blocks_collide
KERNEL(same_value) { out[threadIdx.x / 2] = 7; }  // FAULT same_value
KERNEL(no_lock_fence) {
    int* lock = reinterpret_cast<int*>(out + 1);
    while (atomicCAS(lock, 0, 1)) {}
    out[0] += 1;  // FAULT no_lock_fence
    atomicExch(lock, 0);
}
KERNEL(uninitialised) {
    MINILLM_SHARED(s, float[N]);
    if (threadIdx.x < 100) s[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];  // FAULT uninitialised
}
KERNEL(copy_without_wait) {
    MINILLM_DYNAMIC(s, float);
    __pipeline_memcpy_async(s + 4 * threadIdx.x, x + 4 * threadIdx.x, 16);
    __pipeline_commit();
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];  // FAULT copy_without_wait
}
KERNEL(barrier_in_a_branch) {
    if (threadIdx.x < 100) __syncthreads();  // FAULT barrier_in_a_branch
    else out[0] = __shfl_sync(0xffffffff, x[0], 0);
}
KERNEL(two_barriers) {
    if (threadIdx.x < 128) __syncthreads();  // FAULT two_barriers
    else __syncthreads();
}
KERNEL(early_return) {
    if (threadIdx.x >= 200) return;
    __syncthreads();  // FAULT early_return
    out[threadIdx.x] = 1;
}
KERNEL(wrong_mask) { out[threadIdx.x] = __shfl_xor_sync(0x0000ffff, x[threadIdx.x], 1); }  // FAULT wrong_mask
KERNEL(missing_lane) {
    if (threadIdx.x < 40) out[threadIdx.x] = __shfl_down_sync(__activemask(), x[threadIdx.x], 16);  // FAULT missing_lane
}
KERNEL(endless) {
    volatile float* flag = out;
    while (flag[0] != 1) {}  // FAULT endless
}
KERNEL(misaligned) { reinterpret_cast<float4*>(out + 1)[0] = make_float4(1, 2, 3, 4); }  // FAULT misaligned
KERNEL(null_pointer) { *reinterpret_cast<volatile float*>(long(n - N)) = 1; }  // FAULT null_pointer
KERNEL(overflows) { if (threadIdx.x == 99) out[(n * 16777216) & 15] = 1; }  // FAULT overflows
KERNEL(columns) {
    MINILLM_SHARED(s, float[32][32]);
    for (int i = 0; i < 4; i++) s[threadIdx.x % 32][threadIdx.x / 32 + 8 * i] = 1;  // FAULT columns
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x / 32][threadIdx.x % 32];
}
KERNEL(scattered) { out[threadIdx.x] = x[threadIdx.x * 32 % 8192]; }  // FAULT scattered
KERNEL(too_much_shared) {
    MINILLM_SHARED(s, float[13000]);  // FAULT too_much_shared
    s[threadIdx.x] = 1;
}
KERNEL(unknown_ptx) { ::minillm_cuda::Ptx("wgmma.fence.sync.aligned;").run(); }  // FAULT unknown_ptx
KERNEL(nothing) {}
KERNEL(bounded) { ::minillm_cuda::launch_bounds("__launch_bounds__(N / 2)", 7, N / 2); }
KERNEL(greedy) { ::minillm_cuda::maxnreg("__maxnreg__(250)", 8, 250); }
KERNEL(warpgroups) {                        // 2 of 4 want 168, 2 keep 88: as many as there are with 128 for each
    ::minillm_cuda::launch_bounds("__launch_bounds__(512, 1)", 9, 512, 1);
    if (threadIdx.x < 256) ::minillm_cuda::Ptx("setmaxnreg.dec.sync.aligned.u32 %0;").op("n", n / N * 88).run();
    else ::minillm_cuda::Ptx("setmaxnreg.inc.sync.aligned.u32 168;").run();
}
KERNEL(no_sum) {
    ::minillm_cuda::launch_bounds("__launch_bounds__(512, 1)", 10, 512, 1);
    if (threadIdx.x >= 128) ::minillm_cuda::Ptx("setmaxnreg.inc.sync.aligned.u32 168;").run();  // FAULT no_sum
}
KERNEL(unbounded) { ::minillm_cuda::Ptx("setmaxnreg.inc.sync.aligned.u32 168;").run(); }  // FAULT unbounded
KERNEL(not_by_eight) {
    ::minillm_cuda::maxnreg("__maxnreg__(128)", 11, 128);
    ::minillm_cuda::Ptx("setmaxnreg.dec.sync.aligned.u32 100;").run();  // FAULT not_by_eight
}
KERNEL(no_syncwarp_before_wmma) {
    using namespace nvcuda;
    MINILLM_SHARED(h, __half[256]);
    for (int i = threadIdx.x; i < 256; i += 32) h[i] = __float2half(x[i]);
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> a;
    wmma::load_matrix_sync(a, h, 16);  // FAULT no_syncwarp_before_wmma
    out[threadIdx.x] = float(a.x[0]);
}
KERNEL(full_mask) { out[threadIdx.x] = float(__ballot_sync(0xffffffff, 1)); }  // FAULT full_mask

int main(int, char** argv) {
    const std::string which = argv[1];
    minillm_cuda_seed(argv[2] ? atoi(argv[2]) : 0);
    minillm_cuda_seconds(2);
    const int n = N;
    std::vector<float> h(8192);
    for (int i = 0; i < 8192; i++) h[i] = float(i % 256);
    float *x, *out;
    cudaMalloc(&x, h.size() * 4);
    cudaMalloc((void**)&out, (which == "matrices" ? 512 : N) * 4);
    cudaMemcpy(x, h.data(), h.size() * 4, cudaMemcpyHostToDevice);
    cudaMemset(out, 0, N * 4);
#define RUN(kernel, grid, block, shared) \
    if (which == #kernel) LAUNCH(kernel, grid, block, shared, out, x, n);
    RUN(tree, 1, N, 0) RUN(warps, 1, N, 0) RUN(last_block, 5, 32, 0) RUN(groups, 1, 96, 0) RUN(matrices, 1, 32, 0)
    RUN(inline_ptx, 1, N, 0) RUN(copies, 1, 64, N * 4) RUN(halves, 1, N, 0) RUN(partial, 1, dim3(20, 2), 0) RUN(spin, 3, 40, 0)
    RUN(past_the_end, 1, N, 0) RUN(before_the_beginning, 1, N, 0) RUN(past_shared, 2, N, N * 4) RUN(index_of_a_row, 1, N, 0)
    RUN(no_barrier, 1, N, 0) RUN(no_second_barrier, 1, N, 0) RUN(no_syncwarp, 1, 64, 0) RUN(blocks_collide, 9, 1, 0)
    RUN(same_value, 1, N, 0) RUN(no_lock_fence, 1, 64, 0) RUN(uninitialised, 2, N, 0) RUN(copy_without_wait, 1, 64, N * 4)
    RUN(barrier_in_a_branch, 1, N, 0) RUN(two_barriers, 1, N, 0) RUN(early_return, 1, N, 0) RUN(wrong_mask, 1, 32, 0)
    RUN(missing_lane, 1, 64, 0) RUN(endless, 1, 32, 0) RUN(misaligned, 1, 1, 0) RUN(null_pointer, 1, 1, 0)
    RUN(overflows, 1, N, 0) RUN(columns, 1, N, 0) RUN(scattered, 1, N, 0) RUN(too_much_shared, 1, N, 0) RUN(unknown_ptx, 1, 1, 0)
    RUN(no_syncwarp_before_wmma, 1, 32, 0) RUN(full_mask, 1, 40, 0)
    RUN(warpgroups, 2, 512, 0) RUN(no_sum, 1, 512, 0) RUN(unbounded, 1, 128, 0) RUN(not_by_eight, 1, 128, 0)
    void* arguments_of_nothing[] = {&out, &x, (void*)&n};
    if (which == "looked_at") {
        const cudaError_t error = cudaLaunchCooperativeKernel(nothing, dim3(1), dim3(32), arguments_of_nothing, 0, 0);
        if (error != cudaSuccess) return 1;
    }
    if (which == "not_looked_at")
        cudaLaunchCooperativeKernel(nothing, dim3(1), dim3(32), arguments_of_nothing, 0, 0);  // FAULT not_looked_at
    if (which == "whole_grid") {
        int count = 160;
        void* arguments[] = {&out, &x, &count};
        cudaLaunchCooperativeKernel(whole_grid, dim3(5), dim3(32), arguments, 0, 0);
    }
    if (which == "many_threads") LAUNCH(nothing, 1, dim3(64, 32), 0, out, x, n);  // FAULT many_threads
    if (which == "in_bounds") LAUNCH(bounded, 2, N / 2, 0, out, x, n);
    if (which == "beyond_bounds") LAUNCH(bounded, 2, N, 0, out, x, n);  // FAULT beyond_bounds
    if (which == "many_registers") LAUNCH(greedy, 1, 1024, 0, out, x, n);  // FAULT many_registers
    if (which == "empty_grid") LAUNCH(nothing, 0, 32, 0, out, x, n);  // FAULT empty_grid
    if (which == "dynamic_shared") LAUNCH(nothing, 1, 32, 60000, out, x, n);  // FAULT dynamic_shared
    if (which == "allowed_shared") {
        cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000);
        LAUNCH(nothing, 1, 32, 60000, out, x, n);
    }
    if (which == "host_pointer") LAUNCH(tree, 1, N, 0, out, h.data(), n);
    if (which == "freed_memory") {
        cudaFree(x);
        LAUNCH(scattered, 1, N, 0, out, x, n);
    }
    if (which == "device_on_host") h[0] = out[0];  // FAULT device_on_host
    if (which == "unchecked") LAUNCH(nothing, 1, 32, 0, out, x, n);  // FAULT unchecked
    if (which == "long_copy") cudaMemcpy(out, h.data(), N * 4 + 4, cudaMemcpyHostToDevice);  // FAULT long_copy
    if (which == "double_free") cudaFree(x);
    if (which != "unchecked" && which != "looked_at" && which != "not_looked_at")
        fprintf(stderr, "%s\n", cudaGetErrorName(cudaGetLastError()));
    std::vector<float> back(512);
    if (!cudaMemcpy(back.data(), out, (which == "matrices" ? 512 : N) * 4, cudaMemcpyDeviceToHost))
        for (float v : back) printf("%.9g ", double(v));
    if (which != "freed_memory") cudaFree(x);  // FAULT double_free
    if (which != "leak") cudaFree(out);
}
