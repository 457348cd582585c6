"""Wrong solutions of `softmax_cuda`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
WRONG = [
    ("no barrier before the tree", "    found[t] = top;\n    __syncthreads();\n", "    found[t] = top;\n",
     "__syncthreads() missing"),
    ("no barrier in the tree", "found[t + half]);\n        __syncthreads();\n", "found[t + half]);\n",
     "__syncthreads() missing"),
    ("no barrier before found is used again", "    top = found[0];\n    __syncthreads();\n", "    top = found[0];\n",
     "__syncthreads() missing"),
    ("a barrier for some", "if (t < half) found[t] += found[t + half];\n        __syncthreads();",
     "if (t < half) { found[t] += found[t + half]; __syncthreads(); }", "some threads do not come"),
    ("the tree reaches too far", "for (int half = 64; half > 0; half /= 2) {\n        if (t < half) found[t] +=",
     "for (int half = 128; half > 0; half /= 2) {\n        if (t < half) found[t] +=", "which condition"),
    ("the maximum is left in", "sum += expf(row[v] - top)", "sum += expf(row[v])", "out"),
]
