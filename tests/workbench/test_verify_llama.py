"""`minillm verify` on Llamas: healthy ones of all kinds pass, and faults planted in each layer are found and named."""
import json
from dataclasses import replace

import numpy as np
import pytest
from faults import failed, found, planted, with_kernels

from minillm import LlamaConfig, select
from minillm.__main__ import main
from minillm.models.adapted import LoraModel
from minillm.models.load import model_class
from minillm.models.quantized import quantize, save_quantized
from minillm.workbench.properties import causality, code_paths, gradients, saving
from minillm.workbench.verify import verify, verify_model

L = 2
CONFIG = LlamaConfig(n_layer=L, n_head=4, n_kv_head=2, head_dim=4, n_embd=12, n_inner=20, block_size=34, vocab_size=50)
KINDS = {"llama": {}, "tied": {"tied": True}, "qwen3": {"family": "qwen3", "qk_norm": True},
         "qwen2": {"family": "qwen2", "qkv_bias": True}, "window": {"family": "mistral", "window": 5}}


def rough(kind="llama", backend="numpy"):
    config = replace(CONFIG, **KINDS[kind])
    model = model_class(config)(config, ops=select(backend))
    model.params.flat[:] += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


@pytest.mark.parametrize("kind", ["olmo2", "gemma", "gemma2"])
def test_families_with_blocks_of_their_own_pass(kind):
    more = {"olmo2": {"qk_norm": True}, "gemma": {"tied": True},
            "gemma2": {"tied": True, "window": 7, "full_layers": (1,), "attention_cap": 5.0, "logit_cap": 9.0,
                       "query_size": 12.0}}[kind]
    config = replace(CONFIG, family=kind, **more)
    model = model_class(config)(config)
    model.params.flat[:] += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    for each in (model, quantize(model, "bfloat16")):
        rows = verify_model(each)
        assert not [row for row in rows if row["passed"] is False], rows


@pytest.mark.parametrize("kind, backend", [(kind, "auto") for kind in KINDS] + [
    ("tied", "numpy"), pytest.param("llama", "cpu/bf16", marks=with_kernels)])
def test_healthy_llamas_pass(kind, backend, tmp_path):
    rough(kind, backend).save_pretrained(tmp_path)
    rows = verify(tmp_path, backend)
    assert not [row for row in rows if row["passed"] is False], rows
    skipped = {row["check"] for row in rows if row["passed"] is None}
    assert skipped <= {"adapter", "transformers", "dropout determinism", "thread invariance", "reference ops"} | (
        set() if KINDS[kind].get("tied") else {"tied weights"})


def test_adapters_and_quantized_llamas(tmp_path):
    base = rough()
    base.save_pretrained(tmp_path / "base")
    lora = LoraModel(base, 2, seed=3, name=str(tmp_path / "base"))
    lora.params.flat[:] += 0.1
    lora.save_pretrained(tmp_path / "run")
    save_quantized(tmp_path / "int8", quantize(base))
    for folder, check in (("run", "adapter"), ("int8", "cached decoding")):
        rows = {row["check"]: row["passed"] for row in verify(tmp_path / folder, "auto")}
        assert rows[check] and False not in rows.values(), rows
    lora.params.flat[:] *= 1.5
    lora.merged().save_pretrained(tmp_path / "run")                 # another adapter than the one beside it
    assert {row["check"]: row["passed"] for row in verify(tmp_path / "run", "numpy")}["adapter"] is False


def shifted(*args):
    return args[-1] + 1e-3 * np.roll(args[-1], -1, axis=1)


def norm_over_time(*args):
    return args[-1][0], args[-1][1] - args[-1][1].mean(1)


LEAKS = {           # op: (what it does, calls in a layer, which of them, the layer that is named)
    "projection": (shifted, 7, 3, "self_attn.o_proj (projection)"),
    "rope": (shifted, 2, 1, "self_attn (rope)"),
    "grouped_attention": (shifted, 1, 0, "self_attn (grouped_attention)"),
    "residual_rmsnorm": (norm_over_time, 2, 0, "post_attention_layernorm (residual_rmsnorm)"),
    "swiglu": (shifted, 1, 0, "mlp (swiglu)")}


@pytest.mark.parametrize("i", range(L))
@pytest.mark.parametrize("op", LEAKS)
def test_a_leak_is_named_by_its_layer(op, i):
    wrong, calls, call, layer = LEAKS[op]
    result = failed(causality.causal, planted(rough(), f"{op}_forward", wrong, calls * i + call, calls * L), "leak")
    assert result.layer == f"model.layers.{i}.{layer}"


def test_positions_are_those_of_the_token():
    assert found(causality.positions, rough()).passed

    def late(x, cos, sin, out):
        return select("numpy").rope_forward(x, np.roll(cos, 1, axis=0), sin)[0]
    result = failed(causality.positions, planted(rough(), "rope_forward", late), "of the angles reaches")
    assert result.layer == "model.layers.0.self_attn (rope)"


@with_kernels
def test_a_cache_that_forgets_is_seen():
    def forgetful(q, k, v, window, out):
        return out + 1e-6 * k.shape[2] * (k.shape[2] > 20)
    model = rough(backend="cpu")
    right = model.ops.attention_decode
    model.ops = model.ops._replace(attention_decode=lambda *args: forgetful(*args, right(*args)))
    failed(code_paths.cached_decoding, model, "in pieces")


def test_an_untied_gradient_and_a_wrong_recomputation_are_seen():
    model = rough("tied")
    model.ops = model.ops._replace(token_embedding_backward=lambda dout, cache, into: None)
    failed(gradients.tied_weights, model, "no gradient from the embedding")
    model = planted(rough(), "grouped_attention_forward", lambda *args: args[-1] * (1 + 1e-6), L, 3 * L)
    failed(gradients.recomputation, model)
    assert found(saving.resume, rough("qwen3")).passed


def test_the_command(tmp_path, capsys):
    rough().save_pretrained(tmp_path)
    assert main(["verify", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    rows = rows if isinstance(rows, list) else rows["checks"]
    assert {"causal", "positions", "resume"} <= {row["check"] for row in rows if row["passed"]}
