"""Honest kernels of many styles, none of which may be refused: {name: (file name, op, source)}."""

HEAD = """#include <math.h>
#include <stdint.h>
#include <stddef.h>
"""
GELU = "0.5f * v * (1.0f + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)))"
LAYERNORM = """void layernorm_forward(float* out, const float* x, const float* weight, const float* bias, int B, int T,
                                       int C) {"""

HONEST = {
    "naive": ("a.c", "layernorm", HEAD + LAYERNORM + """
        for (int i = 0; i < B * T; i++) {
            const float* row = x + (size_t)i * C;
            float mean = 0, var = 0;
            for (int c = 0; c < C; c++) mean += row[c];
            mean /= C;
            for (int c = 0; c < C; c++) var += (row[c] - mean) * (row[c] - mean);
            float rstd = 1 / sqrtf(var / C + 1e-5f);
            for (int c = 0; c < C; c++) out[(size_t)i * C + c] = (row[c] - mean) * rstd * weight[c] + bias[c];
        }
    }"""),
    "Welford's one pass": ("a.c", "layernorm", HEAD + LAYERNORM + """
        for (int i = 0; i < B * T; i++) {
            const float* row = x + (size_t)i * C;
            float mean = 0, m2 = 0;
            for (int c = 0; c < C; c++) { float d = row[c] - mean; mean += d / (c + 1); m2 += d * (row[c] - mean); }
            float rstd = 1 / sqrtf(m2 / C + 1e-5f);
            for (int c = 0; c < C; c++) out[(size_t)i * C + c] = (row[c] - mean) * rstd * weight[c] + bias[c];
        }
    }"""),
    "sums in double": ("a.c", "layernorm", HEAD + LAYERNORM + """
        for (int i = 0; i < B * T; i++) {
            const float* row = x + (size_t)i * C;
            double mean = 0, var = 0;
            for (int c = 0; c < C; c++) mean += row[c];
            mean /= C;
            for (int c = 0; c < C; c++) var += (row[c] - mean) * (row[c] - mean);
            double rstd = 1 / sqrt(var / C + 1e-5);
            for (int c = 0; c < C; c++) out[(size_t)i * C + c] = (float)((row[c] - mean) * rstd * weight[c] + bias[c]);
        }
    }"""),
    "OpenMP": ("a.c", "layernorm", HEAD + LAYERNORM + """
        #pragma omp parallel for
        for (int i = 0; i < B * T; i++) {
            const float* row = x + (size_t)i * C;
            float mean = 0, var = 0;
            for (int c = 0; c < C; c++) mean += row[c];
            mean /= C;
            for (int c = 0; c < C; c++) var += (row[c] - mean) * (row[c] - mean);
            float rstd = 1 / sqrtf(var / C + 1e-5f);
            for (int c = 0; c < C; c++) out[(size_t)i * C + c] = (row[c] - mean) * rstd * weight[c] + bias[c];
        }
    }"""),
    "sums in eight lanes": ("a.c", "layernorm", HEAD + """
    static float sum(const float* row, int C, float shift, int squared) {
        float lanes[8] = {0}, total = 0;
        for (int c = 0; c < C; c++) { float d = row[c] - shift; lanes[c % 8] += squared ? d * d : d; }
        for (int lane = 0; lane < 8; lane++) total += lanes[lane];
        return total;
    }
    """ + LAYERNORM + """
        for (int i = 0; i < B * T; i++) {
            const float* row = x + (size_t)i * C;
            float mean = sum(row, C, 0, 0) / C, rstd = 1 / sqrtf(sum(row, C, mean, 1) / C + 1e-5f);
            for (int c = 0; c < C; c++) out[(size_t)i * C + c] = (row[c] - mean) * rstd * weight[c] + bias[c];
        }
    }"""),
    "SIMD by vector types": ("a.c", "gelu", HEAD + f"""
    typedef float v8 __attribute__((vector_size(32), aligned(4)));
    void gelu_forward(float* out, const float* x, int N) {{
        int i = 0;
        for (; i + 8 <= N; i += 8) {{
            v8 v = *(const v8*)(x + i), u = 0.7978845608f * (v + 0.044715f * v * v * v), t;
            for (int lane = 0; lane < 8; lane++) t[lane] = tanhf(u[lane]);
            *(v8*)(out + i) = 0.5f * v * (1.0f + t);
        }}
        for (; i < N; i++) {{ float v = x[i]; out[i] = {GELU}; }}
    }}"""),
    "C++ with a lambda": ("a.cpp", "gelu", """#include <cmath>
    #include <algorithm>
    void gelu_forward(float* out, const float* x, int N) {
        std::transform(x, x + N, out, [](float v) {
            return 0.5f * v * (1.0f + std::tanh(0.7978845608f * (v + 0.044715f * v * v * v))); });
    }"""),
    "its backward by a helper": ("a.c", "gelu", HEAD + """
    static float slope(float v) {
        float u = 0.7978845608f * (v + 0.044715f * v * v * v), t = tanhf(u);
        return 0.5f * (1 + t) + 0.5f * v * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * v * v);
    }
    void gelu_backward(float* dx, const float* dout, const float* x, long N) {
        for (long i = 0; i < N; i++) dx[i] = dout[i] * slope(x[i]);
    }"""),
    "a blocked product": ("a.c", "linear", HEAD + """
    // minillm: matmul(out, inp=x, weight=weight.T, bias, rows=B*T, C, OC)
    void matmul(float* out, const float* inp, const float* weight, const float* bias, int rows, int C, int OC) {
        for (int i = 0; i < rows * OC; i++) out[i] = bias[i % OC];
        for (int from = 0; from < C; from += 16)
            for (int i = 0; i < rows; i++)
                for (int o = 0; o < OC; o++) {
                    float sum = 0;
                    for (int c = from; c < C && c < from + 16; c++) sum += inp[i * C + c] * weight[o * C + c];
                    out[i * OC + o] += sum;
                }
    }"""),
    "attention with its own memory": ("a.c", "attention", HEAD + """
    // minillm: attend(out, scores=[B,NH,T,T], inp=qkv, B, T, C, NH)
    void attend(float* out, float* scores, const float* inp, int B, int T, int C, int NH) {
        int HS = C / NH;
        for (int b = 0; b < B; b++) for (int h = 0; h < NH; h++) for (int t = 0; t < T; t++) {
            const float* q = inp + (b * T + t) * 3 * C + h * HS;
            float *p = scores + ((b * NH + h) * T + t) * T, top = -INFINITY, sum = 0;
            for (int s = 0; s <= t; s++) {
                const float* k = inp + (b * T + s) * 3 * C + C + h * HS;
                p[s] = 0;
                for (int i = 0; i < HS; i++) p[s] += q[i] * k[i];
                p[s] /= sqrtf(HS);
                top = fmaxf(top, p[s]);
            }
            for (int s = 0; s <= t; s++) { p[s] = expf(p[s] - top); sum += p[s]; }
            for (int i = 0; i < HS; i++) {
                float value = 0;
                for (int s = 0; s <= t; s++) value += p[s] / sum * inp[(b * T + s) * 3 * C + 2 * C + h * HS + i];
                out[(b * T + t) * C + h * HS + i] = value;
            }
        }
    }"""),
    "NumPy": ("a.py", "layernorm",
"""
import numpy as np

def forward(x, weight, bias, eps):
    mean = x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(eps))
    xhat = (x - mean) * rstd
    return xhat * weight + bias, (xhat, rstd, weight)

def backward(dout, cache):
    xhat, rstd, weight = cache
    g = dout * weight
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    return dx, (dout * xhat).sum(axis=(0, 1)), dout.sum(axis=(0, 1))
"""),
    "a library's product": ("a.py", "linear",
"""
import numpy as np

def linear_forward(x, weight, bias):
    return np.einsum("btc,co->bto", x, weight, optimize=True).astype(x.dtype) + bias, (x, weight)

def linear_backward(dout, cache):
    x, weight = cache
    dweight = np.tensordot(x, dout, axes=((0, 1), (0, 1)))
    return dout @ weight.T, dweight, dout.sum(axis=(0, 1))
"""),
}
