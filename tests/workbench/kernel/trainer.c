// A GPT-2 in one file of plain C, as people write it: each function on raw pointers, a main() that trains. What the names do
// not say, a line each says.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void encoder_forward(float* out, int* inp, float* wte, float* wpe, int B, int T, int C) {
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) out[(b * T + t) * C + c] = wte[inp[b * T + t] * C + c] + wpe[t * C + c];
}

void encoder_backward(float* dwte, float* dwpe, float* dout, int* inp, int B, int T, int C) {
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) {
                float d = dout[(b * T + t) * C + c];
                dwte[inp[b * T + t] * C + c] += d;
                dwpe[t * C + c] += d;
            }
}

// minillm: layernorm_forward(out, mean, rstd, inp=x, weight, bias, B, T, C)
void layernorm_forward(float* out, float* mean, float* rstd, float* inp, float* weight, float* bias, int B, int T, int C) {
    for (int i = 0; i < B * T; i++) {
        float *x = inp + i * C, m = 0, v = 0;
        for (int c = 0; c < C; c++) m += x[c];
        m /= C;
        for (int c = 0; c < C; c++) v += (x[c] - m) * (x[c] - m);
        float s = 1.0f / sqrtf(v / C + 1e-5f);
        for (int c = 0; c < C; c++) out[i * C + c] = (x[c] - m) * s * weight[c] + bias[c];
        mean[i] = m;
        rstd[i] = s;
    }
}

// minillm: layernorm_backward(dinp+=dx, dweight+=dweight, dbias+=dbias, dout, inp=x, weight, mean, rstd, B, T, C)
void layernorm_backward(float* dinp, float* dweight, float* dbias, float* dout, float* inp, float* weight, float* mean,
                        float* rstd, int B, int T, int C) {
    for (int i = 0; i < B * T; i++) {
        float *x = inp + i * C, *d = dout + i * C, a = 0, b = 0;
        for (int c = 0; c < C; c++) {
            float xhat = (x[c] - mean[i]) * rstd[i];
            a += d[c] * weight[c];
            b += d[c] * weight[c] * xhat;
            dweight[c] += d[c] * xhat;
            dbias[c] += d[c];
        }
        for (int c = 0; c < C; c++)
            dinp[i * C + c] += rstd[i] * (d[c] * weight[c] - a / C - (x[c] - mean[i]) * rstd[i] * b / C);
    }
}

// minillm: matmul_forward(out, inp=x, weight=weight.T, bias, B, T, C, OC)
void matmul_forward(float* out, const float* inp, const float* weight, const float* bias, int B, int T, int C, int OC) {
#pragma omp parallel for collapse(2)
    for (int i = 0; i < B * T; i++)
        for (int o = 0; o < OC; o++) {
            float sum = bias != NULL ? bias[o] : 0.0f;
            for (int c = 0; c < C; c++) sum += inp[i * C + c] * weight[o * C + c];
            out[i * OC + o] = sum;
        }
}

// minillm: matmul_backward(dinp+=dx, dweight+=dweight.T, dbias+=dbias, dout, inp=x, weight=weight.T, B, T, C, OC)
void matmul_backward(float* dinp, float* dweight, float* dbias, const float* dout, const float* inp, const float* weight,
                     int B, int T, int C, int OC) {
    for (int i = 0; i < B * T; i++)
        for (int o = 0; o < OC; o++) {
            float d = dout[i * OC + o];
            if (dbias != NULL) dbias[o] += d;
            for (int c = 0; c < C; c++) {
                dinp[i * C + c] += weight[o * C + c] * d;
                dweight[o * C + c] += inp[i * C + c] * d;
            }
        }
}

void attention_forward(float* out, float* preatt, float* att, float* inp, int B, int T, int C, int NH) {
    int hs = C / NH;
    float scale = 1.0f / sqrtf((float)hs);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < NH; h++)
            for (int t = 0; t < T; t++) {
                float* q = inp + (b * T + t) * 3 * C + h * hs;
                float *pre = preatt + ((b * NH + h) * T + t) * T, *a = att + ((b * NH + h) * T + t) * T;
                float top = -INFINITY, sum = 0;
                for (int s = 0; s <= t; s++) {
                    float *k = inp + (b * T + s) * 3 * C + C + h * hs, dot = 0;
                    for (int i = 0; i < hs; i++) dot += q[i] * k[i];
                    pre[s] = dot * scale;
                    if (pre[s] > top) top = pre[s];
                }
                for (int s = 0; s <= t; s++) sum += a[s] = expf(pre[s] - top);
                for (int s = 0; s < T; s++) a[s] = s <= t ? a[s] / sum : 0;
                for (int i = 0; i < hs; i++) {
                    float value = 0;
                    for (int s = 0; s <= t; s++) value += a[s] * inp[(b * T + s) * 3 * C + 2 * C + h * hs + i];
                    out[(b * T + t) * C + h * hs + i] = value;
                }
            }
}

void attention_backward(float* dinp, float* dpreatt, float* datt, float* dout, float* inp, float* att, int B, int T, int C,
                        int NH) {
    int hs = C / NH;
    float scale = 1.0f / sqrtf((float)hs);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < NH; h++)
            for (int t = 0; t < T; t++) {
                int row = ((b * NH + h) * T + t) * T;
                float *a = att + row, *da = datt + row, *dp = dpreatt + row, *d = dout + (b * T + t) * C + h * hs, sum = 0;
                for (int s = 0; s <= t; s++)
                    for (int i = 0; i < hs; i++) {
                        da[s] += inp[(b * T + s) * 3 * C + 2 * C + h * hs + i] * d[i];
                        dinp[(b * T + s) * 3 * C + 2 * C + h * hs + i] += a[s] * d[i];
                    }
                for (int s = 0; s <= t; s++) sum += a[s] * da[s];
                for (int s = 0; s <= t; s++) {
                    dp[s] += a[s] * (da[s] - sum);
                    for (int i = 0; i < hs; i++) {
                        int q = (b * T + t) * 3 * C + h * hs + i, k = (b * T + s) * 3 * C + C + h * hs + i;
                        dinp[q] += inp[k] * dp[s] * scale;
                        dinp[k] += inp[q] * dp[s] * scale;
                    }
                }
            }
}

#define GELU_SCALE sqrtf(2.0f / (float)M_PI)

void gelu_forward(float* out, float* inp, int N) {
    for (int i = 0; i < N; i++) {
        float x = inp[i], cube = 0.044715f * x * x * x;
        out[i] = 0.5f * x * (1.0f + tanhf(GELU_SCALE * (x + cube)));
    }
}

void gelu_backward(float* dinp, float* inp, float* dout, int N) {
    for (int i = 0; i < N; i++) {
        float x = inp[i], t = tanhf(GELU_SCALE * (x + 0.044715f * x * x * x));
        float slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * GELU_SCALE * (1 + 3 * 0.044715f * x * x);
        dinp[i] += slope * dout[i];
    }
}

void residual_forward(float* out, float* inp1, float* inp2, int N) {
    for (int i = 0; i < N; i++) out[i] = inp1[i] + inp2[i];
}

void residual_backward(float* dinp1, float* dinp2, float* dout, int N) {
    for (int i = 0; i < N; i++) {
        dinp1[i] += dout[i];
        dinp2[i] += dout[i];
    }
}

void softmax_forward(float* probs, float* logits, int B, int T, int V) {
    for (int i = 0; i < B * T; i++) {
        float *x = logits + i * V, *p = probs + i * V, top = x[0], sum = 0;
        for (int v = 1; v < V; v++) top = fmaxf(top, x[v]);
        for (int v = 0; v < V; v++) sum += p[v] = expf(x[v] - top);
        for (int v = 0; v < V; v++) p[v] /= sum;
    }
}

void crossentropy_forward(float* losses, float* probs, int* targets, int B, int T, int V) {
    for (int i = 0; i < B * T; i++) losses[i] = -logf(probs[i * V + targets[i]]);
}

// minillm: crossentropy_softmax_backward(dlogits+=dlogits, dlosses=dout, probs=softmax(logits), targets, B, T, V)
void crossentropy_softmax_backward(float* dlogits, float* dlosses, float* probs, int* targets, int B, int T, int V) {
    for (int i = 0; i < B * T; i++)
        for (int v = 0; v < V; v++) dlogits[i * V + v] += dlosses[i] * (probs[i * V + v] - (v == targets[i]));
}

// minillm: adamw: update(params=w, grads=grad, m_memory=m, v_memory=v, n=N, t=step, lr, beta1, beta2, eps, weight_decay, n_decayed, scale)
static void update(float* params, float* grads, float* m_memory, float* v_memory, size_t n, int t, float lr, float beta1,
                   float beta2, float eps, float weight_decay, int n_decayed, float scale) {
    for (size_t i = 0; i < n; i++) {
        float g = grads[i] * scale;
        m_memory[i] = beta1 * m_memory[i] + (1 - beta1) * g;
        v_memory[i] = beta2 * v_memory[i] + (1 - beta2) * g * g;
        float m_hat = m_memory[i] / (1 - powf(beta1, t)), v_hat = v_memory[i] / (1 - powf(beta2, t));
        params[i] -= lr * (m_hat / (sqrtf(v_hat) + eps) + ((int)i < n_decayed ? weight_decay * params[i] : 0));
    }
}

int main() {
    float w = 1, grad = 0.5f, m = 0, v = 0;
    for (int step = 1; step <= 10; step++) update(&w, &grad, &m, &v, 1, step, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 1.0f);
    printf("%f\n", w);
    return EXIT_SUCCESS;
}
