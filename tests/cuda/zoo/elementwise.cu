// Element by element, in the styles of courses: naive, grid-stride, vectorised, templated, half precision on the way.
#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))
#define cudaCheck(call)                                                                     \
    do {                                                                                    \
        cudaError_t error_ = (call);                                                        \
        if (error_ != cudaSuccess) {                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error_)); \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

#define GELU_K 0.7978845608028654f

// ---- GELU, forward: a thread an element ----
__global__ void gelu_naive(float* out, const float* x, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) {
        float v = x[i];
        out[i] = 0.5f * v * (1.0f + tanhf(GELU_K * (v + 0.044715f * v * v * v)));
    }
}
void gelu_forward1(float* out, const float* inp, int N, const int block_size) {
    gelu_naive<<<CEIL_DIV(N, block_size), block_size>>>(out, inp, N);
    cudaCheck(cudaGetLastError());
}

// ---- a grid of fixed size that strides over the elements ----
__global__ void gelu_strided(float* __restrict__ out, const float* __restrict__ x, size_t n) {
    const size_t stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        float v = __ldg(x + i), cube = 0.044715f * v * v * v;
        out[i] = 0.5f * v * (1.0f + tanhf(GELU_K * (v + cube)));
    }
}
void gelu_forward2(float* out, const float* inp, int N) {
    gelu_strided<<<4, 128>>>(out, inp, N);
    cudaCheck(cudaGetLastError());
}

// ---- four at a time, and what is left over one by one ----
__device__ __forceinline__ float gelu_of(float v) {
    return 0.5f * v * (1.0f + tanhf(GELU_K * (v + 0.044715f * v * v * v)));
}
__global__ void gelu_float4(float* out, const float* x, int n) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i + 3 < n) {
        float4 v = *reinterpret_cast<const float4*>(x + i);
        v.x = gelu_of(v.x), v.y = gelu_of(v.y), v.z = gelu_of(v.z), v.w = gelu_of(v.w);
        *reinterpret_cast<float4*>(out + i) = v;
    } else {
        for (; i < n; i++) out[i] = gelu_of(x[i]);
    }
}
void gelu_forward3(float* out, const float* inp, int N) {
    gelu_float4<<<CEIL_DIV(N, 4 * 128), 128>>>(out, inp, N);
    cudaCheck(cudaGetLastError());
}

// ---- its backward, in place of what is there ----
__global__ void gelu_back(float* dinp, const float* inp, const float* dout, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N) return;
    float x = inp[i], cube = 0.044715f * x * x * x, t = tanhf(GELU_K * (x + cube));
    float local = 0.5f * (1.0f + t) + x * 0.5f * (1.0f - t * t) * GELU_K * (1.0f + 3.0f * 0.044715f * x * x);
    dinp[i] = local * dout[i];
}
// minillm: gelu_backward1(dinp=dx, inp=x, dout, N, block_size=128)
void gelu_backward1(float* dinp, const float* inp, const float* dout, int N, int block_size) {
    gelu_back<<<CEIL_DIV(N, block_size), block_size>>>(dinp, inp, dout, N);
    cudaCheck(cudaGetLastError());
}

// ---- host pointers: the function brings its arrays to the device and back ----
void gelu_forward4(float* out, const float* x, int N) {
    float *d_x, *d_out;
    size_t bytes = N * sizeof(float);
    cudaCheck(cudaMalloc(&d_x, bytes));
    cudaCheck(cudaMalloc(&d_out, bytes));
    cudaCheck(cudaMemcpy(d_x, x, bytes, cudaMemcpyHostToDevice));
    gelu_naive<<<CEIL_DIV(N, 64), 64>>>(d_out, d_x, N);
    cudaCheck(cudaGetLastError());
    cudaCheck(cudaMemcpy(out, d_out, bytes, cudaMemcpyDeviceToHost));
    cudaCheck(cudaFree(d_x));
    cudaCheck(cudaFree(d_out));
}

// ---- residual: streaming loads and stores of whole vectors ----
__global__ void residual_stream(float* out, const float* a, const float* b, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) __stcs(&out[i], __ldcs(&a[i]) + __ldcs(&b[i]));
}
void residual_forward1(float* out, const float* inp1, const float* inp2, int N) {
    residual_stream<<<CEIL_DIV(N, 256), 256>>>(out, inp1, inp2, N);
    cudaCheck(cudaGetLastError());
}

// ---- residual in place of dx and dy, two-dimensional blocks ----
__global__ void residual_back(float* dinp1, float* dinp2, const float* dout, int N) {
    int i = (blockIdx.x * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    if (i < N) {
        dinp1[i] += dout[i];
        dinp2[i] += dout[i];
    }
}
void residual_backward(float* dinp1, float* dinp2, const float* dout, int N) {
    dim3 block(16, 8);
    residual_back<<<CEIL_DIV(N, 128), block>>>(dinp1, dinp2, dout, N);
    cudaCheck(cudaGetLastError());
}

// ---- SwiGLU and GeGLU: one kernel, a functor as its template argument ----
struct Silu {
    __device__ float operator()(float x) const { return x / (1.0f + expf(-x)); }
};
struct Gelu {
    __device__ float operator()(float x) const { return gelu_of(x); }
};
template <typename F, int ELEMENTS>
__global__ void __launch_bounds__(128) gated(float* out, const float* gate, const float* up, int N, F f) {
    int base = (blockIdx.x * blockDim.x + threadIdx.x) * ELEMENTS;
#pragma unroll
    for (int k = 0; k < ELEMENTS; ++k)
        if (base + k < N) out[base + k] = f(gate[base + k]) * up[base + k];
}
void swiglu_forward(float* out, const float* gate, const float* up, int N) {
    gated<Silu, 2><<<CEIL_DIV(N, 2 * 128), 128>>>(out, gate, up, N, Silu());
    cudaCheck(cudaGetLastError());
}
void geglu_forward(float* out, const float* gate, const float* up, int N) {
    gated<Gelu, (1 > 0) ? 3 : 1><<<CEIL_DIV(N, 3 * 128), 128, 0, 0>>>(out, gate, up, N, Gelu{});
    cudaCheck(cudaGetLastError());
}

// ---- soft-cap: the bound of the scores lies in constant memory ----
__constant__ float bound;
__global__ void softcap_kernel(float* out, const float* x, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) out[i] = bound * tanhf(x[i] / bound);
}
void softcap_forward(float* out, const float* x, int N, float cap) {
    cudaCheck(cudaMemcpyToSymbol(bound, &cap, sizeof(float)));
    softcap_kernel<<<CEIL_DIV(N, 192), 192>>>(out, x, N);
    cudaCheck(cudaGetLastError());
}

// ---- squared ReLU: on a stream of its own, timed by events, the block size asked for ----
__global__ void relu_squared_kernel(float* out, const float* x, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) {
        float r = fmaxf(x[i], 0.0f);
        out[i] = isnan(x[i]) ? x[i] : r * r;
    }
}
void relu_squared_forward(float* out, const float* x, int N) {
    cudaStream_t stream;
    cudaEvent_t start, stop;
    cudaDeviceProp properties;
    float ms;
    cudaCheck(cudaGetDeviceProperties(&properties, 0));
    cudaCheck(cudaStreamCreate(&stream));
    cudaCheck(cudaEventCreate(&start));
    cudaCheck(cudaEventCreate(&stop));
    const int block = properties.maxThreadsPerBlock < 256 ? properties.maxThreadsPerBlock : 256;
    cudaCheck(cudaEventRecord(start, stream));
    relu_squared_kernel<<<CEIL_DIV(N, block), block, 0, stream>>>(out, x, N);
    cudaCheck(cudaGetLastError());
    cudaCheck(cudaEventRecord(stop, stream));
    cudaCheck(cudaEventSynchronize(stop));
    cudaCheck(cudaEventElapsedTime(&ms, start, stop));
    cudaCheck(cudaEventDestroy(start));
    cudaCheck(cudaEventDestroy(stop));
    cudaCheck(cudaStreamDestroy(stream));
}

// ---- dropout: Philox 4x64-10, a thread eight elements ----
__device__ void philox_round(uint64_t* c, uint64_t k0, uint64_t k1) {
    uint64_t hi0 = __umul64hi(0xD2E7470EE14C6C93ull, c[0]), lo0 = 0xD2E7470EE14C6C93ull * c[0];
    uint64_t hi1 = __umul64hi(0xCA5A826395121157ull, c[2]), lo1 = 0xCA5A826395121157ull * c[2];
    c[0] = hi1 ^ c[1] ^ k0, c[1] = lo1, c[2] = hi0 ^ c[3] ^ k1, c[3] = lo0;
}
__global__ void dropout_kernel(float* out, const float* x, const uint64_t* key, int N, float p) {
    int block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block * 8 >= N) return;
    uint64_t c[4] = {(uint64_t)block + 1, key[1], key[2], 0}, k0 = key[0], k1 = 0;
    for (int round = 0; round < 10; round++) {
        philox_round(c, k0, k1);
        k0 += 0x9E3779B97F4A7C15ull, k1 += 0xBB67AE8584CAA73Bull;
    }
    const uint32_t least = (uint32_t)ceil(p * 4294967296.0);
    for (int e = 0; e < 8 && block * 8 + e < N; e++) {
        uint32_t bits = (uint32_t)(c[e / 2] >> (32 * (e % 2)));
        out[block * 8 + e] = bits >= least ? x[block * 8 + e] * (1.0f / (1.0f - p)) : 0.0f;
    }
}
void dropout_forward(float* out, const float* x, const uint64_t* key, int N, float p) {
    dropout_kernel<<<CEIL_DIV(N, 8 * 64), 64>>>(out, x, key, N, p);
    cudaCheck(cudaGetLastError());
}

// ---- AdamW: one pass, the moments in registers ----
__global__ void adamw_kernel(float* w, const float* grad, float* m_memory, float* v_memory, long num_parameters,
                             float lr, float beta1, float beta2, float correction1, float correction2, float eps,
                             float weight_decay, int n_decayed, float scale) {
    long i = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= num_parameters) return;
    float g = grad[i] * scale;
    float m = beta1 * m_memory[i] + (1.0f - beta1) * g, v = beta2 * v_memory[i] + (1.0f - beta2) * (g * g);
    m_memory[i] = m;
    v_memory[i] = v;
    float decayed = i < n_decayed ? w[i] * (1.0f - lr * weight_decay) : w[i];
    w[i] = decayed - lr * (m / correction1) / (sqrtf(v / correction2) + eps);
}
void adamw_update(float* w, float* m_memory, float* v_memory, const float* grad, long num_parameters, int t,
                  float learning_rate, float beta1, float beta2, float eps, float weight_decay, int n_decayed,
                  float scale) {
    float correction1 = 1.0f - powf(beta1, t), correction2 = 1.0f - powf(beta2, t);
    adamw_kernel<<<CEIL_DIV(num_parameters, 512), 512>>>(w, grad, m_memory, v_memory, num_parameters, learning_rate,
                                                         beta1, beta2, correction1, correction2, eps, weight_decay,
                                                         n_decayed, scale);
    cudaCheck(cudaGetLastError());
}
