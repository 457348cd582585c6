// What warps can do: votes, matches, scans, sub-warp tiles, inline PTX, a grid that meets.
#include "common.cuh"

// ---- squared ReLU whose positive elements are counted by ballots; lane by PTX ----
__device__ unsigned lane_id() {
    unsigned lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}
__global__ void relu_squared_ballot(float* out, const float* x, int N) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const float v = i < N ? x[i] : 0.0f;
    const unsigned positive = __ballot_sync(0xffffffffu, v > 0.0f || isnan(v));
    if (__any_sync(0xffffffffu, i < N) && i < N) out[i] = positive >> lane_id() & 1u ? v * v : 0.0f;
}
void relu_squared_forward2(float* out, const float* x, int N) {
    relu_squared_ballot<<<CEIL_DIV(N, 96), 96>>>(out, x, N);
    cudaCheck(cudaGetLastError());
}

// ---- softmax by tiles of eight threads, four rows a warp ----
__global__ void softmax_tiles(float* out, const float* inp, int N, int V) {
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(cg::this_thread_block());
    const int row = blockIdx.x * (blockDim.x / 8) + threadIdx.x / 8;
    if (row >= N) return;
    float top = -FLT_MAX, sum = 0.0f;
    for (int j = tile.thread_rank(); j < V; j += tile.size()) top = fmaxf(top, inp[row * V + j]);
    for (int offset = tile.size() / 2; offset > 0; offset /= 2) top = fmaxf(top, tile.shfl_xor(top, offset));
    for (int j = tile.thread_rank(); j < V; j += tile.size()) sum += expf(inp[row * V + j] - top);
    sum = cg::reduce(tile, sum, cg::plus<float>());
    for (int j = tile.thread_rank(); j < V; j += tile.size()) out[row * V + j] = expf(inp[row * V + j] - top) / sum;
}
void softmax_forward4(float* out, const float* inp, int B, int T, int V) {
    softmax_tiles<<<CEIL_DIV(B * T, 16), 128>>>(out, inp, B * T, V);
    cudaCheck(cudaGetLastError());
}

// ---- sum of squares in one launch: blocks meet at a counter, and the last one adds up ----
__device__ unsigned arrived = 0;
__device__ double partials[8];
__global__ void squares_last_block(double* out, const float* x, int N) {
    __shared__ double tree[64];
    __shared__ bool last;
    double sum = 0.0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += gridDim.x * blockDim.x) sum += (double)x[i] * x[i];
    tree[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum += tree[threadIdx.x + 32];
        for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
    }
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(&arrived, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        double all = 0.0;
        for (int b = 0; b < gridDim.x; b++) all += ((volatile double*)partials)[b];
        *out = all;
        arrived = 0;
    }
}
// minillm: sum_squares: squares_in_one_launch(out, x, N)
void squares_in_one_launch(double* out, const float* x, int N) {
    squares_last_block<<<8, 64>>>(out, x, N);
    cudaCheck(cudaGetLastError());
}

// ---- RMSNorm over a cooperative grid: all blocks write their rows' rstd, meet, then normalise any element ----
__global__ void rmsnorm_grid(float* out, float* rstd, const float* x, const float* weight, int N, int C) {
    cg::grid_group grid = cg::this_grid();
    const int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = gridDim.x * blockDim.x / 32;
    for (int row = warp; row < N; row += warps) {
        float sum = 0.0f;
        for (int c = threadIdx.x % 32; c < C; c += 32) sum += x[row * C + c] * x[row * C + c];
        sum = warpReduceSum(sum);
        if (threadIdx.x % 32 == 0) rstd[row] = rsqrtf(sum / C + 1e-6f);
    }
    grid.sync();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N * C; i += gridDim.x * blockDim.x)
        out[i] = x[i] * rstd[i / C] * weight[i % C];
}
void rmsnorm_forward3(float* out, float* rstd, const float* x, const float* weight, int B, int T, int C) {
    int N = B * T;
    void* args[] = {&out, &rstd, &x, &weight, &N, &C};
    cudaCheck(cudaLaunchCooperativeKernel((void*)rmsnorm_grid, dim3(2), dim3(64), args, 0, NULL));
}

// ---- the backward of a table: threads of a warp with the same token find each other and add once ----
__global__ void token_rows_back(float* dwte, const float* dout, const int* tokens, int BT, int C) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, c = blockIdx.y;
    const bool mine = i < BT;
    const int token = mine ? tokens[i] : -1;
    const unsigned same = __match_any_sync(0xffffffff, token);
    const float value = mine ? dout[i * C + c] : 0.0f;
    float sum = 0.0f;
    for (int lane = 0; lane < 32; lane++) {
        const float other = __shfl_sync(0xffffffff, value, lane);
        if (same >> lane & 1) sum += other;
    }
    if (mine && __ffs(same) - 1 == threadIdx.x % 32) atomicAdd(&dwte[token * C + c], sum);
}
void token_embedding_backward2(float* dwte, const float* dout, const int* tokens, int B, int T, int C, int V) {
    token_rows_back<<<dim3(CEIL_DIV(B * T, 32), C), 32>>>(dwte, dout, tokens, B * T, C);
    cudaCheck(cudaGetLastError());
}

// ---- swiglu's backward, the sigmoid by fast intrinsics ----
__global__ void swiglu_back(float* dgate, float* dup, const float* dout, const float* gate, const float* up, int N) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += blockDim.x * gridDim.x) {
        const float g = gate[i], s = 1.0f / (1.0f + expf(-g)), d = dout[i];
        dup[i] = d * g * s;
        dgate[i] = d * up[i] * s * (1.0f + g * (1.0f - s));
    }
}
void swiglu_backward(float* dgate, float* dup, const float* dout, const float* gate, const float* up, int N) {
    swiglu_back<<<2, 128>>>(dgate, dup, dout, gate, up, N);
    cudaCheck(cudaGetLastError());
}
