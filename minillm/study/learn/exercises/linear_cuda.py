r"""A linear layer as a kernel in CUDA: tiles in shared memory.

    out[n][o] = bias[o] + sum over c of x[n][c] * weight[c][o]              n < N = B * T,  c < C,  o < OC

    out (N, OC)                                 write all of it; it holds garbage before
    x (N, C), weight (C, OC), bias (OC)         read only

A block of 16 x 16 threads makes a tile of 16 x 16 outputs: thread (threadIdx.y, threadIdx.x) the one of row
blockIdx.y * 16 + threadIdx.y and column blockIdx.x * 16 + threadIdx.x. A thread that read its own row and column from
memory would read 2 C numbers; so would its neighbours, and 16 of them the same ones. Instead the block brings a tile
of x and a tile of weight to shared memory, one number of each a thread, and all threads use both; then the next tiles
along c. That divides the traffic by 16.

N, C and OC need not be multiples of 16: beyond the edges put zeros into the tiles, which add nothing, and write no
output.

Source: NVIDIA, CUDA C++ Programming Guide, "Shared Memory".
"""
from ..exercise import Exercise

_CU = r"""
#include <cuda_runtime.h>

// out (N, OC) of x (N, C), weight (C, OC), bias (OC)
__global__ void linear_kernel(float* out, const float* x, const float* weight, const float* bias, int N, int C,
                              int OC) {
    __shared__ float a[16][16], b[16][16];
    const int i = threadIdx.y, j = threadIdx.x;
    const int n = blockIdx.y * 16 + i, o = blockIdx.x * 16 + j;
    float sum = 0.0f;
    for (int first = 0; first < C; first += 16) {
        a[i][j] = n < N && first + j < C ? x[n * C + first + j] : 0.0f;
        b[i][j] = o < OC && first + i < C ? weight[(first + i) * OC + o] : 0.0f;
        __syncthreads();
        for (int c = 0; c < 16; c++) sum += a[i][c] * b[c][j];
        __syncthreads();
    }
    if (n < N && o < OC) out[n * OC + o] = sum + bias[o];
}

void linear_forward(float* out, const float* x, const float* weight, const float* bias, int B, int T, int C, int OC) {
    dim3 threads(16, 16), blocks((OC + 15) / 16, (B * T + 15) / 16);
    linear_kernel<<<blocks, threads>>>(out, x, weight, bias, B * T, C, OC);
    if (cudaGetLastError() != cudaSuccess) __builtin_trap();
}
"""

EXERCISE = Exercise(
    __file__, op="linear", solve=("linear_kernel",), needs=("linear_forward", "softmax_cuda"), c=_CU, language="cu",
    hints=("Two tiles: __shared__ float a[16][16], b[16][16]. A loop over first = 0, 16, 32, ... below C brings x's "
           "columns and weight's rows first to first + 15.",
           "Thread (i, j) brings a[i][j] = x[n * C + first + j] and b[i][j] = weight[(first + i) * OC + o]: "
           "neighbours in j read neighbours in memory, which the GPU does at once.",
           "Beyond the edges 0: a where n >= N or first + j >= C, b where o >= OC or first + i >= C. All threads "
           "stay in the loop, for all must come to its barriers.",
           "__syncthreads() after the tiles are filled, then sum += a[i][c] * b[c][j] for c = 0 to 15, and again "
           "__syncthreads(), before the tiles are filled anew.",
           "After the loop, where n < N and o < OC: out[n * OC + o] = sum + bias[o]."))
