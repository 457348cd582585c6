r"""Layer normalisation as a kernel in C.

The same forward as in NumPy, on raw pointers. For each of the B * T rows of C numbers:

    mean = sum(x) / C        var = sum((x - mean)^2) / C        rstd = 1 / sqrt(var + 1e-5)
    out  = (x - mean) * rstd * weight + bias

    out (B, T, C), mean (B, T), rstd (B, T)         write all of them; they hold garbage before
    x (B, T, C), weight (C), bias (C)               read only

Arrays are float32, rows one after the other: number c of row n is x[n * C + c]. Your kernel is compiled with gcc and
run in a process of its own, between guard pages, at sizes that are not round, on large, tiny, infinite and NaN numbers;
then it is timed. (`minillm kernel check` and `minillm kernel bench` do the same for any kernel, of any op.)

NumPy needs five passes over memory for this, you need one over x from memory: the row of a second pass is in L1. A sum
of x and x^2 in one pass is tempting, var = mean(x^2) - mean^2, but it cancels where the mean is large.

Source: Ba, Kiros and Hinton 2016, arXiv 1607.06450; the layout is that of Karpathy's llm.c.
"""
from ..exercise import Exercise

_C = r"""
#include <math.h>

// out (B, T, C), mean (B, T), rstd (B, T) of x (B, T, C), weight (C), bias (C)
void layernorm_forward(float* out, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                       int B, int T, int C) {
    #pragma omp parallel for
    for (int n = 0; n < B * T; n++) {
        const float* row = x + (long)n * C;
        float* result = out + (long)n * C;
        double sum = 0, squares = 0;
        for (int c = 0; c < C; c++) sum += row[c];
        double m = sum / C;
        for (int c = 0; c < C; c++) squares += (row[c] - m) * (row[c] - m);
        double r = 1 / sqrt(squares / C + 1e-5);
        for (int c = 0; c < C; c++) result[c] = (row[c] - m) * r * weight[c] + bias[c];
        mean[n] = m;
        rstd[n] = r;
    }
}
"""

EXERCISE = Exercise(
    __file__, op="layernorm", solve=("layernorm_forward",), needs=("layernorm_forward",), c=_C,
    hints=("One loop over the B * T rows; const float* row = x + (long)n * C points at row n, and out likewise.",
           "First loop over c: the sum. Divided by C it is the row's mean. Sum in double: it costs little here.",
           "Second loop: the sum of (row[c] - mean)^2. rstd = 1 / sqrt(sum / C + 1e-5), eps inside the root.",
           "Third loop: out. Store the row's mean and rstd at mean[n] and rstd[n], which the backward will want.",
           "Rows are independent: #pragma omp parallel for above the loop over rows shares them among the cores."))
