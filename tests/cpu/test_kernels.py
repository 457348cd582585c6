"""What the generated tests of tests/ops cannot know about the compiled kernels: bits, memory and limits."""
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import outputs, sample
from tolerances import assert_same_bits

from minillm.kernels import select as registry
from minillm.kernels.select import OPS, Dims, choices
from minillm.ops import attention_forward as reference_attention
from minillm.ops import dropout_forward as reference_dropout

if not registry._cpp:
    pytest.skip("no kernels are built", allow_module_level=True)
cpu = registry._cpp
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])
EPS = {"float32": 2.0 ** -24, "float64": 2.0 ** -53}
COMPILED = [op for op, spec in OPS.items() if "cpu" in choices(op) and spec.kind in ("pair", "decode")]


def normal(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- exp, through the softmax of a row of two; gelu -----------------------------------------------------------------

@FLOATS
def test_exp_is_within_two_units_of_the_last_place(dtype):
    """For logits (0, x) with x very negative the gradient of x is exp(x) to the last bit: logsum is exactly 0."""
    lowest = {"float32": -86.9, "float64": -708.0}[dtype]
    x = np.linspace(lowest, -40, 20011).astype(dtype)
    logits = np.stack([np.zeros_like(x), x], axis=1)
    _, cache = cpu.cross_entropy_forward(logits, np.zeros(len(x), int))
    got = cpu.cross_entropy_backward(np.ones_like(x), cache)[:, 1]
    want = np.exp(x.astype(np.longdouble))
    assert (abs(got - want) / want).max() <= 4 * EPS[dtype]


@FLOATS
def test_gelu_against_higher_precision(dtype):
    x = np.linspace(-5, 30, 20011).astype(dtype)
    wide = x.astype(np.longdouble)
    u = np.sqrt(2 / np.longdouble(np.pi)) * (wide + np.longdouble("0.044715") * wide ** 3)
    s = 1 / (1 + np.exp(-2 * u))
    du = np.sqrt(2 / np.longdouble(np.pi)) * (1 + 3 * np.longdouble("0.044715") * wide ** 2)
    out, cache = cpu.gelu_forward(x)
    slope = cpu.gelu_backward(np.ones_like(x), cache)
    gelu = wide * s
    assert (abs(out - gelu) / np.maximum(abs(gelu), 1e-300)).max() <= 40 * EPS[dtype]      # rounding of u, times 2 |u|
    assert abs(slope - (s + 2 * wide * s * (1 - s) * du)).max() <= 6 * EPS[dtype]


@FLOATS
def test_gelu_limits(dtype):
    x = np.array([np.inf, 1e30, -1e30, 0, np.nan], dtype)
    out, cache = cpu.gelu_forward(x)
    assert np.array_equal(out, np.array([np.inf, 1e30, 0, 0, np.nan], dtype), equal_nan=True)
    slope = cpu.gelu_backward(np.ones_like(x), cache)
    assert np.array_equal(slope, np.array([1, 1, 0, 0.5, np.nan], dtype), equal_nan=True)


@FLOATS
def test_bits_do_not_depend_on_the_place(dtype):
    x = normal(dtype, 100)
    out, cache = cpu.gelu_forward(x)
    slope = cpu.gelu_backward(x, cache)
    for start in range(40):
        part = x[start:].copy()
        got, cache = cpu.gelu_forward(part)
        assert_same_bits([got, cpu.gelu_backward(part, cache)], [out[start:], slope[start:]])


# --- dropout, embedding, cross-entropy ------------------------------------------------------------------------------

@FLOATS
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 511, 513, 9001])
def test_dropout_draws_the_reference_mask(dtype, size):
    x = normal(dtype, size)
    for p in (0.0, 0.1, 0.5, 0.999999, 1 - 2.0 ** -40):
        for key in ((0, 0, 0), (2 ** 64 - 1, 2 ** 63, 5), (1234, 7, 2 ** 33)):
            assert_same_bits(cpu.dropout_forward(x, p, key)[0], reference_dropout(x, p, key)[0])


@pytest.mark.parametrize("key", [(1, 2), (-1, 0, 0), (0, 2 ** 64, 0), (0.5, 1, 2)])
def test_dropout_names_a_bad_key(key):
    with pytest.raises(ValueError, match="key"):
        cpu.dropout_forward(np.ones(3, "float32"), 0.5, key)


def test_embedding_adds_repeated_tokens_in_order():
    """Bit for bit what a loop over the tokens gives: float32 sums of 1,000 numbers show any other order."""
    tokens = np.random.default_rng(0).integers(0, 3, (4, 1000)).astype("int32")
    dout = normal("float32", 4, 1000, 200)
    _, cache = cpu.embedding_forward(tokens, np.zeros((5, 200), "float32"), np.zeros((1001, 200), "float32"), 1)
    dwte, dwpe = cpu.embedding_backward(dout, cache)
    want = np.zeros((5, 200), "float32")
    np.add.at(want, tokens, dout)
    assert_same_bits([dwte, dwpe[1:]], [want, ((dout[0] + dout[1]) + dout[2]) + dout[3]])
    assert not dwpe[0].any()


def test_embedding_backward_does_not_trust_the_cache():
    tokens = np.zeros((1, 4), "int64")
    _, cache = cpu.embedding_forward(tokens, np.zeros((5, 8), "float32"), np.zeros((4, 8), "float32"))
    cache[0][0, 0] = 10 ** 12
    with pytest.raises(ValueError, match="tokens"):
        cpu.embedding_backward(np.ones((1, 4, 8), "float32"), cache)


@FLOATS
@pytest.mark.parametrize("V", [1, 2, 15, 16, 17, 33, 1025, 50257])
def test_cross_entropy_against_higher_precision(dtype, V):
    """Also far from 0, where the largest logit alone decides, and with logits of minus infinity."""
    logits = 4 * normal(dtype, 6, V)
    logits[1] += 3000
    logits[2] -= 3000
    logits[3, 1:] = -np.inf
    targets = np.array([V - 1, 0, V // 2, 0, -1, 0])
    losses, cache = cpu.cross_entropy_forward(logits, targets)
    z = logits.astype(np.longdouble)
    top = z.max(axis=1)
    logsum = np.log(np.exp(z - top[:, None]).sum(axis=1))
    want = np.where(targets < 0, 0, logsum + (top - z[np.arange(6), targets]))
    assert (abs(losses - want) / np.maximum(1, abs(want))).max() <= 16 * EPS[dtype]
    dlogits = cpu.cross_entropy_backward(np.ones(6, dtype), cache)
    p = np.exp(z - top[:, None] - logsum[:, None])
    p[np.arange(6), targets] -= 1
    p[4] = 0
    assert abs(dlogits - p).max() <= 32 * EPS[dtype]


# --- every kernel ---------------------------------------------------------------------------------------------------

@pytest.fixture
def threads():
    before = cpu.max_threads()
    yield cpu.set_threads
    cpu.set_threads(before)


@FLOATS
@pytest.mark.parametrize("op", COMPILED)
def test_bits_do_not_depend_on_threads(op, dtype, threads):
    args = sample(op, dtype, Dims(3, 70, 144, 3, 333))
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append(outputs(op, "cpu", args))
        assert_same_bits(results[-1], results[0], f"with {n} threads")


def test_many_threads_may_call_at_once():
    """Kernels release the GIL, and share the pool of memory: four Python threads get what one gets. Under the thread
    sanitizer (tests/rebuilt.sh thread) this is the test that would show a race."""
    calls = [(op, sample(op, "float32", Dims(2, 96, 96, 3, 333))) for op in COMPILED]
    want = [outputs(op, "cpu", args) for op, args in calls]

    def work(offset):
        for i in range(3 * len(calls)):
            number = (i + offset) % len(calls)
            op, args = calls[number]
            assert_same_bits(outputs(op, "cpu", args), want[number], op)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(0, 4 * len(calls) // 3, len(calls) // 3)))


# --- attention ------------------------------------------------------------------------------------------------------

VARIANTS = ["1_naive", "2_blocked", "3_simd"]


@FLOATS
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("T, HS", [(1, 1), (3, 2), (63, 5), (64, 16), (65, 9), (130, 80), (200, 64)])
def test_attention_variants_agree(variant, dtype, T, HS):
    args = {"qkv": normal(dtype, 2, T, 3 * 2 * HS), "n_head": 2}
    want, got = (outputs("attention", backend, args) for backend in ("numpy", f"cpu/{variant}"))
    for name in want:
        assert abs(got[name] - want[name]).max() <= 64 * EPS[dtype] * max(1, abs(want[name]).max()), name


@FLOATS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("T, t", [(9, 4), (130, 64), (130, 63), (130, 66), (130, 129)])
def test_later_tokens_leave_no_trace(dtype, bad, T, t):
    """Outputs before token t are the same bits, whatever stands at t and after."""
    qkv = normal(dtype, 2, T, 3 * 2 * 17)
    broken = qkv.copy()
    broken[:, t:] = bad
    for variant in ["", *(f"_{variant}" for variant in VARIANTS)]:
        forward = getattr(cpu, f"attention_forward{variant}")
        assert_same_bits(forward(qkv, 2)[0][:, :t], forward(broken, 2)[0][:, :t])


@FLOATS
def test_attention_rows_do_not_depend_on_length_or_batch(dtype):
    qkv = normal(dtype, 3, 200, 3 * 2 * 24)
    whole = cpu.attention_forward(qkv, 2)[0]
    for T in (1, 2, 63, 64, 65, 129):
        assert_same_bits(cpu.attention_forward(qkv[1:2, :T].copy(), 2)[0], whole[1:2, :T])


def head_cache(qkv, n_head, room):
    """Keys and values as a decoding cache keeps them: (B, NH, room, HS), of which the first T are filled."""
    B, T, C3 = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, n_head, -1).transpose(2, 0, 3, 1, 4)
    keys, values = np.full((2, B, n_head, room, q.shape[-1]), np.nan, qkv.dtype)
    keys[:, :, :T], values[:, :, :T] = k, v
    return q, keys, values


@FLOATS
@pytest.mark.parametrize("HS", [1, 9, 64, 80])
def test_decoding_repeats_the_bits_of_the_forward(dtype, HS):
    """One token at a time and several at a time, from views of a longer cache whose rest is NaN."""
    qkv = normal(dtype, 2, 150, 3 * 2 * HS)
    whole = cpu.attention_forward(qkv, 2)[0]
    q, keys, values = head_cache(qkv, 2, 160)
    for begin, end in [(t, t + 1) for t in range(0, 150, 7)] + [(0, 150), (60, 70), (1, 150), (63, 130), (3, 5)]:
        got = cpu.attention_decode(q[:, :, begin:end], keys[:, :, :end], values[:, :, :end])
        assert_same_bits(got, whole[:, begin:end], f"tokens {begin} to {end}")


def test_decoding_wants_whole_rows():
    q, keys, values = head_cache(normal("float32", 1, 6, 3 * 8), 2, 8)
    for name, args in {"k": (q, keys[..., ::-1], values), "v": (q, keys, values[..., ::-1])}.items():
        with pytest.raises(ValueError, match=name):
            cpu.attention_decode(*args)
    with pytest.raises(ValueError, match="q must not be longer"):
        cpu.attention_decode(q, keys[:, :, :5], values[:, :, :5])


def test_attention_survives_large_scores():
    """Scores of 10,000: exp of them overflows, of their differences it does not."""
    qkv = 200 * normal("float64", 1, 70, 3 * 16)
    want = reference_attention(qkv, 1)[0]
    assert abs(cpu.attention_forward(qkv, 1)[0] - want).max() <= 1e-9


MEMORY = """
import sys
import numpy as np
from minillm import select

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

ops = select({"attention": "cpu"})
qkv = np.ones((1, int(sys.argv[1]), 3 * 32), "float32")
ops.attention_backward(*ops.attention_forward(qkv[:, :64].copy(), 1))       # threads and code are in memory
before = peak()
ops.attention_backward(*ops.attention_forward(qkv, 1))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_attention_memory_is_linear():
    """Forward and backward: twice the length takes twice the memory. One head's scores at T = 8192 would be 268 MB."""
    def grown(T):
        """MB; the least of two, since other work only adds to it."""
        command = [sys.executable, "-c", MEMORY, str(T)]
        return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(2))
    short, middle, long = map(grown, (2048, 4096, 8192))
    assert middle < 2 * short + 2 and long < 2 * middle + 2 and long < 24, (short, middle, long)
