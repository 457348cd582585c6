// Matrix products: naive, tiles in shared memory, tiles in registers, vectorised, split over blocks.
#include "common.cuh"

// ---- a thread an element ----
__global__ void matmul_naive(float* out, const float* inp, const float* weight, const float* bias, int BT, int C,
                             int OC) {
    int bt = blockIdx.x * blockDim.x + threadIdx.x;
    int oc = blockIdx.y * blockDim.y + threadIdx.y;
    if (bt < BT && oc < OC) {
        float val = bias != NULL ? bias[oc] : 0.0f;
        for (int i = 0; i < C; i++) val += inp[bt * C + i] * weight[i * OC + oc];
        out[bt * OC + oc] = val;
    }
}
void linear_forward1(float* out, const float* inp, const float* weight, const float* bias, int B, int T, int C, int OC,
                     const int sqrt_block_size) {
    dim3 gridDim(CEIL_DIV(B * T, sqrt_block_size), CEIL_DIV(OC, sqrt_block_size));
    dim3 blockDim(sqrt_block_size, sqrt_block_size);
    matmul_naive<<<gridDim, blockDim>>>(out, inp, weight, bias, B * T, C, OC);
    cudaCheck(cudaGetLastError());
}

// ---- tiles of 16 x 16 in shared memory ----
#define TILE 16
__global__ void matmul_tiled(float* out, const float* inp, const float* weight, const float* bias, int BT, int C,
                             int OC) {
    __shared__ float a[TILE][TILE + 1], b[TILE][TILE + 1];
    const int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int k = 0; k < C; k += TILE) {
        a[threadIdx.y][threadIdx.x] = row < BT && k + threadIdx.x < C ? inp[row * C + k + threadIdx.x] : 0.0f;
        b[threadIdx.y][threadIdx.x] = col < OC && k + threadIdx.y < C ? weight[(k + threadIdx.y) * OC + col] : 0.0f;
        __syncthreads();
        for (int i = 0; i < TILE; i++) sum += a[threadIdx.y][i] * b[i][threadIdx.x];
        __syncthreads();
    }
    if (row < BT && col < OC) out[row * OC + col] = sum + bias[col];
}
void linear_forward2(float* out, const float* inp, const float* weight, const float* bias, int B, int T, int C,
                     int OC) {
    dim3 grid(CEIL_DIV(OC, TILE), CEIL_DIV(B * T, TILE)), block(TILE, TILE);
    matmul_tiled<<<grid, block>>>(out, inp, weight, bias, B * T, C, OC);
    cudaCheck(cudaGetLastError());
}

// ---- a tile of 32 x 32 by 64 threads, each a square of 4 x 4 in registers; the left tile lies transposed ----
template <const int BM, const int BN, const int BK, const int TM, const int TN>
__global__ void matmul_registers(float* out, const float* inp, const float* weight, const float* bias, int BT, int C,
                                 int OC) {
    __shared__ float As[BK][BM + 4];
    __shared__ float Bs[BK * BN];
    const int threads = (BM / TM) * (BN / TN), tid = threadIdx.x;
    const int row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;
    const int tr = tid / (BN / TN) * TM, tc = tid % (BN / TN) * TN;
    float acc[TM][TN] = {{0.0f}}, regM[TM], regN[TN];
    for (int k0 = 0; k0 < C; k0 += BK) {
        for (int i = tid; i < BM * BK; i += threads) {
            int r = i / BK, k = i % BK;
            As[k][r] = row0 + r < BT && k0 + k < C ? inp[(row0 + r) * C + k0 + k] : 0.0f;
        }
        for (int i = tid; i < BK * BN; i += threads) {
            int k = i / BN, c = i % BN;
            Bs[k * BN + c] = col0 + c < OC && k0 + k < C ? weight[(k0 + k) * OC + col0 + c] : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < BK; ++k) {
            for (int i = 0; i < TM; ++i) regM[i] = As[k][tr + i];
            for (int j = 0; j < TN; ++j) regN[j] = Bs[k * BN + tc + j];
            for (int i = 0; i < TM; ++i)
                for (int j = 0; j < TN; ++j) acc[i][j] += regM[i] * regN[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < TM; ++i)
        for (int j = 0; j < TN; ++j)
            if (row0 + tr + i < BT && col0 + tc + j < OC)
                out[(row0 + tr + i) * OC + col0 + tc + j] = acc[i][j] + bias[col0 + tc + j];
}
void linear_forward3(float* out, const float* inp, const float* weight, const float* bias, int B, int T, int C,
                     int OC) {
    dim3 grid(CEIL_DIV(OC, 32), CEIL_DIV(B * T, 32));
    matmul_registers<32, 32, 8, 4, 4><<<grid, (32 * 32) / (4 * 4)>>>(out, inp, weight, bias, B * T, C, OC);
    cudaCheck(cudaGetLastError());
}

// ---- weights stored (OC, C): a warp an output, four numbers at a load where rows allow it ----
__global__ void projection_warp(float* out, const float* inp, const float* weight, const float* bias, int BT, int C,
                                int OC) {
    const int warp = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (warp >= BT * OC) return;
    const float *x = inp + warp / OC * C, *w = weight + warp % OC * C;
    float sum = 0.0f;
    if (C % 4 == 0) {
        for (int i = lane; i < C / 4; i += WARP_SIZE) {
            const float4 a = reinterpret_cast<const float4*>(x)[i], b = reinterpret_cast<const float4*>(w)[i];
            sum += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
        }
    } else {
        for (int i = lane; i < C; i += WARP_SIZE) sum += x[i] * w[i];
    }
    sum = warpReduceSum(sum);
    if (lane == 0) out[warp] = sum + bias[warp % OC];
}
void projection_forward(float* out, const float* x, const float* weight, const float* bias, int B, int T, int C,
                        int OC) {
    projection_warp<<<CEIL_DIV(B * T * OC, 4), 128>>>(out, x, weight, bias, B * T, C, OC);
    cudaCheck(cudaGetLastError());
}

// ---- backward: dx and dweight by one kernel on transposed views, dbias by columns ----
__global__ void matmul_strided(float* out, const float* a, const float* b, int M, int N, int K, int ak, int am, int bk,
                               int bn, float beta) {
    __shared__ float as[TILE][TILE + 1], bs[TILE][TILE + 1];
    const int m = blockIdx.y * TILE + threadIdx.y, n = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int k = 0; k < K; k += TILE) {
        as[threadIdx.y][threadIdx.x] = m < M && k + threadIdx.x < K ? a[m * am + (k + threadIdx.x) * ak] : 0.0f;
        bs[threadIdx.y][threadIdx.x] = n < N && k + threadIdx.y < K ? b[(k + threadIdx.y) * bk + n * bn] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; i++) sum += as[threadIdx.y][i] * bs[i][threadIdx.x];
        __syncthreads();
    }
    if (m < M && n < N) out[m * N + n] = sum + (beta != 0.0f ? beta * out[m * N + n] : 0.0f);
}
__global__ void bias_back(float* dbias, const float* dout, int BT, int OC) {
    const int o = blockIdx.x;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < BT; i += blockDim.x) sum += dout[i * OC + o];
    sum = warpReduceSum(sum);
    if (threadIdx.x == 0) dbias[o] += sum;
}
void linear_backward(float* dx, float* dweight, float* dbias, const float* dout, const float* x, const float* weight,
                     int B, int T, int C, int OC) {
    const int BT = B * T;
    dim3 block(TILE, TILE), for_dx(CEIL_DIV(C, TILE), CEIL_DIV(BT, TILE)), for_dw(CEIL_DIV(OC, TILE), CEIL_DIV(C, TILE));
    matmul_strided<<<for_dx, block>>>(dx, dout, weight, BT, C, OC, 1, OC, 1, OC, 0.0f);
    cudaCheck(cudaGetLastError());
    matmul_strided<<<for_dw, block>>>(dweight, x, dout, C, OC, BT, C, 1, OC, 1, 1.0f);
    cudaCheck(cudaGetLastError());
    bias_back<<<OC, 32>>>(dbias, dout, BT, OC);
    cudaCheck(cudaGetLastError());
}

// ---- logits: the reduction split over blocks, put together by atomics ----
__global__ void head_split(float* out, const float* x, const float* wte, int BT, int C, int V, int per_block) {
    const int v = blockIdx.x * blockDim.x + threadIdx.x, bt = blockIdx.y, first = blockIdx.z * per_block;
    if (v >= V) return;
    float sum = 0.0f;
    for (int c = first; c < min(C, first + per_block); c++) sum += x[bt * C + c] * wte[v * C + c];
    atomicAdd(&out[bt * V + v], sum);
}
// minillm: head: head(out, x, wte, B, T, C, V)
void head(float* out, const float* x, const float* wte, int B, int T, int C, int V) {
    const int splits = 2;
    cudaCheck(cudaMemsetAsync(out, 0, (size_t)B * T * V * sizeof(float)));
    head_split<<<dim3(CEIL_DIV(V, 64), B * T, splits), 64>>>(out, x, wte, B * T, C, V, CEIL_DIV(C, splits));
    cudaCheck(cudaGetLastError());
}
