"""Llama's own forward and backward: every gradient against finite differences, and the code paths bit for bit."""
import numpy as np
import pytest
from tolerances import TOLERANCES, assert_same_bits

from minillm import Llama, LlamaConfig, generate
from minillm.gradcheck import check_model
from minillm.kernels.select import choices, select
from minillm.models.adapted import LoraModel

TINY = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "head_dim": 6, "n_embd": 16, "n_inner": 20, "block_size": 12,
        "vocab_size": 23}
KINDS = {"llama": {}, "tied": {"tied": True}, "biases": {"qkv_bias": True, "o_bias": True, "mlp_bias": True},
         "qwen3": {"qk_norm": True, "family": "qwen3"}, "window": {"window": 3, "family": "mistral"},
         "stretched": {"rope_scaling": (("rope_type", "linear"), ("factor", 2.0))}}
BACKENDS = ["numpy", "cpu"] if "cpu" in choices("grouped_attention") else ["numpy"]


def model_of(kind, backend="numpy", dtype="float64"):
    """Weights large enough that every layer matters, norms and biases too."""
    model = Llama(LlamaConfig(**TINY, **KINDS[kind]), ops=select(backend), dtype=dtype)
    model.params.flat[:] += 0.3 * np.random.default_rng(1).standard_normal(model.params.flat.shape)
    return model


def batch(B=2, T=12):
    tokens, targets = np.random.default_rng(0).integers(0, 23, (2, B, T))
    targets[0, :3] = -1
    return tokens, targets


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient(kind, backend):
    model, (tokens, targets) = model_of(kind, backend), batch()
    _, grads = model.loss_and_grads(tokens, targets)

    def loss(params):
        other = model.params.zeros_like()
        for name, array in params.items():
            other[name][:] = array
        return model.on(model.ops, other).loss_and_grads(tokens, targets)[0]
    rows = check_model(loss, grads, dict(model.params), samples=3, directions=1, **TOLERANCES["model central"].both)
    assert all(row.passed for row in rows), [str(row) for row in rows if not row.passed]
    assert {row.name.split()[0] for row in rows} == set(model.params)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoding_repeats_the_forward(kind, backend):
    """Bit by bit on our kernels, whatever the pieces; to rounding where a BLAS multiplies."""
    model, (tokens, _) = model_of(kind, backend, "float32"), batch()
    whole, cache = model.forward(tokens)[0], model.new_cache(3)
    rows = [2, 0]
    parts = [model.decode(tokens[:, some], cache, rows)
             for some in (slice(0, 5), slice(5, 6), slice(6, 7), slice(7, 12))]
    if backend == "cpu":
        assert_same_bits(np.concatenate(parts, axis=1), whole)
    assert np.abs(np.concatenate(parts, axis=1) - whole).max() < 1e-5


@pytest.mark.skipif("cpu" not in BACKENDS, reason="no kernels are built")
def test_rows_of_different_lengths():
    model, (tokens, _) = model_of("qwen3", "cpu", "float32"), batch()
    cache = model.new_cache(2)
    model.decode(tokens[:1, :4], cache, [0])
    found = model.decode(np.stack([tokens[0, 4:6], tokens[1, :2]]), cache)
    assert_same_bits(found[0], model.forward(tokens[:1, :6])[0][0, 4:])
    assert_same_bits(found[1], model.forward(tokens[1:, :2])[0][0])


def test_accumulation_adds_up():
    model, (tokens, targets) = model_of("llama"), batch(4)
    whole = model.loss_and_grads(tokens, targets)[1]
    count, grads = int((targets != -1).sum()), None
    for some in (slice(0, 1), slice(1, 4)):
        grads = model.loss_and_grads(tokens[some], targets[some], grads=grads, count=count)[1]
    assert np.abs(grads.flat - whole.flat).max() < 1e-14


@pytest.mark.skipif("cpu/bf16" not in choices("projection"), reason="no kernels are built")
def test_bfloat16_is_near():
    tokens, targets = batch()
    one, other = (model_of("llama", backend, "float32").loss_and_grads(tokens, targets)
                  for backend in ("cpu", "cpu/bf16"))
    assert abs(one[0] - other[0]) < 0.02 * one[0]
    assert np.linalg.norm(one[1].flat - other[1].flat) < 0.05 * np.linalg.norm(one[1].flat)


def test_packed_documents_do_not_see_each_other():
    model, lengths = model_of("window"), [5, 1, 6]
    tokens, targets = batch(1)
    packed, grads = model.loss_and_grads(tokens, targets, lengths=lengths, count=1)
    apart, loss = model.params.zeros_like(), 0.0
    for end, length in zip(np.cumsum(lengths), lengths):
        one = slice(end - length, end)
        loss += model.loss_and_grads(tokens[:, one], targets[:, one], count=1, grads=apart)[0]
    assert abs(packed - loss) < 1e-12 and np.abs(grads.flat - apart.flat).max() < 1e-12
    with pytest.raises(ValueError, match="lengths"):
        model.loss_and_grads(tokens, targets, lengths=[5, 5])


def test_it_learns_and_generates():
    from minillm import AdamW
    model = Llama(LlamaConfig(**TINY), seed=0)
    tokens = np.arange(13)[None] % 7
    optimizer = AdamW(model.params, lr=1e-2)
    for _ in range(60):
        loss, grads = model.loss_and_grads(tokens[:, :-1], tokens[:, 1:])
        optimizer.step(grads)
    assert loss < 0.1
    assert generate(model, [0, 1, 2], 6, temperature=0) == [0, 1, 2, 3, 4, 5, 6, 0, 1]


@pytest.mark.parametrize("tokens, words", [(np.zeros((1, 13), int), "block_size"), (np.full((1, 2), 23), "tokens"),
                                           (np.zeros(3, int), "tokens"), (np.zeros((1, 2)), "tokens")])
def test_bad_tokens(tokens, words):
    model = model_of("llama")
    for call in (model.forward, lambda tokens: model.decode(tokens, model.new_cache(1))):
        with pytest.raises(ValueError, match=words):
            call(tokens)


@pytest.mark.parametrize("change, words", [({"n_kv_head": 3}, "n_kv_head"), ({"head_dim": 5}, "head_dim"),
                                           ({"window": -1}, "window"), ({"tied": 1}, "tied"),
                                           ({"n_embd": 0}, "n_embd")])
def test_bad_configurations(change, words):
    with pytest.raises(ValueError, match=words):
        LlamaConfig(**TINY | change)


@pytest.mark.parametrize("backend", [*BACKENDS, *(b for b in ("cpu/bf16",) if b in choices("projection"))])
@pytest.mark.parametrize("kind", ["biases", "qwen3", "window"])
def test_recomputed_gradients_are_the_same_bits(kind, backend):
    """Of each block only its input is kept; in a batch, and in a packed row."""
    model, found = model_of(kind, backend, "float32"), []
    tokens, targets = batch()
    for model.recompute in (False, True):
        for rows, lengths in ((slice(0, 2), None), (slice(1, 2), [5, 1, 6])):
            losses, caches = model.losses(tokens[rows], targets[rows], lengths=lengths)
            assert all(isinstance(kept, np.ndarray) is model.recompute for kept in caches[0].blocks)
            found.append(model.backward(np.ones_like(losses), caches).flat)
    assert_same_bits(found[0], found[2])
    assert_same_bits(found[1], found[3])
    assert model.on(select("numpy")).recompute and found[0].any()


def test_recomputation_with_adapters():
    """The block is made again with the adapters' weights and masks."""
    made, found = LoraModel(model_of("llama"), rank=2, dropout=0.3), []
    made.params.flat[:] += 0.3 * np.random.default_rng(0).standard_normal(made.params.flat.size)
    for made.recompute in (False, True):
        found.append(made.loss_and_grads(*batch(), key=(0, 1, 2))[1].flat)
    assert_same_bits(*found)
