// Causal attention: three kernels with their scores in memory, one kernel with an online softmax, one for decoding.
#include "common.cuh"

// ---- scores, softmax, values: a thread an element, scratch memory of its own ----
__global__ void attention_query_key(float* preatt, const float* inp, int B, int T, int C, int NH) {
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    int total_threads = B * NH * T * T;
    if (idx < total_threads) {
        int t2 = idx % T, t = (idx / T) % T;
        if (t2 > t) {
            preatt[idx] = -INFINITY;
            return;
        }
        int h = (idx / (T * T)) % NH, b = idx / (NH * T * T), hs = C / NH;
        const float* query_t = inp + b * T * 3 * C + t * 3 * C + h * hs;
        const float* key_t2 = inp + b * T * 3 * C + t2 * 3 * C + h * hs + C;
        float val = 0.0f;
        for (int i = 0; i < hs; i++) val += query_t[i] * key_t2[i];
        preatt[idx] = val * (1.0f / sqrtf((float)hs));
    }
}
__global__ void attention_softmax(float* lse, float* att, int rows, int T) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float *a = att + row * T, maxval = -FLT_MAX, sum = 0.0f;
    int own_pos = row % T;
    for (int i = 0; i <= own_pos; i++) maxval = fmaxf(maxval, a[i]);
    for (int i = 0; i <= own_pos; i++) sum += expf(a[i] - maxval);
    for (int i = 0; i < T; i++) a[i] = i <= own_pos ? expf(a[i] - maxval) / sum : 0.0f;
    lse[row] = maxval + logf(sum);
}
__global__ void attention_value(float* out, const float* att, const float* inp, int B, int T, int C, int NH) {
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx >= B * T * C) return;
    int c = idx % C, t = (idx / C) % T, b = idx / (T * C), h = c / (C / NH);
    const float* a = att + ((b * NH + h) * T + t) * T;
    float sum = 0.0f;
    for (int t2 = 0; t2 <= t; t2++) sum += a[t2] * inp[(b * T + t2) * 3 * C + 2 * C + c];
    out[idx] = sum;
}
void attention_forward1(float* out, float* lse, float* preatt, const float* inp, int B, int T, int C, int NH,
                        const int block_size) {
    int total_threads = B * NH * T * T;
    attention_query_key<<<CEIL_DIV(total_threads, block_size), block_size>>>(preatt, inp, B, T, C, NH);
    cudaCheck(cudaGetLastError());
    attention_softmax<<<CEIL_DIV(B * NH * T, block_size), block_size>>>(lse, preatt, B * NH * T, T);
    cudaCheck(cudaGetLastError());
    attention_value<<<CEIL_DIV(B * T * C, block_size), block_size>>>(out, preatt, inp, B, T, C, NH);
    cudaCheck(cudaGetLastError());
}

// ---- flash style: 16 queries a block, keys and values in tiles of 16, the softmax online; HS up to 64 ----
// sizes: HS <= 64
#define ROWS 16
#define MAX_HS 64
__global__ void flash_kernel(float* out, float* lse, const float* qkv, int T, int C, int NH, float scale) {
    __shared__ float Kj[ROWS][MAX_HS + 1], Vj[ROWS][MAX_HS];
    __shared__ float S[ROWS][ROWS + 1];
    const int hs = C / NH, h = blockIdx.y % NH, b = blockIdx.y / NH;
    const int t = blockIdx.x * ROWS + threadIdx.y, lane = threadIdx.x;              // 16 threads a query
    const float* base = qkv + (size_t)b * T * 3 * C + h * hs;
    float m = -INFINITY, l = 0.0f, o[MAX_HS / 16] = {0.0f};
    for (int first = 0; first <= (int)blockIdx.x * ROWS; first += ROWS) {
        const int key = first + threadIdx.y;
        for (int d = lane; d < hs; d += 16) {
            Kj[threadIdx.y][d] = key < T ? base[(size_t)key * 3 * C + C + d] : 0.0f;
            Vj[threadIdx.y][d] = key < T ? base[(size_t)key * 3 * C + 2 * C + d] : 0.0f;
        }
        __syncthreads();
        float score = -INFINITY;
        if (t < T && first + lane <= t) {
            score = 0.0f;
            for (int d = 0; d < hs; d++) score += base[(size_t)t * 3 * C + d] * Kj[lane][d];
            score *= scale;
        }
        S[threadIdx.y][lane] = score;
        __syncthreads();
        float new_m = m;
        for (int j = 0; j < ROWS; j++) new_m = fmaxf(new_m, S[threadIdx.y][j]);
        if (t < T) {
            const float shrink = expf(m - new_m);
            l *= shrink;
            for (int i = 0; i < MAX_HS / 16; i++) o[i] *= shrink;
            for (int j = 0; j < ROWS && first + j <= t; j++) {
                const float p = expf(S[threadIdx.y][j] - new_m);
                l += p;
                for (int i = 0, d = lane; d < hs; i++, d += 16) o[i] += p * Vj[j][d];
            }
            m = new_m;
        }
        __syncthreads();
    }
    if (t < T) {
        for (int i = 0, d = lane; d < hs; i++, d += 16) out[((size_t)b * T + t) * C + h * hs + d] = o[i] / l;
        if (lane == 0) lse[(b * NH + h) * T + t] = m + logf(l);
    }
}
void attention_forward2(float* out, float* lse, const float* qkv, int B, int T, int C, int NH) {
    dim3 grid(CEIL_DIV(T, ROWS), B * NH), block(16, ROWS);
    flash_kernel<<<grid, block>>>(out, lse, qkv, T, C, NH, 1.0f / sqrtf((float)(C / NH)));
    cudaCheck(cudaGetLastError());
}

// ---- decoding: a block a head, its warps share the keys; partial softmaxes meet in dynamic shared memory ----
__global__ void decode_kernel(float* out, const float* q, const float* k, const float* v, int S, int HS) {
    extern __shared__ __align__(16) unsigned char memory[];
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* sums = (float*)memory;                                                   // warps x HS
    float *ms = sums + warps * HS, *ls = ms + warps;
    const float *query = q + (size_t)blockIdx.x * HS, *keys = k + (size_t)blockIdx.x * S * HS;
    const float* values = v + (size_t)blockIdx.x * S * HS;
    for (int d = lane; d < HS; d += 32) sums[warp * HS + d] = 0.0f;
    float m = -INFINITY, l = 0.0f;
    for (int s = warp; s < S; s += warps) {
        float dot = 0.0f;
        for (int d = lane; d < HS; d += 32) dot += query[d] * keys[s * HS + d];
        dot = warpReduceSum(dot) / sqrtf((float)HS);
        const float bigger = fmaxf(m, dot), shrink = expf(m - bigger), p = expf(dot - bigger);
        l = l * shrink + p;
        for (int d = lane; d < HS; d += 32) sums[warp * HS + d] = sums[warp * HS + d] * shrink + p * values[s * HS + d];
        m = bigger;
    }
    if (lane == 0) ms[warp] = m, ls[warp] = l;
    __syncthreads();
    float top = -INFINITY, total = 0.0f;
    for (int w = 0; w < warps; w++) top = fmaxf(top, ms[w]);
    for (int w = 0; w < warps; w++) total += ls[w] * expf(ms[w] - top);
    for (int d = threadIdx.x; d < HS; d += blockDim.x) {
        float sum = 0.0f;
        for (int w = 0; w < warps; w++) sum += sums[w * HS + d] * expf(ms[w] - top);
        out[(size_t)blockIdx.x * HS + d] = sum / total;
    }
}
// minillm: attention_decode: attention_decode(out, q, k, v, B, T, S, C, NH, HS)
void attention_decode(float* out, const float* q, const float* k, const float* v, int B, int T, int S, int C, int NH,
                      int HS) {
    const int warps = 4;
    decode_kernel<<<B * NH, warps * 32, (warps * HS + 2 * warps) * sizeof(float)>>>(out, q, k, v, S, HS);
    cudaCheck(cudaGetLastError());
}
