"""Wrong solutions of `gelu_cuda`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
WRONG = [
    ("no bound", "if (i < N) {", "{", ("which condition", "gelu_kernel")),
    ("one too many", "if (i < N)", "if (i <= N)", "which condition"),
    ("the block is left out", "blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x", "never written"),
    ("the cube is left out", "v + 0.044715f * v * v * v", "v", "out"),
    ("no semicolon", "int i = blockIdx.x * blockDim.x + threadIdx.x;", "int i = blockIdx.x * blockDim.x + threadIdx.x",
     "error"),
]
