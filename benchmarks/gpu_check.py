"""Correctness of the CUDA attention on this GPU: instructions against their emulated twins, results against float64.

`python -m benchmarks.gpu` runs this after it has timed. The emulator proves kernels against our own model of the
GPU's instructions; `conformance` proves the model. What the GPU answered is kept as a small file, so that machines
without a GPU go on checking the emulator against it (tests/benchmarks/test_gpu.py).
"""
import math
from itertools import product

import numpy as np

ROUNDS = 64                                     # random inputs of each instruction that are compared
RECORDED = 8                                    # of which so many are kept in the fixture
LIMITS = {"float32": 1e-5, "float64": 1e-13, "float16": 1e-3, "bfloat16": 8e-3}    # of a tensor's norm
VARIANTS = {"1_naive": ("float32", "float64"), "2_flash": ("float32", "float64"), "3_mma": ("float32", "float16"),
         "4_wgmma": ("float32", "float16")}
TENSOR_CORES = ("3_mma", "4_wgmma")             # float32 arrays are rounded to bfloat16
HOPPER_ROUNDS = 8                               # each has 8,192 results


def variants(module):
    """Those that this GPU can run."""
    return [variant for variant in VARIANTS if variant != "4_wgmma" or module.capability() == 90]


# ---- instructions -------------------------------------------------------------------------------------------------

def halves(x, kind):
    """float32 numbers -> their bits as fp16 or (by truncation) bf16, two in a word."""
    bits = x.astype("float16").view("uint16") if kind == "fp16" else (x.view("uint32") >> 16).astype("uint16")
    return bits.view("uint32")


def words(name, rng):
    """Random input of an instruction, (32, 10) uint32; of one of Hopper's, (192, 32): 16-bit numbers."""
    if name.startswith(("wgmma", "tma")):
        return halves(rng.standard_normal((192, 64)).astype("float32"), "fp16" if name.endswith("fp16") else "bf16")
    if name.startswith("mma"):
        c, ab = rng.standard_normal((32, 4)).astype("float32"), rng.standard_normal((32, 12)).astype("float32")
        return np.concatenate([c.view("uint32"), halves(ab, name[4:])], axis=1)
    if name in ("pack", "exp2"):
        x = (rng.standard_normal((32, 10)) * 10.0 ** rng.integers(-3, 2, (32, 10))).astype("float32")
        x[:4, 0] = (0, np.inf, -np.inf, 2.0 ** -20)
        return x.view("uint32")
    return rng.integers(0, 2 ** 32, (32, 10), dtype="uint32")


def agree(name, got, want):
    """Exactly; but tensor cores add 17 terms in an order of their own, and the GPU's 2^x is good to 2 units or so."""
    if name.startswith(("mma", "wgmma")):                   # wgmma's sums begin at up to 127
        return np.abs(got.view("float32") - want.view("float32")).max() < (3e-4 if name.startswith("w") else 5e-5)
    if name == "exp2":
        return np.allclose(got.view("float32"), want.view("float32"), rtol=5e-7, atol=1e-37)
    return np.array_equal(got, want)


def conformance(gpu, sim, rounds=ROUNDS, names=None):
    """({instruction: how many of `rounds` agree}, fixture arrays) of the module `gpu` against its emulated twin."""
    table, fixture = {}, {}
    for name in names or instructions(gpu):
        rng = np.random.default_rng(len(name))
        many, kept = (HOPPER_ROUNDS, 1) if name in gpu.HOPPER_INSTRUCTIONS else (rounds, RECORDED)
        inputs = [words(name, rng) for _ in range(many)]
        answers = [instruction(gpu, name, w) for w in inputs]
        equal = sum(agree(name, answer, instruction(sim, name, w)) for answer, w in zip(answers, inputs))
        table[name] = f"{equal}/{many}"
        fixture[f"{name}_in"], fixture[f"{name}_out"] = np.stack(inputs[:kept]), np.stack(answers[:kept])
    return table, fixture


def instructions(gpu):
    """Those that this GPU has."""
    return gpu.INSTRUCTIONS + (gpu.HOPPER_INSTRUCTIONS if gpu.capability() == 90 else ())


def instruction(module, name, w):
    """What one instruction makes of its words."""
    return (module.hopper_instruction if name in module.HOPPER_INSTRUCTIONS else module.instruction)(name, w)


# ---- attention ----------------------------------------------------------------------------------------------------

def reference(qkv, dout, n_head, causal):
    """out and dqkv in float64, one head at a time, so that memory is T x T once."""
    B, T, width = qkv.shape
    HS = width // (3 * n_head)
    parts = qkv.astype("float64").reshape(B, T, 3, n_head, HS)
    out, grads = np.empty((B, T, n_head, HS)), np.empty(parts.shape)
    douts = dout.astype("float64").reshape(out.shape)
    for b, h in product(range(B), range(n_head)):
        q, k, v = parts[b, :, 0, h], parts[b, :, 1, h], parts[b, :, 2, h]               # each (T, HS)
        S = q @ k.T / math.sqrt(HS)
        S = np.where(np.tri(T, dtype=bool), S, -np.inf) if causal else S
        P = np.exp(S - S.max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        d = douts[b, :, h]
        dP = d @ v.T
        dS = P * (dP - (dP * P).sum(axis=1, keepdims=True)) / math.sqrt(HS)
        out[b, :, h] = P @ v
        grads[b, :, 0, h], grads[b, :, 1, h], grads[b, :, 2, h] = dS @ k, dS.T @ q, P.T @ d
    return out.reshape(dout.shape), grads.reshape(qkv.shape)


def distance(got, want):
    """|got - want| as a part of |want|; NaN counts as infinite."""
    error = np.linalg.norm(got.astype("float64") - want) / max(np.linalg.norm(want), 1e-30)
    return float(error) if np.isfinite(error) else math.inf


def cases(small, variants=VARIANTS):
    """(variant, dtype, HS, T, causal): everything on a GPU, a sample on the emulator."""
    sizes, lengths = ((32, 64, 80), (1, 37)) if small else ((32, 64, 80, 100, 128, 256), (1, 17, 64, 200, 1000, 2049))
    return [(variant, dtype, HS, T, causal) for variant in variants
            for dtype, HS, T, causal in product(VARIANTS[variant], sizes, lengths, (True, False))]


def check_case(module, variant, dtype, HS, T, causal):
    """One row of the matrix. Fresh device arrays hold NaN, so what no kernel wrote shows; three runs: equal bits."""
    rng = np.random.default_rng(HS + T)
    B, NH = (1, 2) if T > 500 else (2, 3)
    qkv, dout = (rng.standard_normal(shape).astype(dtype) for shape in ((B, T, 3 * NH * HS), (B, T, NH * HS)))
    precision = dtype
    if variant in TENSOR_CORES and dtype == "float32":      # compare on numbers that its bf16 operands can hold
        qkv, dout = ((x.view("uint32") & 0xffff0000).view("float32") for x in (qkv, dout))
        precision = "bfloat16"
    forward, backward = (getattr(module, f"attention_{way}_{variant}") for way in ("forward", "backward"))
    runs = []
    for _ in range(3):
        out, cache = forward(qkv, NH, causal)
        runs.append((out, backward(dout, cache)))
    errors = [distance(got, want) for got, want in zip(runs[0], reference(qkv, dout, NH, causal))]
    equal = all(a.tobytes() == b.tobytes() for run in runs[1:] for a, b in zip(run, runs[0]))
    return {"variant": variant, "dtype": dtype, "HS": HS, "T": T, "causal": causal, "out": errors[0], "dqkv": errors[1],
            "equal_bits": equal, "right": equal and gradient_is_fine(errors, precision, T)}


def gradient_is_fine(errors, precision, T):
    """With one token dq and dk are zero, so rounding in them is a large part of little: dv decides."""
    return errors[0] < LIMITS[precision] and errors[1] < LIMITS[precision] * (3 if T == 1 else 1)
