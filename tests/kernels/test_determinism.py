"""The same bits: whatever the number of threads, the other rows of the batch, the length of the sequence, and the day.

Single products have more of this in test_gemm.py and test_bf16.py, decoding in test_decode.py. What holds of every
compiled op of the table is here, and what follows for whole steps of training.
"""
import numpy as np
import pytest
from cases import each, named_grads, named_outs, normal_like, pair, sample, supported
from tolerances import assert_same_bits

from minillm.config import GPTConfig, TrainConfig
from minillm.kernels import select as registry
from minillm.kernels.select import OPS, Dims, choices, select
from minillm.models.gpt2 import GPT
from minillm.train.loop import one_step
from minillm.train.optim import AdamW

if not registry._cpp:
    pytest.skip("no kernels are built", allow_module_level=True)

# What of an op's arguments has one row for each sequence or token; all else is shared by the rows.
ROWS = {"embedding": ("tokens",), "linear": ("x",), "layernorm": ("x",), "residual_layernorm": ("x", "y"),
        "gelu": ("x",),
        "attention": ("qkv",), "attention_decode": ("q", "k", "v"), "mlp": ("x",),
        "cross_entropy": ("logits", "targets"),
        "linear_cross_entropy": ("x", "targets"),
        "distillation_loss": ("logits", "teacher", "targets"), "dropout": ("x",), "head": ("x",),
        "token_embedding": ("tokens",), "projection": ("x",), "rmsnorm": ("x",), "residual_rmsnorm": ("x", "y"),
        "rope": ("x",), "swiglu": ("gate", "up"), "geglu": ("gate", "up"), "relu_squared": ("x",), "relu": ("x",),
        "lora_linear": ("x",), "lora_projection": ("x",), "lora_mlp": ("x",),
        "gelu_exact": ("x",), "softcap": ("x",), "grouped_attention": ("q", "k", "v")}
DEFAULTS = [(op, backend, dtype) for op in ROWS for backend in ("cpu", "cpu/bf16") if backend in choices(op)
            for dtype in supported(op, backend)]
SIZES = Dims(3, 70, 144, 3, 333)
CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=96, block_size=40, vocab_size=500, dropout=0.1)


@pytest.fixture(autouse=True)
def threads():
    """Tests may change the number of threads; it comes back."""
    before = registry._cpp.max_threads()
    yield registry._cpp.set_threads
    registry._cpp.set_threads(before)


def test_every_compiled_op_is_here():
    """sum_squares and adamw see one flat array: test_sum_squares.py and the steps below hold them."""
    compiled = {op for op, spec in OPS.items() if "cpu" in choices(op) and spec.kind in ("pair", "decode")}
    assert compiled <= set(ROWS), "say in ROWS which arguments of the new op have rows"


def by_row(op, backend, args, dout, rows):
    """{name: array} of the outputs and gradients of some of the rows, as a call on these alone gives them."""
    args = {name: value[rows].copy() if name in ROWS[op] else value for name, value in args.items()}
    forward, *backward = pair(op, backend)
    if not backward:
        return {"out": forward(**args)}
    out, cache = forward(**args)
    grads = named_grads(op, backward[0](each(lambda d: d[rows].copy(), dout), cache))
    return named_outs(out) | {name: grad for name, grad in grads.items() if name[1:] in ROWS[op]}


@pytest.mark.parametrize("op, backend, dtype", DEFAULTS)
def test_a_row_has_the_same_bits_in_every_batch(op, backend, dtype):
    """Dropout's mask goes by the place in the array, so its rows are the same only from the first on."""
    args = sample(op, dtype, SIZES)
    result = pair(op, backend)[0](**args)
    rng = np.random.default_rng(1)
    dout = each(lambda out: normal_like(out, rng), result[0]) if OPS[op].kind == "pair" else None
    n = len(args[ROWS[op][0]])
    whole = by_row(op, backend, args, dout, slice(0, n))
    for rows in (slice(0, 1), slice(0, n - 1), *([slice(1, n), slice(n - 1, n)] if "p" not in args else [])):
        for name, array in by_row(op, backend, args, dout, rows).items():
            assert_same_bits(array, whole[name][rows], f"{name} of {rows}")


def train(backend, dtype="float32", steps=3, B=6):
    """Losses, parameters and both moments after some steps with dropout, clipping and two micro-batches each."""
    model = GPT(CONFIG, ops=select(backend), dtype=np.dtype(dtype))
    optimizer = AdamW(model.params, ops=model.ops)
    config = TrainConfig(steps=steps, batch_size=B, accumulate=2, clip=0.5)

    class Data:
        def batch(self, step, micro):
            tokens = np.random.default_rng((step, micro)).integers(0, CONFIG.vocab_size, (B, CONFIG.block_size + 1))
            return tokens[:, :-1].copy(), tokens[:, 1:].copy()

    losses = [one_step(model, optimizer, Data(), config, {"step": step})["train_loss"] for step in range(steps)]
    return losses, model.params.flat, optimizer.m.flat, optimizer.v.flat


@pytest.mark.parametrize("backend, dtype", [("cpu", "float32"), ("cpu", "float64"), ("cpu/bf16", "float32")])
def test_training_does_not_depend_on_threads_and_repeats(backend, dtype, threads):
    runs = []
    for n in (1, 2, 3, 2):
        threads(n)
        runs.append(train(backend, dtype))
    for run in runs[1:]:
        assert_same_bits(run, runs[0])
    assert runs[0][0][-1] != runs[0][0][0]


@pytest.mark.parametrize("backend", ["cpu", "cpu/bf16"])
def test_losses_of_a_sequence_do_not_depend_on_its_neighbours_or_its_end(backend):
    """Row by row, and cut after any token: the first losses keep their bits."""
    model = GPT(CONFIG, ops=select(backend))
    model.params.flat[:] += 0.1 * np.random.default_rng(2).standard_normal(model.params.flat.size)
    tokens, targets = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 5, CONFIG.block_size))
    whole = model.losses(tokens, targets)[0].reshape(5, -1)
    for rows, T in ((slice(0, 1), 40), (slice(2, 5), 40), (slice(1, 2), 7), (slice(0, 5), 33), (slice(3, 4), 1)):
        part = model.losses(tokens[rows, :T].copy(), targets[rows, :T].copy())[0]
        assert_same_bits(part, whole[rows, :T].reshape(-1), f"{rows} to {T}")


def test_numpy_backend_repeats_bit_by_bit():
    """There a BLAS multiplies, whose bits may depend on threads and shapes; but not from one run to the next."""
    assert_same_bits(train("numpy", steps=2, B=2), train("numpy", steps=2, B=2))
