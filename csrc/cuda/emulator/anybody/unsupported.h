#error \
    "the emulator runs kernels and CUDA's runtime API; cuBLAS, cuDNN, CUB, Thrust, cuRAND, CUTLASS and NCCL are not there: write this part as a kernel, or check it on a GPU"
