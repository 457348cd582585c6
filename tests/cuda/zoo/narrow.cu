// Half precision and tensor cores, from float arrays: pairs of halves, bf16, wmma fragments.
// precision: bf16
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
#include "common.cuh"
using namespace nvcuda;

// ---- residual in pairs of halves ----
__global__ void residual_half2(float* out, const float* a, const float* b, int N) {
    int i = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i + 1 < N) {
        __half2 x = __floats2half2_rn(a[i], a[i + 1]), y = __floats2half2_rn(b[i], b[i + 1]);
        float2 sum = __half22float2(__hadd2(x, y));
        out[i] = sum.x, out[i + 1] = sum.y;
    } else if (i < N) {
        out[i] = __half2float(__hadd(__float2half(a[i]), __float2half(b[i])));
    }
}
void residual_forward2(float* out, const float* inp1, const float* inp2, int N) {
    residual_half2<<<CEIL_DIV(CEIL_DIV(N, 2), 128), 128>>>(out, inp1, inp2, N);
    cudaCheck(cudaGetLastError());
}

// ---- RMSNorm whose row lies in shared memory as bf16 ----
__global__ void rmsnorm_bf16(float* out, float* rstd, const float* x, const float* weight, int C) {
    extern __shared__ __nv_bfloat16 kept[];
    float sum = 0.0f;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        kept[c] = __float2bfloat16(x[blockIdx.x * C + c]);
        float v = __bfloat162float(kept[c]);
        sum += v * v;
    }
    const float r = rsqrtf(blockReduce<warpReduceSum>(sum) / C + 1e-6f);
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        out[blockIdx.x * C + c] = __bfloat162float(kept[c]) * r * weight[c];
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
}
void rmsnorm_forward2(float* out, float* rstd, const float* x, const float* weight, int B, int T, int C) {
    rmsnorm_bf16<<<B * T, 64, C * sizeof(__nv_bfloat16)>>>(out, rstd, x, weight, C);
    cudaCheck(cudaGetLastError());
}

// ---- tensor cores: a warp a tile of 16 x 16, halves in shared memory, sums in float ----
__global__ void matmul_wmma(float* out, const float* inp, const float* weight, const float* bias, int BT, int C,
                            int OC) {
    __shared__ __align__(32) __half a[16 * 16], b[16 * 16];
    __shared__ __align__(32) float c[16 * 16];
    const int row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc;
    wmma::fill_fragment(acc, 0.0f);
    for (int k0 = 0; k0 < C; k0 += 16) {
        for (int i = threadIdx.x; i < 256; i += 32) {
            const int r = i / 16, k = i % 16;
            a[i] = __float2half(row0 + r < BT && k0 + k < C ? inp[(row0 + r) * C + k0 + k] : 0.0f);
            b[i] = __float2half(k0 + r < C && col0 + k < OC ? weight[(k0 + r) * OC + col0 + k] : 0.0f);
        }
        __syncwarp();
        wmma::load_matrix_sync(fa, a, 16);
        wmma::load_matrix_sync(fb, b, 16);
        wmma::mma_sync(acc, fa, fb, acc);
        __syncwarp();
    }
    wmma::store_matrix_sync(c, acc, 16, wmma::mem_row_major);
    __syncwarp();
    for (int i = threadIdx.x; i < 256; i += 32)
        if (row0 + i / 16 < BT && col0 + i % 16 < OC)
            out[(row0 + i / 16) * OC + col0 + i % 16] = c[i] + bias[col0 + i % 16];
}
void linear_forward4(float* out, const float* inp, const float* weight, const float* bias, int B, int T, int C,
                     int OC) {
    matmul_wmma<<<dim3(CEIL_DIV(OC, 16), CEIL_DIV(B * T, 16)), 32>>>(out, inp, weight, bias, B * T, C, OC);
    cudaCheck(cudaGetLastError());
}
