r"""GELU as a kernel in CUDA.

One thread for each of N numbers. A block has 256 threads, and there are as many blocks as it takes to have N threads
at least: the last block has threads too many, which must do nothing.

    u = 0.7978845608 * (x + 0.044715 * x^3)         out = 0.5 * x * (1 + tanh(u))

    out (N)      write all of it; it holds garbage before
    x (N)        read only

`__global__` marks a function that the GPU runs, once in every thread; threadIdx.x, blockIdx.x and blockDim.x say
which thread it is. The host function that launches it is given. Your kernel runs on an emulator of a GPU, without a
GPU, which tells with the line whatever a GPU would not forgive, or would forgive today only. (`minillm kernel check`
does the same for any .cu file, of any op.)

Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.
"""
from ..exercise import Exercise

_CU = r"""
#include <cuda_runtime.h>

// out (N) of x (N)
__global__ void gelu_kernel(float* out, const float* x, int N) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) {
        float v = x[i], u = 0.7978845608f * (v + 0.044715f * v * v * v);
        out[i] = 0.5f * v * (1.0f + tanhf(u));
    }
}

void gelu_forward(float* out, const float* x, int N) {
    int threads = 256, blocks = (N + threads - 1) / threads;
    gelu_kernel<<<blocks, threads>>>(out, x, N);
    if (cudaGetLastError() != cudaSuccess) __builtin_trap();
}
"""

EXERCISE = Exercise(
    __file__, op="gelu", solve=("gelu_kernel",), needs=("gelu", "layernorm_c"), c=_CU, language="cu",
    hints=("Blocks come one after the other, and each has blockDim.x threads: the threads before this block's first "
           "are blockIdx.x * blockDim.x.",
           "So the number of this thread among all is int i = blockIdx.x * blockDim.x + threadIdx.x.",
           "There are up to 255 threads more than numbers: everything else belongs into if (i < N) { ... }.",
           "float v = x[i]; then u and out[i] by the formula, with constants that end in f, for 0.5 alone is a "
           "double."))
