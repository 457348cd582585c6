"""Right solutions that are written otherwise than the reference pass: nobody is refused for his style."""
import numpy as np
import pytest

from minillm.study.learn.path import exercise_called
from tests.study.learn.judging import judged, needs_compiler

RIGHT = {
    "adamw": """
def adamw_update(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, n_decayed=0, scale=1.0):
    for i in range(len(w)):
        g = grad[i] * scale
        m[i] += (1 - beta1) * (g - m[i])
        v[i] += (1 - beta2) * (g * g - v[i])
        if i < n_decayed:
            w[i] *= 1 - lr * weight_decay
        w[i] -= lr * (m[i] / (1 - beta1 ** step)) / ((v[i] / (1 - beta2 ** step)) ** 0.5 + eps)
""",
    "clipping": """
def clip_gradients(grads, max_norm):
    norm = np.linalg.norm(np.concatenate([np.asarray(g, np.float64).ravel() for g in grads]))
    if max_norm == 0 or norm <= max_norm:
        return [g.copy() for g in grads], norm
    return [(g * (max_norm / norm)).astype(g.dtype) for g in grads], norm
""",
    "schedule": """
def ramp(step, warmup, lr):
    return (step + 1) / warmup * lr
def cosine_schedule(step, warmup, steps, lr, min_lr):
    if step < warmup: return ramp(step, warmup, lr)
    if step > steps: return min_lr
    if warmup == steps: return lr
    return lr + (min_lr - lr) * np.sin(np.pi / 2 * (step - warmup) / (steps - warmup)) ** 2
def wsd_schedule(step, warmup, start, end, lr, min_lr):
    if step < warmup: return ramp(step, warmup, lr)
    if step >= end: return min_lr
    if step <= start: return lr
    return np.interp(step, [start, end], [lr, min_lr])
""",
    "accumulation": """
def accumulate(micro_batches, loss_and_grad):
    losses, grads, counts = [], [], []
    for item in micro_batches:
        loss, grad, count = loss_and_grad(item)
        if count == 0:
            continue
        losses.append(loss); grads.append(grad.copy()); counts.append(count)
    return np.average(losses, weights=counts), np.average(grads, axis=0, weights=counts)
""",
    "kv_cache": """
def decode_step(qkv, keys, values, length, n_head):
    B, C = len(qkv), qkv.shape[-1] // 3
    HS, out = C // n_head, np.empty((len(qkv), qkv.shape[-1] // 3))
    for b in range(B):
        for h in range(n_head):
            part = slice(h * HS, (h + 1) * HS)
            q, k, v = (qkv[b, i * C:(i + 1) * C][part] for i in range(3))
            keys[b, h, length], values[b, h, length] = k, v
            s = keys[b, h, :length + 1] @ q / HS ** 0.5
            e = np.exp(s - s.max())
            out[b, part] = e @ values[b, h, :length + 1] / e.sum()
    return out
""",
    "temperature": """
def distribution(logits, temperature):
    p = np.zeros(len(logits))
    if not temperature:
        p[np.argmax(logits)] = 1
        return p
    z = np.array(logits, dtype=float) / temperature
    return np.exp(z - np.logaddexp.reduce(z))
def draw(p, u):
    last = 0
    for token, share in enumerate(p):
        if share > 0:
            last = token
            if u < share:
                return token
        u -= share
    return last
""",
    "top_p": """
def nucleus(p, top_p):
    left, total = sorted(range(len(p)), key=lambda i: (-p[i], i)), 0.0
    out = np.zeros(len(p))
    for i in left:
        if total >= top_p:
            break
        out[i] = p[i]
        total += p[i]
    return out / total
""",
    "speculative": """
def acceptance(p, q, x):
    return p[x] / max(p[x], q[x])
def residual(p, q):
    r = (p - q).clip(min=0)
    return p if r.sum() == 0 else r / r.sum()
def verify(p, q, proposed, u):
    kept = []
    while len(kept) < len(proposed):
        i = len(kept)
        if u[i] * q[i][proposed[i]] < p[i][proposed[i]]:
            kept.append(proposed[i])
        else:
            return kept, residual(p[i], q[i])
    return kept, p[-1]
""",
    "bpe_merge": """
def merge_pair(ids, pair, new):
    if len(ids) < 2:
        return ids[:]
    if ids[0] == pair[0] and ids[1] == pair[1]:
        return [new] + merge_pair(ids[2:], pair, new)
    return ids[:1] + merge_pair(ids[1:], pair, new)
""",
    "bpe_training": """
def learn_merges(words, n_merges):
    words = {word: list(word.encode()) for word in words}, dict(words)
    merges = []
    for new in range(256, 256 + n_merges):
        counts = {}
        for word, ids in words[0].items():
            for pair in zip(ids, ids[1:]):
                counts[pair] = counts.get(pair, 0) + words[1][word]
        if not counts:
            return merges
        top = max(counts.values())
        best = sorted(pair for pair in counts if counts[pair] == top)[0]
        merges.append(best)
        for word in words[0]:
            words[0][word] = merge_pair(words[0][word], best, new)
    return merges
""",
    "bpe_encoding": """
def encode_word(word, merges):
    ids, k = list(word.encode()), 0
    while k < len(merges):                      # after a merge nothing with a smaller place can have become possible
        ids = merge_pair(ids, merges[k], 256 + k)
        k += 1
    return ids
""",
    "bits_per_byte": """
def perplexity(nats):
    with np.errstate(over="ignore"):
        return np.exp(np.concatenate(nats).mean())
def bits_per_byte(nats, texts):
    return np.log2(np.e) * np.concatenate(nats).sum() / len("".join(texts).encode())
""",
    "bootstrap": """
def resampled_ratios(numerators, denominators, chosen):
    return np.array([sum(numerators[i] for i in row) / sum(denominators[i] for i in row) for row in chosen])
def interval(values):
    return np.percentile(values, [2.5, 97.5])
def perplexity_interval(nats, tokens, chosen):
    return np.exp(interval(resampled_ratios(nats, tokens, chosen)))
""",
    "minhash": """
def jaccard(A, B):
    both = sum(a in B for a in A)
    return both / (len(A) + len(B) - both or 1)
def signature(hashes, a, b):
    least = [min([2 ** 32 - 1] + [(int(p) * int(h) + int(q)) % 2 ** 32 for h in hashes]) for p, q in zip(a, b)]
    return np.array(least, np.uint32)
def estimate(one, other):
    return np.count_nonzero(one == other) / len(one)
""",
    "lsh": """
def found(s, bands, rows):
    return -np.expm1(bands * np.log1p(-s ** rows)) if s < 1 else 1
def candidates(signatures, bands, rows):
    seen, pairs = {}, set()
    for i in range(len(signatures)):
        for band in range(bands):
            key = (band, *signatures[i, band * rows:band * rows + rows].tolist())
            for j in seen.setdefault(key, []):
                pairs.add((j, i))
            seen[key].append(i)
    return pairs
""",
    "lora": """
def lora_linear_forward(x, weight, bias, a, b, scale=1.0):
    return x @ (weight + scale * (a @ b)) + bias, dict(x=x, weight=weight, a=a, b=b, scale=scale)
def lora_linear_backward(dout, cache):
    x, a, b, s = (cache[name] for name in ("x", "a", "b", "scale"))
    dmerged = np.tensordot(x, dout, (range(x.ndim - 1), range(x.ndim - 1)))
    return dout @ (cache["weight"] + s * (a @ b)).T, s * dmerged @ b.T, s * a.T @ dmerged
""",
    "dpo": """
def log_sigmoid(z):
    return -np.logaddexp(0, -z)
def dpo_loss_forward(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0):
    h = chosen - rejected - (ref_chosen - ref_rejected)
    return np.logaddexp(0, -beta * h) + label_smoothing * beta * h, (h, beta, label_smoothing)
def dpo_loss_backward(dout, cache):
    h, beta, e = cache
    d = beta * dout * (e - np.exp(log_sigmoid(-beta * h)))
    return d, -d
""",
    "grpo_advantage": """
def advantages_of(rewards):
    out = np.empty(rewards.shape)
    for i, row in enumerate(rewards):
        centred = row - np.mean(row)
        out[i] = centred / (np.sqrt(centred @ centred / (len(row) - 1)) + 1e-4)
    return out
""",
    "grpo": """
def grpo_loss_forward(logp, old_logp, ref_logp, advantages, clip=0.2, beta=0.04):
    r = np.exp(logp - old_logp)
    stop = ((advantages > 0) & (r > 1 + clip)) | ((advantages < 0) & (r < 1 - clip))
    edge = np.where(advantages > 0, 1 + clip, 1 - clip).astype(logp.dtype)
    gain = np.where(stop, edge, r) * advantages
    x = ref_logp - logp
    return beta * (np.exp(x) - x - 1) - gain, (np.where(stop, 0, r * advantages), x, beta)
def grpo_loss_backward(dout, cache):
    slope, x, beta = cache
    return (dout * (beta * (1 - np.exp(x)) - slope)).astype(dout.dtype)
""",
    "distillation": """
def distillation_loss_forward(logits, teacher, targets, temperature=1.0, weight=0.9, ignore_index=-1):
    losses, grads = np.zeros(len(logits), logits.dtype), np.zeros_like(logits)
    for n, y in enumerate(targets):
        if y == ignore_index:
            continue
        hard, soft, given = (log_softmax(z[None] / t)[0] for z, t in (
            (logits[n], 1), (logits[n], temperature), (teacher[n], temperature)))
        losses[n] = (weight - 1) * hard[y] + weight * temperature ** 2 * np.exp(given) @ (given - soft)
        grads[n] = (1 - weight) * (np.exp(hard) - np.eye(len(hard))[y]) + weight * temperature * (
            np.exp(soft) - np.exp(given))
    return losses, grads
def distillation_loss_backward(dout, cache):
    return dout[:, None] * cache
""",
    "int8": """
def quantize(matrix):
    scales = np.max(np.abs(matrix), axis=0) / 127
    values = np.zeros(matrix.shape, np.int8)
    some = scales > 0
    values[:, some] = np.round(matrix[:, some] / scales[some])
    return values, scales
def dequantize(values, scales):
    return values.astype(np.float32) * scales[None]
def matmul(x, values, scales):
    return np.einsum("tk,kn->tn", x, values.astype(np.float32)) * scales
""",
    "layernorm_c": """
#include <math.h>
static float mean_of(const float* a, int n, float shift, int squared) {
    double s = 0.0;
    for (int i = 0; i < n; ++i) { double d = (double)a[i] - shift; s += squared ? d * d : d; }
    return (float)(s / n);
}
void layernorm_forward(float* out, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                       int B, int T, int C) {
    for (int b = 0; b < B; ++b)
        for (int t = 0; t < T; ++t, x += C, out += C) {
            float m = mean_of(x, C, 0.0f, 0), r = 1.0f / sqrtf(mean_of(x, C, m, 1) + 1e-5f);
            for (int c = 0; c < C; ++c) out[c] = (x[c] - m) * r * weight[c] + bias[c];
            mean[b * T + t] = m; rstd[b * T + t] = r;
        }
}
""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_solution_passes(name, tmp_path):
    """Given functions of the template (merge_pair, log_softmax) stay."""
    exercise = exercise_called(name)
    needs_compiler(exercise)
    given, _, _ = exercise.reference().partition("\ndef " + exercise.solve[0])
    given = "" if exercise.c else given + "\nimport numpy as np\n"
    stage = judged(exercise, given + RIGHT[name], tmp_path)
    assert stage.passed, stage
    assert np.geterr()["over"] == "warn"                        # what a judgement sets is put back
