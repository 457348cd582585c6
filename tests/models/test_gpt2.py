"""The whole model: initialisation, gradients of every tensor, accumulation, causality, cached decoding, errors."""
import math

import numpy as np
import pytest
from cases import BACKENDS
from tolerances import TOLERANCES, assert_close, assert_same_bits

from minillm.config import GPTConfig
from minillm.gradcheck import check_model
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT
from minillm.models.params import gpt_shapes
from minillm.train.optim import AdamW

ODD = GPTConfig(n_layer=2, n_head=3, n_embd=21, block_size=9, vocab_size=37, dropout=0.1)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def rough_model(config=ODD, dtype="float64", backend="numpy"):
    """A GPT far from its initialisation, so that biases, LayerNorms and attention all matter."""
    model = GPT(config, seed=0, dtype=dtype, ops=select(backend))
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


def batch(config=ODD, B=2, T=7, seed=0, ignored=0.3):
    """Tokens and targets (B, T); about a share `ignored` of the targets is -1."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, config.vocab_size, (2, B, T))
    targets[rng.random((B, T)) < ignored] = -1
    return tokens, targets


# ---- initialisation -----------------------------------------------------------------------------------------------

def test_initial_deviations_are_gpt2s():
    """0.02, and 0.02 / sqrt(2 * n_layer) for the two projections into the residual stream; vectors are exact."""
    params = GPT(GPTConfig(n_layer=3, n_head=2, n_embd=64, block_size=64, vocab_size=200)).params
    for name, x in params.items():
        if x.ndim == 2:
            want = 0.02 / math.sqrt(6) if name.endswith("c_proj.weight") else 0.02
            assert abs(x.std() / want - 1) < 5 / math.sqrt(2 * x.size), name
            assert abs(x.mean()) < 5 * want / math.sqrt(x.size), name
        else:
            assert np.all(x == (1 if name.endswith("weight") else 0)), name


def test_the_seed_decides_in_every_dtype():
    one, same, other = (GPT(ODD, seed=seed).params.flat for seed in (0, 0, 1))
    assert_same_bits(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(GPT(ODD, seed=0, dtype=np.float64).params.flat.astype("float32"), one)


def test_tensors_are_drawn_independently():
    """No two tensors share numbers, as they would if each generator started from the same seed."""
    params = GPT(ODD).params
    firsts = [float(x.flat[0]) for name, x in params.items() if x.ndim == 2]
    assert len(set(firsts)) == len(firsts)


@every_backend
def test_initial_loss_is_near_log_v(backend):
    model = GPT(ODD, ops=select(backend))
    loss, _ = model.loss_and_grads(*batch(B=8, T=9))
    assert loss == pytest.approx(math.log(ODD.vocab_size), abs=0.05)


# ---- gradients of the whole model ---------------------------------------------------------------------------------

def whole_model_check(method, model, **ops_changed):
    """check_model over every tensor, with dropout on; ops_changed plants wrong ops in the backward."""
    tokens, targets = batch()
    key, count = (5, 3, 1), (targets != -1).sum()
    planted = GPT(model.config, ops=model.ops._replace(**ops_changed), params=model.params)
    loss, grads = planted.loss_and_grads(tokens, targets, key=key)

    def function(params):
        return GPT(model.config, ops=model.ops, params=params).losses(tokens, targets, key=key)[0].sum() / count

    assert loss == pytest.approx(function(dict(model.params.items())), rel=1e-12)
    return check_model(function, grads, dict(model.params.items()), method=method,
                       **TOLERANCES[f"model {method}"].both)


@pytest.mark.parametrize("backend, method", [("numpy", "complex")] + [(backend, "central") for backend in BACKENDS])
def test_gradient_of_every_tensor(backend, method):
    rows = whole_model_check(method, rough_model(backend=backend))
    assert [row.name for row in rows[::2]] == list(rough_model().params)
    assert not [str(row) for row in rows if not row.passed]


@pytest.mark.parametrize("op, position", [("embedding", 0), ("linear_cross_entropy", 1)])
def test_an_untied_head_is_caught_and_named(op, position):
    """Without the share of the embedding, or of the head, wte's gradient and no other is wrong."""
    model = rough_model()
    backward = getattr(model.ops, f"{op}_backward")

    def without_dwte(dout, cache, into):
        """As it should be, but nothing is added to wte's gradient."""
        kept = into[0].copy()
        grads = backward(dout, cache, into=into)
        grads[position][:] = kept
        return grads

    rows = whole_model_check("central", model, **{f"{op}_backward": without_dwte})
    failed = [row.name for row in rows if not row.passed]
    assert "wte.weight (direction)" in failed and set(failed) <= {"wte.weight", "wte.weight (direction)"}


def test_a_missing_layernorm_term_is_caught_upstream_of_it():
    """Every tensor whose gradient comes back through some LayerNorm's dx is wrong: all but ln_f's own."""
    def without_a_term(dout, cache, into):
        _, weight, _, rstd = cache
        g = dout * weight
        return (g - g.mean(axis=-1, keepdims=True)) * rstd, *model.ops.layernorm_backward(dout, cache, into)[1:]

    def fused_without_a_term(douts, cache, into):
        dx, *rest = without_a_term(douts[1], cache, into)
        dx = dx if douts[0] is None else dx + douts[0]
        return dx, dx, *rest

    model = rough_model()
    rows = whole_model_check("central", model, layernorm_backward=without_a_term,
                             residual_layernorm_backward=fused_without_a_term)
    failed = {row.name.removesuffix(" (direction)") for row in rows if not row.passed}
    assert set(gpt_shapes(ODD)) - failed == {"ln_f.weight", "ln_f.bias"}


# ---- accumulation -------------------------------------------------------------------------------------------------

def test_accumulated_gradient_is_that_of_the_big_batch():
    """Micro-batches with 1, 5 and 14 valid targets, weighted by tokens."""
    model, (tokens, targets) = rough_model(), batch(B=6, ignored=0)
    targets[0:2].flat[1:] = targets[2:4].flat[5:] = -1
    micro = [slice(0, 2), slice(2, 4), slice(4, 6)]
    want_loss, want = model.loss_and_grads(tokens, targets)
    total, count, sums = 0.0, int((targets != -1).sum()), model.params.zeros_like()
    assert count == 1 + 5 + 14
    for rows in micro:
        loss, returned = model.loss_and_grads(tokens[rows], targets[rows], grads=sums, count=count)
        total += loss
    assert returned is sums and total == pytest.approx(want_loss, rel=1e-14)
    assert_close("gradient", sums.flat, want.flat, "same model")
    naive = sum(model.loss_and_grads(tokens[rows], targets[rows])[1].flat for rows in micro) / 3
    assert np.abs(naive - want.flat).max() > 1e-2             # averaging micro-batches is another gradient


def test_no_valid_target_is_no_gradient():
    tokens, targets = batch()
    loss, grads = rough_model().loss_and_grads(tokens, np.full_like(targets, -1))
    assert loss == 0 and not grads.flat.any()


def test_ignore_index_can_be_any_number():
    model, (tokens, targets) = rough_model(), batch()
    want = model.loss_and_grads(tokens, targets)
    got = model.loss_and_grads(tokens, np.where(targets == -1, -100, targets), ignore_index=-100)
    assert got[0] == want[0] and np.array_equal(got[1].flat, want[1].flat)


# ---- dropout ------------------------------------------------------------------------------------------------------

def test_dropout_is_keyed_and_off_without_a_key():
    model, (tokens, targets) = rough_model(), batch()
    def loss(key):
        return model.loss_and_grads(tokens, targets, key=key)[0]
    plain = GPT(GPTConfig(**{**vars(ODD), "dropout": 0.0}), ops=model.ops, params=model.params)
    assert loss(None) == plain.loss_and_grads(tokens, targets, key=(0, 0, 0))[0]
    assert loss((0, 1, 2)) == loss((0, 1, 2))
    assert len({loss(key) for key in (None, (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}) == 5


def test_every_dropout_site_has_its_own_mask():
    """Sites of a micro-batch, and of the next one, never share a key."""
    model, keys = rough_model(), []
    original = model.ops.dropout_forward
    model.ops = model.ops._replace(dropout_forward=lambda x, p, key: (keys.append(key), original(x, p, key))[1])
    for micro in range(3):
        model.loss_and_grads(*batch(), key=(0, 0, micro))
    assert len(keys) == len(set(keys)) == 3 * (2 * ODD.n_layer + 1)


# ---- learning and causality ---------------------------------------------------------------------------------------

@every_backend
def test_a_tiny_model_memorizes_one_batch(backend):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=8, vocab_size=16)
    model = GPT(config, ops=select(backend))
    optimizer = AdamW(model.params, lr=1e-2, ops=model.ops)
    tokens, targets = batch(config, B=4, T=8, ignored=0)
    losses = []
    for _ in range(100):
        loss, grads = model.loss_and_grads(tokens, targets)
        optimizer.step(grads)
        losses.append(loss)
    assert losses[0] > 2.5 and losses[-1] < 0.05


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_backend
def test_no_logit_sees_the_future(backend, dtype):
    model, (tokens, _) = rough_model(dtype=dtype, backend=backend), batch()
    want = model.forward(tokens)[0]
    for t in range(1, 7):
        changed = tokens.copy()
        changed[:, t] = (changed[:, t] + 1) % ODD.vocab_size
        got = model.forward(changed)[0]
        assert_same_bits(got[:, :t], want[:, :t])
        assert np.all(np.abs(got[:, t] - want[:, t]).max(axis=-1) > 1e-3)


@every_backend
def test_a_row_does_not_depend_on_its_batch(backend):
    model, (tokens, _) = rough_model(backend=backend), batch(B=5)
    want = model.forward(tokens)[0]
    for b in range(5):
        assert_close(f"row {b}", model.forward(tokens[b:b + 1])[0][0], want[b], "same model")


# ---- cached decoding ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9], [8, 1]], ids=str)
@every_backend
def test_decode_is_forward(backend, pieces):
    model, (tokens, _) = rough_model(backend=backend), batch(T=9)
    cache, got = model.new_cache(2), []
    for end in np.cumsum(pieces):
        got.append(model.decode(tokens[:, cache.length:end], cache))
    assert cache.length == 9
    assert_close("logits", np.concatenate(got, axis=1), model.forward(tokens)[0], "same model")


def test_a_full_cache_is_an_error_and_stays_as_it_was():
    model, (tokens, _) = rough_model(), batch(T=9)
    cache = model.new_cache(2)
    model.decode(tokens[:, :8], cache)
    with pytest.raises(ValueError, match="block_size 9: got 2 tokens from position 8"):
        model.decode(tokens[:, :2], cache)
    last = model.decode(tokens[:, 8:], cache)
    assert_close("logits", last[:, 0], model.forward(tokens)[0][:, 8], "same model")


# ---- shapes, dtypes, errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("B, T", [(1, 1), (1, 9), (3, 1), (2, 7)])
@every_backend
def test_shapes_and_dtypes(backend, B, T, dtype):
    """A single float64 constant in the way would promote everything after it."""
    model, (tokens, targets) = rough_model(dtype=dtype, backend=backend), batch(B=B, T=T)
    logits, _ = model.forward(tokens)
    assert logits.shape == (B, T, 37) and logits.dtype == dtype
    losses, _ = model.losses(tokens, targets)
    assert losses.shape == (B * T,) and losses.dtype == dtype
    loss, grads = model.loss_and_grads(tokens, targets, key=(0, 0, 0))
    assert type(loss) is float and grads.flat.dtype == dtype and list(grads) == list(model.params)
    assert model.decode(tokens, model.new_cache(B)).dtype == dtype


def test_parameters_and_batch_are_untouched():
    model, data = rough_model(), batch()
    model.params.flat.flags.writeable = False
    for array in (*data, *(view for _, view in model.params.items())):
        array.flags.writeable = False
    first, second = (model.loss_and_grads(*data, key=(0, 0, 0)) for _ in range(2))
    assert first[0] == second[0]
    assert_same_bits(first[1].flat, second[1].flat)


def good():
    return np.ones((2, 5), int)


@pytest.mark.parametrize("tokens, words", [
    (good() * 37, r"tokens must be in \[0, 37\): got 37"), (-good(), r"tokens must be in \[0, 37\): got -1"),
    (good() * 1.0, "tokens must be an array of integers"), ([[1, 2]], "tokens must be an array of integers"),
    (np.ones((2, 10), int), "tokens must fit into block_size 9: got 10"), (good()[0], "tokens must have shape"),
], ids=["too big", "negative", "floats", "list", "too long", "one axis"])
def test_bad_tokens_are_named(tokens, words):
    model = rough_model()
    for call in (model.forward, lambda t: model.decode(t, model.new_cache(2))):
        with pytest.raises(ValueError, match=words):
            call(tokens)


@pytest.mark.parametrize("targets, words", [
    (good()[:, :4], r"targets must have shape \(2, 5\): got \(2, 4\)"), (good() * 37, r"targets must be in \[0, 37\)"),
    (good() * -2, r"targets must be in \[0, 37\)"), (good() * 1.0, "targets must be an array of integers"),
    ([[1] * 5] * 2, "targets must be"),
], ids=["narrow", "too big", "negative", "floats", "list"])
def test_bad_targets_are_named(targets, words):
    with pytest.raises(ValueError, match=words):
        rough_model().loss_and_grads(good(), targets)


def test_no_tokens_are_named():
    with pytest.raises(ValueError, match="tokens"):
        rough_model().forward(np.zeros((1, 0), int))


def test_a_cache_of_another_batch_size_is_named():
    model = rough_model()
    with pytest.raises(ValueError, match="batch|tokens|cache"):
        model.decode(good(), model.new_cache(1))


def test_backward_uses_the_caches_up():
    """What an op kept is freed as soon as its backward is done: nothing of any block is left."""
    model = rough_model()
    losses, caches = model.losses(*batch())
    activations = caches[0]
    model.backward(np.ones_like(losses), caches)
    assert caches == [] and activations.blocks == []
