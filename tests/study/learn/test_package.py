"""The reference solutions give what the package gives, beyond the cases that the exercises are judged by."""
import math

import numpy as np
import pytest

from minillm import GPT, GPTConfig
from minillm.data.dedup import minhash as package_minhash
from minillm.evaluate import statistics
from minillm.generation import sampling
from minillm.ops.attention_decode import attention_decode
from minillm.ops.lora_linear import lora_linear_backward, lora_linear_forward
from minillm.ops.optimizer.adamw import adamw_update
from minillm.study.learn.exercises import (
    accumulation,
    adamw,
    bootstrap,
    bpe_encoding,
    bpe_training,
    int8,
    kv_cache,
    lora,
    lsh,
    minhash,
    temperature,
    top_p,
)
from minillm.tokenizer import Tokenizer, train

RNG = np.random.default_rng(0)


def test_accumulation_is_the_large_batch_of_a_model():
    """A GPT's own loss and gradients over micro-batches of 5, 0 and 12 tokens."""
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=6, vocab_size=11, dropout=0.0), seed=1,
                dtype=np.float64)
    tokens, targets = RNG.integers(0, 11, (4, 6)), RNG.integers(0, 11, (4, 6))
    targets[0, 5], targets[1] = -1, -1
    parts = [(tokens[i:j], targets[i:j]) for i, j in ((0, 1), (1, 2), (2, 4))]

    def loss_and_grad(part):
        count = int((part[1] != -1).sum())
        if not count:
            return math.nan, np.full(model.params.flat.size, math.nan), 0
        loss, grads = model.loss_and_grads(*part)
        return loss, grads.flat, count

    loss, grad = accumulation.accumulate(parts, loss_and_grad)
    right, grads = model.loss_and_grads(tokens, targets)
    assert loss == pytest.approx(right, rel=1e-12)
    np.testing.assert_allclose(grad, grads.flat, rtol=1e-9, atol=1e-14)


def test_adamw_over_many_steps():
    w, v = RNG.standard_normal((2, 20))
    mine, theirs = ([w.copy(), np.zeros(20), np.zeros(20)] for _ in range(2))
    for step in range(1, 30):
        grad = RNG.standard_normal(20)
        for (w, m, v), update in ((mine, adamw.adamw_update), (theirs, adamw_update)):
            update(w, grad, m, v, step, 1e-2, weight_decay=0.1, n_decayed=12, scale=0.7)
    np.testing.assert_allclose(mine, theirs, rtol=1e-10)


def test_kv_cache_is_attention_decode():
    qkv, keys, values = RNG.standard_normal((3, 12)), *RNG.standard_normal((2, 3, 2, 7, 2))
    out = kv_cache.decode_step(qkv, keys, values, 4, 2)
    q = qkv[:, :4].reshape(3, 2, 1, 2)
    right = attention_decode(q, keys[:, :, :5], values[:, :, :5])
    np.testing.assert_allclose(out, right[:, 0], rtol=1e-12)


def test_lora_is_the_op():
    args = {"x": RNG.standard_normal((2, 3, 4)), "weight": RNG.standard_normal((4, 5)), "bias": RNG.standard_normal(5),
            "a": RNG.standard_normal((4, 2)), "b": RNG.standard_normal((2, 5)), "scale": 0.3}
    (out, cache), (right, right_cache) = lora.lora_linear_forward(**args), lora_linear_forward(**args)
    np.testing.assert_allclose(out, right, rtol=1e-12)
    dout = RNG.standard_normal(out.shape)
    for mine, theirs in zip(lora.lora_linear_backward(dout, cache), lora_linear_backward(dout, right_cache)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_sampling_gives_the_tokens_of_the_package():
    for seed in range(50):
        logits = 3 * RNG.standard_normal(40)
        settings = sampling.Sampling(temperature=0.8, top_p=0.7, seed=seed)
        p = top_p.nucleus(temperature.distribution(logits, 0.8), 0.7)
        u = np.random.default_rng((seed, 0)).random()
        assert temperature.draw(p, u) == sampling.sample(logits, settings, 0)[0]


def test_bpe_is_the_tokenizer():
    text = "a rose is a rose is a rose, and prose is no rose; arose a row of roses "
    tokenizer = Tokenizer.train(text, 256 + 15, special_tokens=(), ties="values", backend="python")
    words = train.count_words(text, "gpt2", frozenset())
    merges = bpe_training.learn_merges(words, 15)
    pieces = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        pieces.append(pieces[left] + pieces[right])
    assert [(pieces[left], pieces[right]) for left, right in merges] == tokenizer.merges
    for word in words:
        mine = [pieces[id] for id in bpe_encoding.encode_word(word, merges)]
        assert mine == [tokenizer.token_bytes(id) for id in tokenizer.encode_ordinary(word)]


def test_the_bootstrap_is_the_evaluation():
    nats, tokens = RNG.uniform(1, 9, 30), RNG.integers(1, 9, 30).astype(float)
    low, high = bootstrap.interval(bootstrap.resampled_ratios(nats, tokens, statistics.draws(30, 0)))
    assert (low, high) == pytest.approx(statistics.interval(nats, tokens), rel=1e-12)


def test_minhash_and_bands_find_what_deduplication_finds():
    texts = [f"the {a} cat sat on the {b} mat and looked at the {c} rat" for a in "xy" for b in "xyz" for c in "xy"]
    settings = package_minhash.Lsh(8, 2, ngram=2)
    keys, _ = package_minhash.band_keys_of(texts, settings, backend="python")
    a, b = package_minhash.permutation_coefficients(16)
    hashes = [(package_minhash.shingles(text, 2) >> np.uint64(32)).astype(np.uint32) for text in texts]
    pairs = lsh.candidates(np.array([minhash.signature(each, a, b) for each in hashes]), 8, 2)
    assert pairs == {(i, j) for j in range(12) for i in range(j) if (keys[i] == keys[j]).any()} and pairs


def test_int8_matmul_is_the_dequantized_one():
    matrix, x = RNG.standard_normal((16, 5)).astype(np.float32), RNG.standard_normal((4, 16)).astype(np.float32)
    values, scales = int8.quantize(matrix)
    right = x @ int8.dequantize(values, scales)
    np.testing.assert_allclose(int8.matmul(x, values, scales), right, rtol=1e-4, atol=1e-5)
