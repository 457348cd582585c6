"""Healthy models, faults planted in their ops, and checks of `minillm verify` that must find them."""
import numpy as np
import pytest

from minillm import GPT, GPTConfig, select
from minillm.kernels import select as registry
from minillm.ops.attention import merge_heads, split_heads
from minillm.workbench.verify import finding, subject_of

L = 3
CONFIG = GPTConfig(n_layer=L, n_head=2, n_embd=16, block_size=40, vocab_size=50)
with_kernels = pytest.mark.skipif(registry._cpp is None, reason="kernels are not built")


def rough_model(backend="numpy", config=CONFIG):
    model = GPT(config, ops=select(backend))
    model.params.flat[:] += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


def found(check, model, directory=None):
    return finding(check, subject_of(model, directory))


def failed(check, model, words="", directory=None):
    """The Finding of a check that fails, with these words."""
    result = found(check, model, directory)
    assert result.passed is False and words in result.figure, result
    return result


def planted(model, op, fault, call=0, calls=1):
    """The model with fault(*what the op is given, right output) in place of one op's output, in its `call`-th call of
    `calls` a pass."""
    right, count = getattr(model.ops, op), [0]

    def wrong(*args, **settings):
        out, *cache = right(*args, **settings)
        count[0] += 1
        return (fault(*args, out) if (count[0] - 1) % calls == call else out), *cache
    model.ops = model.ops._replace(**{op: wrong})
    return model


def attention_with(mask):
    """Attention under another mask (T, T): True where a token may look."""
    def attend(qkv, n_head, out):
        q, k, v = split_heads(qkv, n_head)
        S = np.where(mask(qkv.shape[1]), q @ k.swapaxes(-1, -2), -np.inf)
        P = np.exp(S - S.max(axis=-1, keepdims=True))
        return merge_heads(P / P.sum(axis=-1, keepdims=True) @ v)
    return attend
