"""Wrong solutions of `linear_cuda`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
WRONG = [
    ("no barrier after the tiles are filled", ": 0.0f;\n        __syncthreads();\n", ": 0.0f;\n",
     "__syncthreads() missing"),
    ("no barrier before they are filled anew", "b[c][j];\n        __syncthreads();\n", "b[c][j];\n",
     "__syncthreads() missing"),
    ("no edge of x", "n < N && first + j < C ? x[n * C + first + j] : 0.0f", "x[n * C + first + j]", "which condition"),
    ("no edge of the output", "if (n < N && o < OC) out", "out", "which condition"),
    ("weight transposed", "weight[(first + i) * OC + o]", "weight[o * C + first + i]", "out"),
    ("no bias", "sum + bias[o]", "sum", "out"),
]
