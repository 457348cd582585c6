// Layer normalisation and RMSNorm: a thread a row, a block a row, a warp a row, rows kept in shared memory.
#include "common.cuh"

// ---- a thread a row ----
__global__ void layernorm_forward_kernel1(float* out, float* mean, float* rstd, const float* inp, const float* weight,
                                          const float* bias, int N, int C) {
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx < N) {
        const float* x = inp + idx * C;
        float m = 0.0f;
        for (int i = 0; i < C; i++) m += x[i];
        m = m / C;
        float v = 0.0f;
        for (int i = 0; i < C; i++) {
            float xshift = x[i] - m;
            v += xshift * xshift;
        }
        float s = 1.0f / sqrtf(v / C + 1e-5f);
        for (int i = 0; i < C; i++) out[idx * C + i] = s * (x[i] - m) * weight[i] + bias[i];
        mean[idx] = m;
        rstd[idx] = s;
    }
}
void layernorm_forward1(float* out, float* mean, float* rstd, const float* inp, const float* weight, const float* bias,
                        int B, int T, int C, const int block_size) {
    const int N = B * T;
    layernorm_forward_kernel1<<<CEIL_DIV(N, block_size), block_size>>>(out, mean, rstd, inp, weight, bias, N, C);
    cudaCheck(cudaGetLastError());
}

// ---- three kernels: means, deviations, normalisation; trees in shared memory ----
__global__ void mean_kernel(float* mean, const float* inp, int C, int block_size) {
    extern __shared__ float shared[];
    int idx = blockIdx.x, tid = threadIdx.x;
    const float* x = inp + idx * C;
    float sum = 0.0f;
    for (int i = tid; i < C; i += block_size) sum += x[i];
    shared[tid] = sum;
    __syncthreads();
    for (int stride = block_size / 2; stride >= 1; stride /= 2) {
        if (tid < stride) shared[tid] += shared[tid + stride];
        __syncthreads();
    }
    if (tid == 0) mean[idx] = shared[0] / C;
}
__global__ void rstd_kernel(float* rstd, const float* inp, const float* mean, int C, int block_size) {
    extern __shared__ float shared[];
    int idx = blockIdx.x, tid = threadIdx.x;
    const float* x = inp + idx * C;
    float m = mean[idx], sum = 0.0f;
    for (int i = tid; i < C; i += block_size) sum += (x[i] - m) * (x[i] - m);
    shared[tid] = sum;
    __syncthreads();
    for (int stride = block_size / 2; stride >= 1; stride /= 2) {
        if (tid < stride) shared[tid] += shared[tid + stride];
        __syncthreads();
    }
    if (tid == 0) rstd[idx] = 1.0f / sqrtf(shared[0] / C + 1e-5f);
}
__global__ void normalization_kernel(float* out, const float* inp, const float* mean, const float* rstd,
                                     const float* weight, const float* bias, int BT, int C) {
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    int bt = idx / C, c = idx % C;
    if (bt >= BT) return;
    out[idx] = rstd[bt] * (inp[idx] - mean[bt]) * weight[c] + bias[c];
}
void layernorm_forward2(float* out, float* mean, float* rstd, const float* inp, const float* weight, const float* bias,
                        int B, int T, int C, const int block_size) {
    int N = B * T;
    mean_kernel<<<N, block_size, block_size * sizeof(float)>>>(mean, inp, C, block_size);
    cudaCheck(cudaGetLastError());
    rstd_kernel<<<N, block_size, block_size * sizeof(float)>>>(rstd, inp, mean, C, block_size);
    cudaCheck(cudaGetLastError());
    normalization_kernel<<<CEIL_DIV(N * C, 256), 256>>>(out, inp, mean, rstd, weight, bias, N, C);
    cudaCheck(cudaGetLastError());
}

// ---- a warp a row, by cooperative groups ----
__global__ void layernorm_forward_kernel3(float* __restrict__ out, float* __restrict__ mean, float* __restrict__ rstd,
                                          const float* __restrict__ inp, const float* __restrict__ weight,
                                          const float* __restrict__ bias, int N, int C) {
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
    int idx = blockIdx.x * warp.meta_group_size() + warp.meta_group_rank();
    if (idx >= N) return;
    const float* x = inp + idx * C;
    float sum = 0.0f;
    for (int i = warp.thread_rank(); i < C; i += warp.size()) sum += x[i];
    sum = cg::reduce(warp, sum, cg::plus<float>{});
    float m = sum / C;
    if (warp.thread_rank() == 0 && mean != nullptr) __stcs(mean + idx, m);
    sum = 0.0f;
    for (int i = warp.thread_rank(); i < C; i += warp.size()) {
        float diff = x[i] - m;
        sum += diff * diff;
    }
    sum = cg::reduce(warp, sum, cg::plus<float>{});
    float s = rsqrtf(sum / C + 1e-5f);
    if (warp.thread_rank() == 0 && rstd != nullptr) __stcs(rstd + idx, s);
    float* o = out + idx * C;
    for (int c = warp.thread_rank(); c < C; c += warp.size()) {
        float n = s * (__ldcs(x + c) - m);
        __stcs(o + c, n * weight[c] + bias[c]);
    }
}
void layernorm_forward3(float* out, float* mean, float* rstd, const float* inp, const float* weight, const float* bias,
                        int B, int T, int C, const int block_size) {
    const int N = B * T;
    const int grid_size = CEIL_DIV(N * 32, block_size);
    layernorm_forward_kernel3<<<grid_size, block_size>>>(out, mean, rstd, inp, weight, bias, N, C);
    cudaCheck(cudaGetLastError());
}

// ---- a block a row, whose numbers stay in shared memory; reductions by shuffles ----
__global__ void layernorm_forward_kernel4(float* out, float* mean, float* rstd, const float* inp, const float* weight,
                                          const float* bias, int C) {
    extern __shared__ float row[];
    const float* x = inp + (size_t)blockIdx.x * C;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        row[i] = x[i];
        sum += row[i];
    }
    const float m = blockReduce<warpReduceSum>(sum) / C;
    float var = 0.0f;
    for (int i = threadIdx.x; i < C; i += blockDim.x) var += (row[i] - m) * (row[i] - m);
    const float s = rsqrtf(blockReduce<warpReduceSum>(var) / C + 1e-5f);
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        out[(size_t)blockIdx.x * C + i] = (row[i] - m) * s * weight[i] + bias[i];
    if (threadIdx.x == 0) mean[blockIdx.x] = m, rstd[blockIdx.x] = s;
}
void layernorm_forward4(float* out, float* mean, float* rstd, const float* inp, const float* weight, const float* bias,
                        int B, int T, int C) {
    size_t bytes = C * sizeof(float);
    cudaCheck(cudaFuncSetAttribute((const void*)layernorm_forward_kernel4,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    layernorm_forward_kernel4<<<B * T, 128, bytes>>>(out, mean, rstd, inp, weight, bias, C);
    cudaCheck(cudaGetLastError());
}

// ---- backward: dx by a block a row, dweight and dbias by atomics ----
__global__ void layernorm_backward_kernel1(float* dinp, float* dweight, float* dbias, const float* dout,
                                           const float* inp, const float* weight, const float* mean, const float* rstd,
                                           int C) {
    const size_t at = (size_t)blockIdx.x * C;
    const float m = mean[blockIdx.x], s = rstd[blockIdx.x];
    float a = 0.0f, b = 0.0f;
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        float norm = (inp[at + i] - m) * s, g = weight[i] * dout[at + i];
        a += g;
        b += g * norm;
    }
    a = blockReduce<warpReduceSum>(a) / C;
    b = blockReduce<warpReduceSum>(b) / C;
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        float norm = (inp[at + i] - m) * s, g = weight[i] * dout[at + i];
        atomicAdd(&dbias[i], dout[at + i]);
        atomicAdd(&dweight[i], norm * dout[at + i]);
        dinp[at + i] += s * (g - a - norm * b);
    }
}
void layernorm_backward1(float* dinp, float* dweight, float* dbias, const float* dout, const float* inp,
                         const float* weight, const float* mean, const float* rstd, int B, int T, int C) {
    layernorm_backward_kernel1<<<B * T, 64>>>(dinp, dweight, dbias, dout, inp, weight, mean, rstd, C);
    cudaCheck(cudaGetLastError());
}

// ---- backward without atomics: a column's sum by a block of 32 x 8 threads and a padded tile ----
__global__ void columns_kernel(float* dweight, float* dbias, const float* dout, const float* inp, const float* mean,
                               const float* rstd, int N, int C) {
    __shared__ float sums[2][8][33];
    int c = blockIdx.x * 32 + threadIdx.x;
    float dw = 0.0f, db = 0.0f;
    if (c < C)
        for (int n = threadIdx.y; n < N; n += 8) {
            db += dout[n * C + c];
            dw += dout[n * C + c] * (inp[n * C + c] - mean[n]) * rstd[n];
        }
    sums[0][threadIdx.y][threadIdx.x] = dw;
    sums[1][threadIdx.y][threadIdx.x] = db;
    __syncthreads();
    if (threadIdx.y == 0 && c < C) {
        for (int i = 1; i < 8; i++) {
            dw += sums[0][i][threadIdx.x];
            db += sums[1][i][threadIdx.x];
        }
        dweight[c] += dw;
        dbias[c] += db;
    }
}
__global__ void dx_kernel(float* dinp, const float* dout, const float* inp, const float* weight, const float* mean,
                          const float* rstd, int N, int C) {
    int row = blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (row >= N) return;
    const float m = mean[row], s = rstd[row];
    float a = 0.0f, b = 0.0f;
    for (int i = lane; i < C; i += WARP_SIZE) {
        float g = weight[i] * dout[row * C + i];
        a += g, b += g * (inp[row * C + i] - m) * s;
    }
    a = warpReduceSum(a) / C, b = warpReduceSum(b) / C;
    for (int i = lane; i < C; i += WARP_SIZE)
        dinp[row * C + i] += s * (weight[i] * dout[row * C + i] - a - (inp[row * C + i] - m) * s * b);
}
void layernorm_backward2(float* dinp, float* dweight, float* dbias, const float* dout, const float* inp,
                         const float* weight, const float* mean, const float* rstd, int B, int T, int C) {
    dx_kernel<<<CEIL_DIV(B * T, 4), 128>>>(dinp, dout, inp, weight, mean, rstd, B * T, C);
    cudaCheck(cudaGetLastError());
    columns_kernel<<<CEIL_DIV(C, 32), dim3(32, 8)>>>(dweight, dbias, dout, inp, mean, rstd, B * T, C);
    cudaCheck(cudaGetLastError());
}

// ---- residual and layer normalisation in one pass: two rows a block of 64 threads ----
__global__ void fused_residual_kernel(float* s, float* out, float* mean, float* rstd, const float* a, const float* b,
                                      const float* weight, const float* bias, int N, int C) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= N) return;
    const float *x = a + row * C, *y = b + row * C;
    float sum = 0.0f, var = 0.0f;
    for (int c = threadIdx.x; c < C; c += WARP_SIZE) {
        float both = x[c] + y[c];
        s[row * C + c] = both;
        sum += both;
    }
    const float m = warpReduceSum(sum) / C;
    for (int c = threadIdx.x; c < C; c += WARP_SIZE) {
        float d = s[row * C + c] - m;
        var += d * d;
    }
    const float r = rsqrtf(warpReduceSum(var) / C + 1e-5f);
    for (int c = threadIdx.x; c < C; c += WARP_SIZE)
        out[row * C + c] = (s[row * C + c] - m) * r * weight[c] + bias[c];
    if (threadIdx.x == 0) mean[row] = m, rstd[row] = r;
}
void residual_layernorm_forward(float* s, float* out, float* mean, float* rstd, const float* x, const float* y,
                                const float* weight, const float* bias, int B, int T, int C) {
    fused_residual_kernel<<<CEIL_DIV(B * T, 2), dim3(32, 2)>>>(s, out, mean, rstd, x, y, weight, bias, B * T, C);
    cudaCheck(cudaGetLastError());
}

// ---- RMSNorm: a block a row, a partial last warp ----
__global__ void rmsnorm_kernel(float* out, float* rstd, const float* x, const float* weight, int C) {
    __shared__ float partial[48], total;
    const float* row = x + blockIdx.x * C;
    float sum = 0.0f;
    for (int c = threadIdx.x; c < C; c += 48) sum += row[c] * row[c];
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0.0f;
        for (int i = 0; i < 48; i++) all += partial[i];
        total = rsqrtf(all / C + 1e-6f);
        rstd[blockIdx.x] = total;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < C; c += 48) out[blockIdx.x * C + c] = row[c] * total * weight[c];
}
void rmsnorm_forward(float* out, float* rstd, const float* x, const float* weight, int B, int T, int C) {
    rmsnorm_kernel<<<B * T, 48>>>(out, rstd, x, weight, C);
    cudaCheck(cudaGetLastError());
}
