// Embedding tables and rotary positions: gathers, scatters by atomics, scatters without them.
#include "common.cuh"

// ---- a thread four numbers ----
// sizes: C % 4 == 0
__device__ inline float4 add_float4(const float4& a, const float4& b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__global__ void encoder_forward_kernel(float4* out, const int* inp, const float4* wte, const float4* wpe, int B, int T,
                                       int C) {
    int C4 = C / 4, idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx < B * T * C4) {
        int bt = idx / C4, t = bt % T, c4 = idx % C4, ix = inp[bt];
        out[bt * C4 + c4] = add_float4(wte[ix * C4 + c4], wpe[t * C4 + c4]);
    }
}
void encoder_forward(float* out, const int* inp, const float* wte, const float* wpe, int B, int T, int C) {
    encoder_forward_kernel<<<CEIL_DIV(B * T * C / 4, 128), 128>>>((float4*)out, inp, (const float4*)wte,
                                                                  (const float4*)wpe, B, T, C);
    cudaCheck(cudaGetLastError());
}

// ---- backward: atomics on both tables ----
__global__ void encoder_backward_kernel(float* dwte, float* dwpe, const float* dout, const int* inp, int B, int T,
                                        int C) {
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx < B * T * C) {
        int bt = idx / C, t = bt % T, c = idx % C, ix = inp[bt];
        atomicAdd(dwte + ix * C + c, dout[idx]);
        atomicAdd(dwpe + t * C + c, dout[idx]);
    }
}
void encoder_backward(float* dwte, float* dwpe, const float* dout, const int* inp, int B, int T, int C) {
    encoder_backward_kernel<<<CEIL_DIV(B * T * C, 256), 256>>>(dwte, dwpe, dout, inp, B, T, C);
    cudaCheck(cudaGetLastError());
}

// ---- rows of one table: a block a token, a line says how to launch it ----
// launch: token_embedding_forward_kernel<<<rows, 64>>>
__global__ void token_embedding_forward_kernel(float* out, const int* tokens, const float* wte, int C) {
    const float* from = wte + tokens[blockIdx.x] * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x) out[blockIdx.x * C + c] = from[c];
}

// ---- backward in a fixed order: a thread a column of a vocabulary entry looks through all tokens ----
__global__ void token_embedding_back(float* dwte, const float* dout, const int* tokens, int BT, int C, int V) {
    __shared__ int ids[64];
    const int at = blockIdx.x * blockDim.x + threadIdx.x, v = at / C, c = at % C;
    float sum = 0.0f;
    for (int first = 0; first < BT; first += 64) {
        if (first + threadIdx.x < BT) ids[threadIdx.x] = tokens[first + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < min(64, BT - first); i++)
            if (ids[i] == v && v < V) sum += dout[(first + i) * C + c];
        __syncthreads();
    }
    if (v < V) dwte[at] += sum;
}
void token_embedding_backward(float* dwte, const float* dout, const int* tokens, int B, int T, int C, int V) {
    token_embedding_back<<<CEIL_DIV(V * C, 64), 64>>>(dwte, dout, tokens, B * T, C, V);
    cudaCheck(cudaGetLastError());
}

// ---- rotary positions: a three-dimensional grid over batch, time and pairs; half-split or interleaved ----
__global__ void rope_kernel(float* out, const float* x, const float* cos, const float* sin, int T, int C, int R,
                            int interleaved) {
    const int pair = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y, b = blockIdx.z;
    if (pair >= C / 2) return;
    const int head = pair / R, i = pair % R, base = (b * T + t) * C + head * 2 * R;
    const int first = interleaved ? base + 2 * i : base + i, second = interleaved ? first + 1 : first + R;
    const float a = x[first], d = x[second], c = cos[t * R + i], s = sin[t * R + i];
    out[first] = a * c - d * s;
    out[second] = d * c + a * s;
}
void rope_forward(float* out, const float* x, const float* cos, const float* sin, int B, int T, int C, int R,
                  int interleaved) {
    dim3 grid(CEIL_DIV(C / 2, 32), T, B);
    rope_kernel<<<grid, 32>>>(out, x, cos, sin, T, C, R, interleaved);
    cudaCheck(cudaGetLastError());
}
