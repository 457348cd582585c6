"""Adapters in compiled kernels: every rank, any number of threads, merged weights, the copy of the frozen ones."""
import numpy as np
import pytest
from cases import named_grads, normal_like, pair, sample
from test_gemm import threads  # noqa: F401  (a fixture)
from tolerances import assert_close, assert_same_bits

from minillm import GPT, GPTConfig, Llama, LlamaConfig, select
from minillm.kernels import select as registry
from minillm.kernels.select import Dims, choices
from minillm.models.adapted import LoraModel

if "cpu" not in choices("lora_linear"):
    pytest.skip("kernels are not built", allow_module_level=True)

KINDS = [("cpu", "float32"), ("cpu", "float64"), ("cpu/bf16", "float32")]
OPS = ("lora_linear", "lora_projection", "lora_mlp")
TOKENS, TARGETS = np.random.default_rng(0).integers(0, 90, (2, 3, 40))


def with_rank(op, dtype, rank, dims):
    """A sample whose adapters have another rank (lora_mlp's second one more)."""
    args, rng = sample(op, dtype, dims), np.random.default_rng(rank)
    for name, array in args.items():
        if name.split("_")[-1] in ("a", "b"):
            own = rank + name.startswith("proj")
            by_rows = (name[-1] == "a") == (op == "lora_projection")
            shape = (own, array.shape[1]) if by_rows else (array.shape[0], own)
            args[name] = (rng.standard_normal(shape) / 3).astype(dtype)
    return args


def outs_and_grads(op, backend, args):
    forward, backward = pair(op, backend)
    out, cache = forward(**args)
    return {"out": out} | named_grads(op, backward(normal_like(out, np.random.default_rng(1)), cache))


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 7, 8, 9, 15, 16, 21])
@pytest.mark.parametrize("backend, dtype", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_every_rank_and_odd_widths(op, backend, dtype, rank):
    """Sums are in registers for 8, 4, 2 and 1 ranks; 19 and 76 columns end in a part of a vector and of a byte."""
    args = with_rank(op, dtype, rank, Dims(2, 27, 19))
    want, got = outs_and_grads(op, "numpy", args), outs_and_grads(op, backend, args)
    for name in want:
        bf16 = backend == "cpu/bf16"
        assert_close(f"{op} {name}", got[name], want[name], f"reference {'bfloat16' if bf16 else dtype}")


@pytest.mark.parametrize("backend, dtype", KINDS)
def test_an_update_of_rank_0_is_none(backend, dtype):
    args = with_rank("lora_mlp", dtype, 0, Dims(1, 33, 24)) | {"proj_scale": 0.0}
    args |= {name: args[name][:, :0].copy() if name == "proj_a" else args[name][:0].copy()
             for name in ("proj_a", "proj_b")}
    plain = {name: args[name] for name in ("x", "fc_weight", "fc_bias", "proj_weight", "proj_bias")}
    (out, cache), (want, plain_cache) = pair("lora_mlp", backend)[0](**args), pair("mlp", backend)[0](**plain)
    assert_same_bits(out, want)
    dout = normal_like(out, np.random.default_rng(2))
    assert_same_bits(pair("lora_mlp", backend)[1](dout, cache)[0], pair("mlp", backend)[1](dout, plain_cache)[0])


def gpt(backend, dtype="float32"):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=48, block_size=40, vocab_size=90)
    return GPT(config, ops=select(backend), dtype=dtype)


def llama(backend, dtype="float32"):
    config = LlamaConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=12, n_embd=48, n_inner=80, block_size=40,
                         vocab_size=90)
    return Llama(config, ops=select(backend), dtype=dtype)


def adapter(base, **settings):
    made = LoraModel(base, **{"rank": 5, "alpha": 10.0, **settings})
    made.params.flat[:] += 0.05 * np.random.default_rng(1).standard_normal(made.params.flat.size)
    return made


@pytest.mark.parametrize("backend, dtype", KINDS)
@pytest.mark.parametrize("family", [gpt, llama])
def test_bits_do_not_depend_on_threads(family, backend, dtype, threads):  # noqa: F811
    """Of the loss and of all gradients of adapters, with dropout."""
    made, found = adapter(family(backend, dtype), dropout=0.2), []
    for n in (1, 2, 3, 2):
        registry._cpp.set_threads(n)
        loss, grads = made.loss_and_grads(TOKENS, TARGETS, key=(1, 2, 3))
        found.append((loss, grads.flat.copy()))
    assert found[0][1].all()
    for loss, flat in found[1:]:
        assert loss == found[0][0]
        assert_same_bits(flat, found[0][1])


@pytest.mark.parametrize("family", [gpt, llama])
@pytest.mark.parametrize("targets", [None, ("c_fc", "gate_proj"), ("mlp.c_proj", "down_proj")])
def test_merged_is_applied(family, targets):
    """The losses of the merged weights: to the last digits at float64, within a few roundings of 8 bits at bfloat16."""
    for backend, dtype, allowed in (("cpu", "float64", 1e-13), ("cpu/bf16", "float32", 1e-2)):
        base = family(backend, dtype)
        names = targets and [name for name in targets if any(t.endswith(name) for t in base.layers.targets)]
        made = adapter(base, targets=names)
        got, want = made.losses(TOKENS, TARGETS)[0], made.merged().losses(TOKENS, TARGETS)[0]
        assert np.abs(got - want).max() < allowed
        assert np.abs(got - base.losses(TOKENS, TARGETS)[0]).max() > 3 * allowed


@pytest.mark.parametrize("family", [gpt, llama])
def test_the_copy_of_frozen_weights_changes_no_bit_and_cannot_become_old(family, monkeypatch):
    made = adapter(family("cpu/bf16"))
    loss, grads = made.loss_and_grads(TOKENS, TARGETS)
    assert made.bits and made.bits[made.base.head].dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        made.base.params.flat[0] = 1
    monkeypatch.setattr(type(made.base), "takes_weight_copy", False)
    other = adapter(family("cpu/bf16"))
    same, without = other.loss_and_grads(TOKENS, TARGETS)
    assert other.bits is None and same == loss
    assert_same_bits(without.flat, grads.flat)
    made.merged().params.flat[0] = 1                                    # a model of its own
