"""Products in bfloat16: rounding, packing and tiles to the bit; whole models against float64, PyTorch and float32."""
import numpy as np
import pytest
from test_gemm import arrays, head, head_arrays, linear, mlp, threads  # noqa: F401  (threads is a fixture)
from tolerances import assert_same_bits

from minillm.config import GPTConfig
from minillm.kernels import select as registry
from minillm.kernels.select import OPS, choices, select
from minillm.models.gpt2 import GPT
from minillm.train.optim import AdamW, clip_grad_norm
from minillm.train.schedule import cosine_schedule

KERNELS = registry._cpp
if "cpu/bf16" not in choices("linear"):
    pytest.skip("kernels are not built", allow_module_level=True)

SIZES = [(1, 1, 1), (3, 5, 7), (9, 33, 49), (65, 130, 401), (1030, 51, 17), (40, 60, 3100), (33, 97, 1024), (5, 7, 0)]


def runs_here(engine):
    try:
        return KERNELS.product_bf16(np.ones((1, 1), "float32"), np.ones((1, 1), "float32"), False, False, engine) == 1
    except ValueError:
        return False


ENGINES = [engine for engine in ("pairs", "amx_emulated", "dot", "amx") if runs_here(engine)]


def rounded(x):
    """float32 -> the nearest bfloat16, as float32; ties go to the even one. Not for NaN."""
    bits = x.view("uint32").astype("uint64")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype("uint32").view("float32")


def upper_halves(x):
    return (x.view("uint32") >> 16).astype("uint16")


def factors(M, N, K, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((M, K)).astype("float32"), rng.standard_normal((K, N)).astype("float32")


def product(a, b, engine, a_transposed=False, b_transposed=False, panels=False):
    a, b = (np.ascontiguousarray(x.T) if t else x for x, t in ((a, a_transposed), (b, b_transposed)))
    return KERNELS.product_bf16(a, b, a_transposed, b_transposed, engine, panels)


# ---- the product ----

@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_product_of_rounded_operands(shape, engine):
    """Exact but for float32 sums; the same bits for every layout, from operands that are bfloat16 already, and where b
    lies in panels for good."""
    a, b = factors(*shape)
    want = rounded(a).astype("float64") @ rounded(b).astype("float64")
    first = product(a, b, engine)
    assert np.abs(first - want).max() <= 4 * 2.0 ** -24 * np.sqrt(max(shape)) * max(1, np.abs(want).max())
    for a_transposed, b_transposed in ((False, True), (True, False), (True, True)):
        assert_same_bits(product(a, b, engine, a_transposed, b_transposed), first)
        halves = product(upper_halves(rounded(a)), upper_halves(rounded(b)), engine, a_transposed, b_transposed)
        assert_same_bits(halves, first)
        assert_same_bits(product(a, b, engine, a_transposed, b_transposed, panels=True), first)


@pytest.mark.parametrize("one, other", [("dot", "pairs"), ("amx", "amx_emulated")])
def test_instructions_do_what_the_plain_code_does(one, other):
    if one not in ENGINES:
        pytest.skip(f"this machine or build lacks {one}")
    for shape in SIZES:
        assert_same_bits(product(*factors(*shape), one), product(*factors(*shape), other))


def test_emulated_tiles_follow_the_manual():
    """TDPBF16PS: even and odd k apart, each summed in order from zero; then together, then onto C. K = 64 is two.

    float64 holds every step exactly before it is rounded: products have 16 bits, and these are of similar size.
    """
    a, b = factors(16, 16, 64)
    x, y = rounded(a).astype("float64"), rounded(b).astype("float64")
    c = np.zeros((16, 16), "float32")
    for block in (0, 32):
        even, odd = np.zeros((2, 16, 16), "float32")
        for k in range(block, block + 32, 2):
            even = (even + np.outer(x[:, k], y[k])).astype("float32")
            odd = (odd + np.outer(x[:, k + 1], y[k + 1])).astype("float32")
        c = c + (even + odd)
    assert_same_bits(product(a, b, "amx_emulated"), c)


@pytest.mark.parametrize("engine", ENGINES)
def test_rounding_is_to_nearest_even(engine):
    """Times 1: ties in both directions, one bit off a tie, a carry into the exponent, overflow, infinities."""
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x3FFFFFFF, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F800000,
                     0xFF800000, 0xBF818000, 0x00800000, 0], "uint32")
    want = [0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x4000, 0x7F80, 0x7F7F, 0x7F80, 0xFF80, 0xBF82, 0x0080, 0]
    got = product(bits.view("float32")[:, None], np.ones((1, 1), "float32"), engine)
    assert upper_halves(got).ravel().tolist() == want and not (got.view("uint32") & 0xFFFF).any()
    for nan in (0x7F800001, 0x7FFFFFFF, 0xFF808000):                # rounding must not make them infinite, or 0
        assert np.isnan(product(np.full((1, 1), nan, "uint32").view("float32"), np.ones((1, 1), "float32"), engine))


# ---- the ops ----

BF16 = "cpu/bf16"


@pytest.mark.parametrize("shape", [(300, 70, 700), (2, 500, 900), (1100, 40, 30)], ids=str)
def test_linear_is_the_same_in_every_batch_and_thread_count(shape):
    x, weight, bias, dout = arrays(shape, "float32")
    whole = linear(x, weight, bias, dout, BF16)
    KERNELS.set_threads(1)
    assert_same_bits(linear(x, weight, bias, dout, BF16), whole)
    part = slice(1, 2), slice(0, shape[0] - 1)
    for rows in part:
        out, dx, *_ = linear(x[rows], weight, bias, dout[rows], BF16)
        assert_same_bits([out, dx], [whole[0][rows], whole[1][rows]], rows)


def test_mlp_is_the_same_in_every_batch_and_thread_count():
    whole = mlp("float32", slice(None), BF16)
    for rows in (slice(3, 4), slice(1000, 1040)):
        out, dx, *_ = mlp("float32", rows, BF16)
        assert_same_bits([out, dx], [whole[0][rows], whole[1][rows]], rows)
    KERNELS.set_threads(1)
    assert_same_bits(mlp("float32", slice(None), BF16), whole)


def test_head_is_the_same_in_every_batch_and_thread_count():
    """Of 1,100 rows, 1,024 keep what the backward needs, the others are multiplied again; of the part, all are kept."""
    x, wte, targets, dout = head_arrays(1100, 65_000, 5, "float32")
    losses, dx, dwte = head(x, wte, targets, dout, BF16)
    rows = slice(1010, 1040)
    part, dpart, _ = head(x[rows], wte, targets[rows], dout[rows], BF16)
    assert_same_bits([part, dpart], [losses[rows], dx[rows]])
    KERNELS.set_threads(1)
    assert_same_bits(head(x, wte, targets, dout, BF16), (losses, dx, dwte))


@pytest.mark.parametrize("name, call, shape", [
    ("linear", lambda backend: linear(*arrays((1100, 300, 70), "float32"), backend), None),
    ("mlp", lambda backend: mlp("float32", slice(None), backend), None),
    ("head", lambda backend: head(*head_arrays(1100, 2100, 20, "float32"), backend), None)])
def test_ops_over_many_pieces(name, call, shape):
    """More than one piece of rows, block of K and tile of vocabulary: the error of rounding, and nothing else."""
    for got, want in zip(call(BF16), call("numpy"), strict=True):
        assert np.linalg.norm(got - want) <= 2 ** -7 * np.linalg.norm(want)


def test_the_gradient_of_a_likely_target_is_not_rounded_away():
    """Where p is near 1, p - 1 is small: rounding p to 8 bits first would leave nothing of it."""
    x, wte = np.full((4, 1), 1.0, "float32"), np.array([[6.0], [0.0], [-1.0]], "float32")
    targets, dout = np.zeros(4, int), np.ones(4, "float32")
    (_, _, dwte), (_, _, want) = head(x, wte, targets, dout, BF16), head(x, wte, targets, dout, "numpy")
    np.testing.assert_allclose(dwte[0], want[0], rtol=2 ** -8)          # made from the loss, and rounded
    np.testing.assert_allclose(dwte, want, rtol=2 ** -7)                # made from what was kept, which was rounded too


def test_select_takes_the_variant_where_there_is_one():
    ops = select(BF16)
    assert {op for op in OPS if ops.backends[op] == BF16} == {"attention", "grouped_attention", "linear",
                                                              "projection", "mlp", "linear_cross_entropy", "muon",
                                                              "lora_linear", "lora_projection", "lora_mlp"}
    assert all(ops.backends[op] in (BF16, select("cpu").backends[op]) for op in OPS)
    with pytest.raises(ValueError, match="no op has a variant 'cpu/bf17'"):
        select("cpu/bf17")
    with pytest.raises(ValueError, match="gelu has no variant 'cpu/bf16'"):
        select({"gelu": BF16})


# ---- whole models ----

SMALL = GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=48, vocab_size=300)


def batch(config, B=4, seed=0):
    return np.random.default_rng(seed).integers(0, config.vocab_size, (2, B, config.block_size))


def relative(got, want):
    return np.linalg.norm(got.astype("float64") - want) / np.linalg.norm(want)


def test_errors_are_at_most_twice_those_of_pytorch():
    """Losses and every gradient against float64; PyTorch by autocast to bfloat16, from the same weights and tokens."""
    torch = pytest.importorskip("torch")
    tokens, targets = batch(SMALL)
    exact, ours = GPT(SMALL, dtype=np.float64, ops=select("numpy")), GPT(SMALL, ops=select(BF16))
    noise = 0.1 * np.random.default_rng(1).standard_normal(exact.params.flat.size)      # far from the initialisation
    ours.params.flat[:] += noise
    exact.params.flat[:] = ours.params.flat
    right, ours_losses = exact.losses(tokens, targets)[0], ours.losses(tokens, targets)[0]
    right_grads, grads = (model.loss_and_grads(tokens, targets)[1] for model in (exact, ours))
    losses, theirs = torch_autocast(torch, ours, tokens, targets)
    assert relative(ours_losses, right) <= 2 * relative(losses, right)
    for name, want in right_grads.items():
        mine, their = relative(grads[name], want), relative(theirs[name], want)
        assert mine <= 2 * their, f"{name}: error {mine:.1e}, PyTorch's {their:.1e}"


def torch_autocast(torch, model, tokens, targets):
    """Loss of every token, and {name: gradient} as float64 arrays in our layout."""
    from benchmarks.gpt_torch import causal, hidden
    turned = {name for name in model.params.shapes if ".c_" in name and name.endswith("weight")}
    p = {name: torch.from_numpy((view.T if name in turned else view).copy()).requires_grad_()
         for name, view in model.params.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        config = vars(model.config)
        logits = torch.nn.functional.linear(hidden(p, config, torch.from_numpy(tokens), causal), p["wte.weight"])
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten(),
                                                   reduction="none")
    losses.mean().backward()
    grads = {name: value.grad.double().numpy() for name, value in p.items()}
    return losses.detach().double().numpy(), {name: g.T if name in turned else g for name, g in grads.items()}


def test_training_ends_where_float32_does():
    """Bytes of a grammar's stories, 300 steps of the usual recipe: the validation losses differ by less than 1%."""
    from minillm.data.sources.stories import stories
    text = np.frombuffer("\n".join(stories(600, 0)).encode(), "uint8").astype(int)
    final = {backend: validation_loss(select(backend), text) for backend in ("cpu", BF16)}
    assert final["cpu"] < 2.2 and abs(final[BF16] / final["cpu"] - 1) < 0.01, final


def validation_loss(ops, text, steps=300, B=16):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=48, block_size=32, vocab_size=256)
    model, T, rng = GPT(config, ops=ops), config.block_size, np.random.default_rng(0)
    optimizer = AdamW(model.params, ops=ops)

    def windows(starts):
        return [np.stack([text[s + shift:s + shift + T] for s in starts]) for shift in (0, 1)]

    held_out = len(text) - 64 * (T + 1)
    for step in range(steps):
        grads = model.loss_and_grads(*windows(rng.integers(0, held_out - T - 1, B)))[1]
        clip_grad_norm(grads, 1.0)
        optimizer.step(grads, cosine_schedule(step, 20, steps, 3e-3, 1e-4))
    return float(model.losses(*windows(range(held_out, len(text) - T, T + 1)))[0].mean())


@pytest.mark.parametrize("backend", [backend for backend in choices("linear_cross_entropy") if "/" in backend])
@pytest.mark.parametrize("ignore_index", [-1, 2])
def test_ignored_targets_of_the_head(backend, ignore_index):
    """Whatever the id that is ignored: no loss, no gradient, and the other rows as the plain kernel has them."""
    rng = np.random.default_rng(0)
    x, wte = (rng.standard_normal(shape).astype("float32") for shape in ((9, 16), (5, 16)))
    targets = np.array([0, 1, 2, 3, 4, 2, 1, ignore_index, 0])
    ops = select({"linear_cross_entropy": backend})
    losses, cache = ops.linear_cross_entropy_forward(x, wte, targets, ignore_index)
    dx, dwte = ops.linear_cross_entropy_backward(np.ones(9, "float32"), cache)
    want, right = select("numpy").linear_cross_entropy_forward(x, wte, targets, ignore_index)
    dright, dwright = select("numpy").linear_cross_entropy_backward(np.ones(9, "float32"), right)
    ignored = targets == ignore_index
    assert np.all(losses[ignored] == 0) and np.all(dx[ignored] == 0)
    assert np.abs(losses - want).max() < 0.1 and np.abs(dx - dright).max() < 0.1 and np.abs(dwte - dwright).max() < 0.2
