"""What the names in the formulas of all rooms but ops/ stand for, and what the functions beside them give.

VALUES["path::function"]() yields (values, expected) pairs; a function that a formula defines is expected as
(arguments, its value).
"""
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from small_models import TOK, model

from minillm.config import GPTConfig, LlamaConfig
from minillm.data.dedup.minhash import Lsh
from minillm.data.shards import loader
from minillm.evaluate.perplexity import Surprise, bits_per_byte, perplexity
from minillm.evaluate.statistics import Z, share_interval, sign_test
from minillm.generation import speculative
from minillm.generation.sampling import Sampling, distribution
from minillm.gradcheck import jacobian
from minillm.gradcheck.measure import Line, Scalar, richardson, sides
from minillm.models.integer import rounded_rows
from minillm.models.kv_cache import head_to_int8
from minillm.models.load import FAMILIES
from minillm.models.quantized import to_int8
from minillm.models.rope import rope_angles, scaled_frequencies
from minillm.ops.attention import attention_forward
from minillm.ops.gelu import gelu_forward
from minillm.ops.grouped_attention import grouped_attention_forward
from minillm.ops.layernorm import layernorm_forward
from minillm.ops.losses.cross_entropy import cross_entropy_forward
from minillm.ops.mlp import mlp_forward
from minillm.ops.rmsnorm import rmsnorm_forward
from minillm.ops.rope import rope_forward
from minillm.ops.softmax import softmax_backward, softmax_forward
from minillm.posttrain.grpo import SMALL, advantages_of
from minillm.tokenizer.compare import measure as measured
from minillm.train.memory import count_parameters
from minillm.train.optim import average, clip_scale, global_norm
from minillm.train.schedule import cosine_schedule, wsd_schedule
from minillm.workbench.cluster import Network, scaling, step_seconds
from minillm.workbench.kernel.bench import Peaks, score
from minillm.workbench.plan_hours import REPEATED, Fit, worth
from minillm.workbench.precision import UNIT, gamma


def minhash():
    for bands, rows, s in ((20, 5, 0.5), (3, 4, 0.9)):
        yield {"s": s, "b": bands, "r": rows}, {"found": float(Lsh(bands, rows).found(s))}


def feistel():
    """Two rounds of the permutation, of a size that is rows times columns: nothing is sent through again."""
    keys, size, rounds = [3, 11], 12, loader.ROUNDS
    rows = columns = 4
    loader.ROUNDS = 2
    try:
        images = [loader.permute(index, rows * columns, keys) for index in range(size)]
    finally:
        loader.ROUNDS = rounds
    for index, image in enumerate(images):
        left, right = divmod(index, columns)
        yield ({"left": left, "right": right, "rows": rows, "columns": columns,
                "f1": lambda number: loader._scramble(int(number) ^ keys[0]) % 1000,
                "f2": lambda number: loader._scramble(int(number) ^ keys[1]) % 1000},
               dict(zip(("left last", "right last"), divmod(image, columns))))


def surprise():
    one = Surprise(nats=70.0, tokens=25, bytes=90)
    yield one._asdict(), {"perplexity": perplexity([one]), "bits_per_byte": bits_per_byte([one])}


def wilson():
    low, high = share_interval(7, 20)
    yield {"p": 7 / 20, "n": 20, "z": Z}, {"low": low, "high": high}


def mcnemar():
    for k in (1, 2, 6):                             # of the last, the sum is above 1
        first = [True] * 6 + [False] * k
        yield {"n": 6 + k, "k": k}, {"p": sign_test(first, [not right for right in first])}


@dataclass
class Even:
    """In place of a generator: numbers evenly over [0, 1), so that a share is a probability."""
    turn: int = -1
    count: int = 4000

    def random(self):
        self.turn += 1
        return (self.turn + 0.5) / self.count


def speculation():
    p, q = np.array([0.3, 0.1, 0.6]), np.array([0.4, 0.4, 0.2])
    for x in range(3):
        even = Even()
        share = sum(speculative.accept(p[x], q[x], even) for _ in range(even.count)) / even.count
        yield {"p": p, "q": q, "x": x}, {"a": share, "r": speculative.residual(p, q), "P": p}


def tempered():
    z = np.array([0.5, -1.0, 2.0])
    yield {"z": z, "T": 0.7}, {"p": distribution(z, Sampling(temperature=0.7))}


def speedup():
    yield {"a": 0.7, "k": 4, "cost": 0.1}, {"speedup": speculative.theoretical_speedup(0.7, 4, 0.1)}


X = np.array([0.3, -0.7, 1.1])
DOUT = np.array([1.0, -2.0, 0.5])


def differences():
    """Of one number and a function whose derivative is more than a constant."""
    slope = jacobian(gelu_forward, {"x": np.array([0.6])}, "x")[0, 0]
    yield {"x": 0.6, "h": 1e-3, "i": 1j, "L": lambda x: gelu_forward(np.array([x]))[0][0]}, {"dL/dx": slope}


def extrapolation():
    """A gradient that is wrong: with the right one, all that is measured is zero."""
    steps, wrong = np.array([1.0, 0.4, -0.3]), np.array([0.2, 0.1, 0.4])
    line = Line(Scalar(softmax_forward, {"x": X}, DOUT, 1e-16), "x", np.arange(3), steps, wrong)
    h = 0.25
    levels = [line.level(h), line.level(h / 4)]
    yield ({"h": h, "L": lambda t: float(DOUT @ softmax_forward(X + t * steps)[0]),
            "predicted": lambda t: t * wrong @ steps},
           {"R": richardson(levels, 1), "S_plus": sides(levels, 1)[0],
            "plus": ((h,), levels[0].plus), "minus": ((h,), levels[0].minus),
            "centre": ((h,), levels[0].centre)})


def symmetry():
    def gradient(x):
        return softmax_backward(DOUT, softmax_forward(x)[1])
    second = jacobian(lambda x: (gradient(x), None), {"x": X}, "x")
    rng = np.random.default_rng(0)
    yield {"x": X, "h": 1e-2, "g": gradient, "H": (second + second.T) / 2, "u": rng.standard_normal(3),
           "v": rng.standard_normal(3)}, {}


def one_block():
    """All of GPT-2 for one sequence and one block."""
    gpt, tokens = model(), np.array([[5, 9, 2, 7]])
    p, c = gpt.params, gpt.config
    linears = {name: lambda x, at=f"h.0.attn.{file}": x @ p[f"{at}.weight"] + p[f"{at}.bias"]
               for name, file in (("qkv", "c_attn"), ("proj", "c_proj"))}
    norms = {name: lambda x, at=at: layernorm_forward(x, p[f"{at}.weight"], p[f"{at}.bias"], c.layer_norm_epsilon)[0]
             for name, at in (("ln_1", "h.0.ln_1"), ("ln_2", "h.0.ln_2"), ("ln_f", "ln_f"))}
    targets = np.array([9, 2, 7, 1])
    yield ({"tokens": tokens, "head": p["wte.weight"], **linears, **norms,
            "embedding": lambda tokens: p["wte.weight"][tokens] + p["wpe.weight"][:tokens.shape[1]],
            "attention": lambda x: attention_forward(x, c.n_head)[0],
            "mlp": lambda x: mlp_forward(x, *(p[f"h.0.mlp.{file}.{part}"] for file in ("c_fc", "c_proj")
                                              for part in ("weight", "bias")))[0],
            "cross_entropy": lambda logits: cross_entropy_forward(logits[0], targets)[0]},
           {"loss": gpt.losses(tokens, targets[None])[0]})


NORMS = {"llama": {"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm"},
         "olmo2": {"ln_1": "post_attention_layernorm", "ln_2": "post_feedforward_layernorm"},
         "gemma2": {"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "ln_3": "pre_feedforward_layernorm",
                    "ln_4": "post_feedforward_layernorm"}}


def one_llama_block(family="llama"):
    """All of a Llama or one of its kin for one sequence and one block, the norms' weights drawn."""
    c = LlamaConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=4, n_embd=8, n_inner=6, block_size=8, vocab_size=11,
                    family=family, qk_norm=family == "olmo2", tied=family == "gemma2")
    model, tokens, targets = FAMILIES[family](c, dtype="float64"), np.array([[5, 9, 2, 7]]), np.array([9, 2, 7, 1])
    p, at, wte = model.params, "model.layers.0", model.params["model.embed_tokens.weight"]
    p.flat[:] += 0.3 * np.random.default_rng(0).standard_normal(p.flat.shape)

    def norm(where):
        return lambda x: rmsnorm_forward(x, (family == "gemma2") + p[where], c.norm_eps)[0]
    norms = {name: norm(f"{at}.{where}.weight") for name, where in NORMS[family].items()}

    def qkv(x):
        q, k, v = (x @ p[f"{at}.self_attn.{name}_proj.weight"].T for name in "qkv")
        if c.qk_norm:
            q, k = norm(f"{at}.self_attn.q_norm.weight")(q), norm(f"{at}.self_attn.k_norm.weight")(k)
        cos, sin = rope_angles(c, np.arange(4), "float64")
        return rope_forward(q, cos, sin)[0], rope_forward(k, cos, sin)[0], v

    def mlp(x):
        gate, up = (x @ p[f"{at}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        act = gelu_forward(gate)[0] if family == "gemma2" else gate / (1 + np.exp(-gate))
        return act * up @ p[f"{at}.mlp.down_proj.weight"].T
    yield ({"tokens": tokens, "head": p[model.head], "wte": wte, "C": c.n_embd, **norms, "qkv": qkv, "mlp": mlp,
            "ln_f": norm("model.norm.weight"), "embedding": lambda tokens: wte[tokens],
            "attention": lambda heads: grouped_attention_forward(*heads, c.n_head)[0],
            "proj": lambda x: x @ p[f"{at}.self_attn.o_proj.weight"].T,
            "cross_entropy": lambda logits: cross_entropy_forward(logits[0], targets)[0]},
           {"loss": model.losses(tokens, targets[None])[0]} if family == "llama" else
           {"logits": model.forward(tokens)[0]})


def angles():
    c = LlamaConfig(head_dim=6, rope_theta=500.0)
    for t, i in ((0, 0), (3, 1), (17, 2)):
        yield ({"t": t, "i": i, "HS": 6, "theta": 500.0}, {"angle": t * scaled_frequencies(c)[0][i]})


def int8():
    w = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    quantized = to_int8(w[:, None])
    yield {"w": w}, {"scale": quantized.scales[0, 0], "q": quantized.values[:, 0]}


def rounded_activations():
    x = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    q, s = rounded_rows(x[None])
    yield {"x": x}, {"s": s[0], "q": q[0]}


def rounded_heads():
    x = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    n, scale = head_to_int8(x)
    yield {"x": x}, {"scale": scale, "n": n}


def advantages():
    R = np.random.default_rng(0).standard_normal((2, 5))
    yield {"R": R, "small": SMALL}, {"A": advantages_of(R)}


def tokenizer_costs():
    row = measured("own", TOK, {"prose": ["the hen says moo"]}, 3, 8)
    yield ({"n_layer": 3, "n_embd": 8, "vocab_size": TOK.vocab_size, "bytes_per_token": row["bytes_per_token"]["all"]},
           {"flops_per_byte": row["flops_per_byte"]})


def parameters():
    c = GPTConfig(3, 2, 16, 12, 50)
    yield {"V": c.vocab_size, "T": c.block_size, "C": c.n_embd, "L": 3}, {"parameters": count_parameters(c)}


def norm():
    g = np.random.default_rng(0).standard_normal(7)
    yield {"g": g}, {"norm": global_norm(SimpleNamespace(flat=g))}


def clipping():
    for size in (0.5, 1.5, 3.0):
        yield {"norm": size, "max_norm": 1.5}, {"scale": clip_scale(size, 1.5)}


def weights_averaged():
    """The third step; and the mean by its definition, of all three."""
    rng, decay = np.random.default_rng(0), 0.8
    steps, mean = rng.standard_normal((3, 5)), np.zeros(5)
    for t in (1, 2, 3):
        before = mean.copy()
        average(mean, steps[t - 1], decay, t)
    shares = decay ** np.arange(2, -1, -1)
    yield ({"beta": decay, "t": 3, "e": before, "w": steps[-1]},
           {"rate": (1 - decay) / (1 - decay ** 3), "e last": shares @ steps / shares.sum()})


def cosine():
    for step in (0, 3, 4, 9, 20):
        yield ({"step": step, "warmup": 4, "steps": 20, "lr": 0.3, "min_lr": 0.02},
               {"rate": cosine_schedule(step, 4, 20, 0.3, 0.02)})


def wsd():
    for step in (0, 3, 4, 9, 12, 15, 20, 22):
        yield ({"step": step, "warmup": 4, "start": 12, "end": 20, "lr": 0.3, "min_lr": 0.02},
               {"rate": wsd_schedule(step, 4, 12, 20, 0.3, 0.02)})


def roofline():
    for work, size in ((3e9, 1e6), (1e6, 4e9)):
        peaks = SimpleNamespace(work=work, size=size, flops=2e11, bandwidth=3e10)
        floor = Peaks.floor(peaks)[0]
        yield ({"flops": work, "peak": peaks.flops, "bytes": size, "bandwidth": peaks.bandwidth, "t": 0.4,
                "t_numpy": 0.7},
               {"floor": floor, "score": score(0.4, 0.7, floor)})


def cluster():
    net = Network(1e-3, 1e8)
    for N, M, m in ((2, 5, 4.0), (4, 8, 0.1)):
        t = step_seconds(N, M, m, 0.3, 10 ** 7, net)
        yield ({"N": N, "L": net.latency, "P": 10 ** 7, "W": net.bandwidth, "m": m, "M": M, "u": 0.3, "r": -(-M // N)},
               {"t": t, "e": scaling_row(N, M, m, net)["efficiency"]})


def scaling_row(N, M, m, net):
    return next(row for row in scaling(M, m, 0.3, 10 ** 7, net) if row["ranks"] == N)


def scaling_law():
    fit = Fit(1.7, 410.0, 0.28)
    yield fit._asdict(), {"L": ((2e7,), fit(2e7))}


def repeated():
    yield {"tokens": 5e6, "unique": 1e6, "R": REPEATED}, {"worth": worth(5e6, 10 ** 6)}


def rounding():
    yield {"u": UNIT["float32"]}, {"gamma": ((1000,), gamma(1000))}


VALUES = {
    "data/dedup/minhash.py": minhash, "data/shards/loader.py": feistel, "evaluate/perplexity.py": surprise,
    "evaluate/statistics.py::share_interval": wilson, "evaluate/statistics.py::sign_test": mcnemar,
    "generation/sampling.py": tempered, "generation/speculative.py": speculation,
    "generation/speculative.py::theoretical_speedup": speedup, "gradcheck/__init__.py": differences,
    "gradcheck/measure.py": extrapolation, "gradcheck/second_order.py": symmetry, "models/gpt2.py": one_block,
    "models/llama.py": one_llama_block, "models/olmo2.py": lambda: one_llama_block("olmo2"),
    "models/gemma.py": lambda: one_llama_block("gemma2"), "models/rope.py": angles,
    "models/integer.py": rounded_activations, "models/quantized.py": int8,
    "models/kv_cache.py::head_to_int8": rounded_heads,
    "posttrain/grpo.py": advantages, "tokenizer/compare.py": tokenizer_costs,
    "train/memory.py::count_parameters": parameters, "train/optim.py::global_norm": norm,
    "train/optim.py::average": weights_averaged, "train/optim.py::clip_scale": clipping,
    "train/schedule.py::cosine_schedule": cosine, "train/schedule.py::wsd_schedule": wsd,
    "workbench/cluster.py": cluster, "workbench/kernel/bench.py": roofline,
    "workbench/plan_hours.py": scaling_law,
    "workbench/plan_hours.py::worth": repeated, "workbench/precision.py": rounding}
