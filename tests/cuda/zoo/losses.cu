// Softmax and cross-entropy: two passes, online, a warp or a block a row.
#include "common.cuh"

// ---- a thread a row, three passes ----
__global__ void softmax_naive(float* out, const float* inp, int N, int V) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) {
        const float* row = inp + i * V;
        float maxval = -INFINITY, sum = 0.0f;
        for (int j = 0; j < V; j++) {
            if (row[j] > maxval || isnan(row[j])) maxval = row[j];
        }
        for (int j = 0; j < V; j++) {
            out[i * V + j] = expf(row[j] - maxval);
            sum += out[i * V + j];
        }
        for (int j = 0; j < V; j++) out[i * V + j] /= sum;
    }
}
void softmax_forward1(float* out, const float* inp, int B, int T, int V, const int block_size) {
    softmax_naive<<<CEIL_DIV(B * T, block_size), block_size>>>(out, inp, B * T, V);
    cudaCheck(cudaGetLastError());
}

// ---- a warp a row, online: each lane keeps a maximum and a sum, and shuffles combine them ----
struct __align__(8) SumMax {
    float maxval;
    float sum;
};
__device__ __forceinline__ SumMax combine(SumMax a, SumMax b) {
    bool a_bigger = a.maxval > b.maxval;
    SumMax bigger = a_bigger ? a : b, smaller = a_bigger ? b : a;
    if (smaller.sum == 0.0f) return bigger;
    bigger.sum += smaller.sum * expf(smaller.maxval - bigger.maxval);
    return bigger;
}
__global__ void softmax_online(float* out, const float* inp, int N, int V) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
    if (row >= N) return;
    const float* x = inp + (size_t)row * V;
    SumMax mine = {-FLT_MAX, 0.0f};
    for (int j = lane; j < V; j += 32) mine = combine(mine, SumMax{x[j], 1.0f});
    for (int offset = 16; offset > 0; offset >>= 1) {
        SumMax other;
        other.maxval = __shfl_xor_sync(0xffffffffu, mine.maxval, offset);
        other.sum = __shfl_xor_sync(0xffffffffu, mine.sum, offset);
        mine = combine(mine, other);
    }
    for (int j = lane; j < V; j += 32) out[(size_t)row * V + j] = expf(x[j] - mine.maxval) / mine.sum;
}
void softmax_forward2(float* out, const float* inp, int B, int T, int V, const int block_size) {
    softmax_online<<<CEIL_DIV(B * T * 32, block_size), block_size>>>(out, inp, B * T, V);
    cudaCheck(cudaGetLastError());
}

// ---- a block a row, reductions by shared memory and shuffles ----
__global__ void softmax_block(float* out, const float* inp, int V) {
    const float* x = inp + blockIdx.x * V;
    float* o = out + blockIdx.x * V;
    float maxval = -INFINITY;
    for (int j = threadIdx.x; j < V; j += blockDim.x) maxval = fmaxf(maxval, x[j]);
    maxval = blockReduce<warpReduceMax>(maxval, -FLT_MAX);
    float sum = 0.0f;
    for (int j = threadIdx.x; j < V; j += blockDim.x) sum += expf(x[j] - maxval);
    sum = blockReduce<warpReduceSum>(sum);
    for (int j = threadIdx.x; j < V; j += blockDim.x) o[j] = expf(x[j] - maxval) / sum;
}
void softmax_forward3(float* out, const float* inp, int B, int T, int V) {
    softmax_block<<<B * T, 96>>>(out, inp, V);
    cudaCheck(cudaGetLastError());
}

// ---- its backward: a row's dot product first ----
__global__ void softmax_back(float* dx, const float* dout, const float* out, int V) {
    const size_t at = (size_t)blockIdx.x * V;
    float dot = 0.0f;
    for (int j = threadIdx.x; j < V; j += blockDim.x) dot += dout[at + j] * out[at + j];
    dot = blockReduce<warpReduceSum>(dot);
    for (int j = threadIdx.x; j < V; j += blockDim.x) dx[at + j] = out[at + j] * (dout[at + j] - dot);
}
void softmax_backward(float* dx, const float* dout, const float* out, int B, int T, int V) {
    softmax_back<<<B * T, 64>>>(dx, dout, out, V);
    cudaCheck(cudaGetLastError());
}

// ---- cross-entropy: a block a row, from the logits; the maximum by a tree, the sum by one atomic a warp ----
__global__ void cross_entropy_kernel(float* losses, float* top, float* logsum, const float* logits, const int* targets,
                                     int V, int ignore_index) {
    __shared__ float tree[128];
    __shared__ float sum;
    const float* x = logits + (size_t)blockIdx.x * V;
    float maxval = -INFINITY;
    for (int j = threadIdx.x; j < V; j += blockDim.x) maxval = fmaxf(maxval, x[j]);
    tree[threadIdx.x] = maxval;
    if (threadIdx.x == 0) sum = 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half >>= 1) {
        if (threadIdx.x < half) tree[threadIdx.x] = fmaxf(tree[threadIdx.x], tree[threadIdx.x + half]);
        __syncthreads();
    }
    maxval = tree[0];
    float mine = 0.0f;
    for (int j = threadIdx.x; j < V; j += blockDim.x) mine += expf(x[j] - maxval);
    mine = warpReduceSum(mine);
    if (threadIdx.x % 32 == 0) atomicAdd(&sum, mine);
    __syncthreads();
    if (threadIdx.x == 0) {
        const int target = targets[blockIdx.x];
        top[blockIdx.x] = maxval;
        logsum[blockIdx.x] = logf(sum);
        losses[blockIdx.x] = target == ignore_index ? 0.0f : maxval - x[target] + logf(sum);
    }
}
void cross_entropy_forward(float* losses, float* top, float* logsum, const float* logits, const int* targets, int N,
                           int V, int ignore_index) {
    cross_entropy_kernel<<<N, 128>>>(losses, top, logsum, logits, targets, V, ignore_index);
    cudaCheck(cudaGetLastError());
}

// ---- its backward: a two-dimensional grid ----
__global__ void cross_entropy_back(float* dlogits, const float* dlosses, const float* logits, const int* targets,
                                   const float* top, const float* logsum, int N, int V, int ignore_index) {
    const int v = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y * blockDim.y + threadIdx.y;
    if (v >= V || n >= N) return;
    const float p = expf(logits[n * V + v] - top[n] - logsum[n]), indicator = v == targets[n] ? 1.0f : 0.0f;
    dlogits[n * V + v] = targets[n] == ignore_index ? 0.0f : (p - indicator) * dlosses[n];
}
void cross_entropy_backward(float* dlogits, const float* dlosses, const float* logits, const int* targets,
                            const float* top, const float* logsum, int N, int V, int ignore_index) {
    dim3 block(32, 4), grid(CEIL_DIV(V, 32), CEIL_DIV(N, 4));
    cross_entropy_back<<<grid, block>>>(dlogits, dlosses, logits, targets, top, logsum, N, V, ignore_index);
    cudaCheck(cudaGetLastError());
}

// ---- sum of squares: a grid-stride loop, a block's partial sum each, then one block ----
__global__ void partial_squares(double* partial, const float* x, int N) {
    __shared__ double tree[256];
    double sum = 0.0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += gridDim.x * blockDim.x) sum += (double)x[i] * x[i];
    tree[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned s = blockDim.x / 2; s > 0; s >>= 1) {
        if (threadIdx.x < s) tree[threadIdx.x] += tree[threadIdx.x + s];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = tree[0];
}
__global__ void add_partials(double* out, const double* partial, int n) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        double sum = 0.0;
        for (int i = 0; i < n; i++) sum += partial[i];
        *out = sum;
    }
}
// minillm: sum_squares: sum_squares(out, x, N)
void sum_squares(double* out, const float* x, int N) {
    const int blocks = 6;
    double* partial;
    cudaCheck(cudaMalloc((void**)&partial, blocks * sizeof(double)));
    partial_squares<<<blocks, 256>>>(partial, x, N);
    cudaCheck(cudaGetLastError());
    add_partials<<<1, 1>>>(out, partial, blocks);
    cudaCheck(cudaGetLastError());
    cudaCheck(cudaFree(partial));
}

// ---- the same by atomics on a double ----
__global__ void atomic_squares(double* out, const float* x, int N) {
    double mine = 0.0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += gridDim.x * blockDim.x) mine += (double)x[i] * x[i];
    for (int offset = 16; offset > 0; offset /= 2) mine += __shfl_down_sync(0xffffffff, mine, offset);
    if (threadIdx.x % 32 == 0) atomicAdd(out, mine);
}
// minillm: sum_squares: squares_by_atomics(out, x, N)
void squares_by_atomics(double* out, const float* x, int N) {
    cudaCheck(cudaMemset(out, 0, sizeof(double)));
    atomic_squares<<<3, 64>>>(out, x, N);
    cudaCheck(cudaGetLastError());
}
