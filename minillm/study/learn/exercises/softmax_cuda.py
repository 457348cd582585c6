r"""Softmax as a kernel in CUDA: a block a row.

Each of the B * T rows of V numbers has a block of 128 threads. Thread t takes the elements t, t + 128, t + 256, ...,
and what the threads have found is put together in shared memory, which all threads of a block can read:

    top = max(x)        sum = sum(exp(x - top))         out = exp(x - top) / sum

    out (B, T, V)      write all of it; it holds garbage before
    x (B, T, V)        read only

`__shared__ float found[128]` is one array for the whole block. What one thread writes there, another may read only
after a barrier, `__syncthreads()`, to which all threads of the block must come. A sum in a tree: half of the threads
add the other half's numbers to theirs, then a quarter, and so on, with a barrier between. The emulator reports a race
where a barrier is missing, even if the result was right this time.

Source: Harris 2007, "Optimizing parallel reduction in CUDA".
"""
from ..exercise import Exercise

_CU = r"""
#include <cuda_runtime.h>

// out (rows, V) of x (rows, V); blockDim.x is 128, gridDim.x the number of rows
__global__ void softmax_kernel(float* out, const float* x, int V) {
    __shared__ float found[128];
    const int t = threadIdx.x;
    const float* row = x + blockIdx.x * V;
    float top = -INFINITY, sum = 0.0f;
    for (int v = t; v < V; v += 128) top = fmaxf(top, row[v]);
    found[t] = top;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half) found[t] = fmaxf(found[t], found[t + half]);
        __syncthreads();
    }
    top = found[0];
    __syncthreads();
    for (int v = t; v < V; v += 128) sum += expf(row[v] - top);
    found[t] = sum;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half) found[t] += found[t + half];
        __syncthreads();
    }
    sum = found[0];
    for (int v = t; v < V; v += 128) out[blockIdx.x * V + v] = expf(row[v] - top) / sum;
}

void softmax_forward(float* out, const float* x, int B, int T, int V) {
    softmax_kernel<<<B * T, 128>>>(out, x, V);
    if (cudaGetLastError() != cudaSuccess) __builtin_trap();
}
"""

EXERCISE = Exercise(
    __file__, op="softmax", solve=("softmax_kernel",), needs=("softmax", "gelu_cuda"), c=_CU, language="cu",
    hints=("Row blockIdx.x begins at x + blockIdx.x * V. Each thread finds the largest of its own elements in a "
           "register: for (int v = threadIdx.x; v < V; v += 128), beginning with -INFINITY, for there may be fewer "
           "than 128.",
           "It stores that at found[threadIdx.x]. Then __syncthreads(): now all 128 are there.",
           "for (int half = 64; half > 0; half /= 2): threads below half take the larger of found[t] and found[t + "
           "half]. The __syncthreads() stands behind the if, not in it: all threads must come to it.",
           "Then found[0] is the row's maximum; every thread reads it into a register. Before found is written "
           "again another __syncthreads(): a slow thread may not have read it yet.",
           "The same once more with sums of expf(row[v] - top); then each thread writes its own elements."))
