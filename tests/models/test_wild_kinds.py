"""GPT-2s of other kinds (exact GELU, ReLU, n_inner, attention scales, a head of its own), without any other library:
against the definition written out once more, by finite differences, cached, stored in fewer bits, adapted, saved."""
from dataclasses import replace
from math import erf, sqrt

import numpy as np
import pytest
from tolerances import TOLERANCES

from minillm import GPT, GPTConfig, Tokenizer, load_model, select
from minillm.gradcheck import check_model
from minillm.models.adapted import LoraModel, load_adapter
from minillm.models.gguf import write_gguf
from minillm.models.quantized import dequantized_model, quantize, save_quantized

PLAIN = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=37)
KINDS = {"gelu": {"activation": "gelu"}, "relu": {"activation": "relu"}, "narrow": {"n_inner": 24},
         "unscaled": {"scale_attn_weights": False},
         "by layer": {"scale_attn_by_inverse_layer_idx": True}, "untied": {"tied": False},
         "all": {"activation": "gelu", "n_inner": 40, "scale_attn_weights": False, "tied": False,
                 "scale_attn_by_inverse_layer_idx": True}}
TOKENS = np.random.default_rng(0).integers(0, 37, (3, 12))
each_kind = pytest.mark.parametrize("kind", KINDS)


def model_of(kind, dtype=np.float32, **more):
    """Far from its initialisation, so that every setting matters."""
    model = GPT(replace(PLAIN, **KINDS[kind], **more), seed=1, dtype=dtype)
    model.params.flat[:] += 0.2 * np.random.default_rng(2).standard_normal(model.params.flat.size)
    return model


def written_out(model, tokens):
    """The logits of one row of tokens, from the papers' formulas."""
    p, c = model.params, model.config
    x = p["wte.weight"][tokens] + p["wpe.weight"][:len(tokens)]
    for i in range(c.n_layer):
        q, k, v = np.split(linear(p, f"h.{i}.attn.c_attn", norm(p, f"h.{i}.ln_1", x)), 3, axis=-1)
        divisor = i + 1 if c.scale_attn_by_inverse_layer_idx else 1
        divisor *= sqrt(c.head_dim) if c.scale_attn_weights else 1
        heads = []
        for h in np.split(np.arange(c.n_embd), c.n_head):
            scores = np.exp(q[:, h] @ k[:, h].T / divisor) * np.tri(len(tokens))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, h])
        x = x + linear(p, f"h.{i}.attn.c_proj", np.concatenate(heads, axis=1))
        m = linear(p, f"h.{i}.mlp.c_fc", norm(p, f"h.{i}.ln_2", x))
        exact = np.vectorize(lambda v: v / 2 * (1 + erf(v / sqrt(2))))(m)
        tanh = m / 2 * (1 + np.tanh(sqrt(2 / np.pi) * (m + 0.044715 * m ** 3)))
        act = {"gelu": exact, "gelu_new": tanh, "relu": np.maximum(m, 0)}[c.activation]
        x = x + linear(p, f"h.{i}.mlp.c_proj", act)
    return norm(p, "ln_f", x) @ p["wte.weight" if c.tied else "lm_head.weight"].T


def linear(p, name, x):
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def norm(p, name, x):
    x = x - x.mean(1, keepdims=True)
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


@each_kind
@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_the_definition(kind, backend):
    model, plain = model_of(kind, np.float64), model_of("narrow", np.float64)
    logits = model.on(select(backend)).forward(TOKENS)[0]
    for row, tokens in zip(logits, TOKENS):
        np.testing.assert_allclose(row, written_out(model, tokens), rtol=0, atol=1e-11 * np.abs(row).max())
    if set(KINDS[kind]) <= {"activation"}:                                  # the setting is no name only
        other = GPT(replace(model.config, activation="gelu_new"), params=model.params).forward(TOKENS)[0]
        assert 1e-5 < np.abs(other - logits).max() < {"gelu": 0.1, "relu": 10}[kind]
    assert plain.config.n_inner == 24


@each_kind
def test_the_gradient_of_every_tensor(kind):
    """By the complex step on NumPy's ops; and those of the compiled ops are the same."""
    model, (tokens, targets) = model_of(kind, np.float64).on(select("numpy")), (TOKENS[:2, :7], TOKENS[:2, 1:8])
    _, grads = model.loss_and_grads(tokens, targets)
    rows = check_model(lambda p: GPT(model.config, ops=model.ops, params=p).losses(tokens, targets)[0].mean(), grads,
                       dict(model.params), method="complex", samples=3, directions=1,
                       **TOLERANCES["model complex"].both)
    assert not [str(row) for row in rows if not row.passed] and {row.name for row in rows} >= set(model.params)
    again = model.on(select()).loss_and_grads(tokens, targets)[1]
    np.testing.assert_allclose(again.flat, grads.flat, rtol=0, atol=1e-12 * np.abs(grads.flat).max())


@each_kind
@pytest.mark.parametrize("weights", ["float32", "int8", "bfloat16"])
def test_cached_decoding_has_the_bits_of_forward(kind, weights):
    """Token by token, in pieces, rows apart: by the compiled step and by the ops one after the other."""
    model = quantize(model_of(kind), weights)
    want = (model if weights == "int8" else dequantized_model(model)).forward(TOKENS)[0]    # int8 rounds activations
    for made in (model, model.on(model.ops._replace(decode_step=None))):
        cache = made.new_cache(3)
        got = [made.decode(TOKENS[:, :4], cache), *(made.decode(TOKENS[:, t:t + 1], cache) for t in range(4, 11)),
               np.stack([made.decode(TOKENS[r:r + 1, 11:], cache, rows=[r])[0] for r in range(3)])]
        assert np.array_equal(np.concatenate(got, axis=1), want)


@each_kind
def test_saved_and_loaded(kind, tmp_path):
    model = model_of(kind)
    model.save_pretrained(tmp_path / "plain")
    assert load_model(tmp_path / "plain").config == model.config
    assert np.array_equal(load_model(tmp_path / "plain").forward(TOKENS)[0], model.forward(TOKENS)[0])
    stored = quantize(model, "int8", 8)
    save_quantized(tmp_path / "int8", stored)
    assert np.array_equal(load_model(tmp_path / "int8").forward(TOKENS)[0], stored.forward(TOKENS)[0])


@each_kind
def test_low_rank_updates(kind, tmp_path):
    """An adapter's gradients are those of finite differences; merged and loaded, it has the same logits."""
    base = model_of(kind, np.float64, dropout=0.1)
    model = LoraModel(base, rank=2, seed=3)
    model.params.flat[:] = 0.3 * np.random.default_rng(4).standard_normal(model.params.flat.size)
    want, again = model.model().forward(TOKENS)[0], model.merged().forward(TOKENS)[0]
    np.testing.assert_allclose(again, want, rtol=0, atol=1e-10)
    _, grads = model.loss_and_grads(TOKENS[:, :-1], TOKENS[:, 1:])
    name, step = "h.1.mlp.c_fc.a", 1e-5
    losses = []
    for sign in (1, -1):
        model.params[name][2, 1] += sign * step
        losses.append(model.losses(TOKENS[:, :-1], TOKENS[:, 1:])[0].mean())
        model.params[name][2, 1] -= sign * step
    assert np.isclose((losses[0] - losses[1]) / (2 * step), grads[name][2, 1], rtol=1e-6)
    model.save_pretrained(tmp_path)
    adapted = load_adapter(base, tmp_path / "adapter").model().forward(TOKENS)[0]
    np.testing.assert_allclose(adapted, want, rtol=0, atol=1e-10)


def test_a_gguf_file_has_what_llama_cpp_computes(tmp_path):
    pytest.importorskip("gguf")
    tokenizer = Tokenizer.train(["the cat sat on the mat. " * 20], 262)
    config = replace(PLAIN, n_inner=24, tied=False, vocab_size=262)
    model = GPT(config, seed=1)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, "f32")
    again = load_model(tmp_path / "m.gguf")
    assert again.config == config and np.array_equal(again.params.flat, model.params.flat)
    for given in ({"activation": "gelu"}, {"activation": "relu"}, {"scale_attn_weights": False},
                  {"scale_attn_by_inverse_layer_idx": True}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} = .* is not computed by llama.cpp in a GPT-2"):
            write_gguf(tmp_path / "m.gguf", GPT(replace(config, **given)), tokenizer)


def test_recomputation_and_packing():
    model = model_of("all")
    loss, grads = model.loss_and_grads(TOKENS, TOKENS)
    model.recompute = True
    assert (again := model.loss_and_grads(TOKENS, TOKENS))[0] == loss
    assert np.array_equal(again[1].flat, grads.flat)
    packed = model.losses(TOKENS.reshape(1, -1), TOKENS.reshape(1, -1), lengths=[12, 12, 12])[0]
    assert np.array_equal(packed, model.losses(TOKENS, TOKENS)[0])
