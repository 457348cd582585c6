"""Adapters on a Llama: q, k, v, o, gate, up and down; gradients, merging, PEFT's files, and the commands."""
import json

import numpy as np
import pytest
from chats import CHAT, chat_data, talk, write
from tolerances import assert_close, assert_same_bits

from minillm import Llama, LlamaConfig, TrainConfig, load_model, select
from minillm.__main__ import main
from minillm.models.adapted import LLAMA_LAYERS, LoraModel, load_adapter
from minillm.train.loop import train

TOKENS = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
SHAPE = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "head_dim": 4, "n_embd": 12, "n_inner": 20, "block_size": 32,
         "vocab_size": CHAT.vocab_size}
FAMILIES = {"llama": {}, "qwen2": {"family": "qwen2", "qkv_bias": True, "tied": True},
            "qwen3": {"family": "qwen3", "qk_norm": True}}


def adapter(dtype=np.float64, learned=True, family="llama", backend="auto", **settings):
    base = Llama(LlamaConfig(**SHAPE, **FAMILIES[family]), dtype=dtype, ops=select(backend))
    base.params.flat[:] += 0.2 * np.random.default_rng(2).standard_normal(base.params.flat.size)
    made = LoraModel(base, **{"rank": 3, "alpha": 6.0, **settings})
    if learned:
        made.params.flat += 0.05 * np.random.default_rng(1).standard_normal(made.params.flat.size).astype(dtype)
    return made


def test_a_new_adapter_changes_nothing():
    made = adapter(learned=False)
    assert np.array_equal(made.losses(TOKENS, TOKENS)[0], made.base.losses(TOKENS, TOKENS)[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj"), ("mlp.down_proj",)], ids=str)
def test_merged_is_the_adapted_model(family, targets):
    made = adapter(family=family, targets=targets)
    merged = made.merged()
    assert_close("losses", merged.losses(TOKENS, TOKENS)[0], made.losses(TOKENS, TOKENS)[0], "same model")
    assert not np.allclose(made.losses(TOKENS, TOKENS)[0], made.base.losses(TOKENS, TOKENS)[0])
    changed = {name for name in merged.params if not np.array_equal(merged.params[name], made.base.params[name])}
    names = [name for name in LLAMA_LAYERS.targets if targets is None or name.endswith(targets)]
    assert changed == {f"model.layers.{i}.{name}.weight" for i in range(2) for name in names}
    assert_close("decoded", made.decode(TOKENS, made.new_cache(2)), merged.decode(TOKENS, merged.new_cache(2)),
                 "same model")


@pytest.mark.parametrize("key", [None, (3, 1, 0)], ids=["plain", "dropout"])
def test_gradients_of_the_adapters_by_central_differences(key):
    made = adapter(dropout=0.3, family="qwen2")
    _, grads = made.loss_and_grads(TOKENS, TOKENS, key=key)
    rng = np.random.default_rng(0)
    assert len(made.params) == 2 * 7 * 2
    for name, view in made.params.items():
        place = tuple(rng.integers(0, size) for size in view.shape)
        kept, ends = view[place], []
        for step in (1e-6, -1e-6):
            view[place] = kept + step
            ends.append(made.losses(TOKENS, TOKENS, key=key)[0].mean())
        view[place] = kept
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(grads[name][place], rel=1e-5, abs=1e-8), (name, place)


@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_gradients_that_nobody_wants_are_not_computed(backend):
    made, calls = adapter(np.float32, backend=backend), []

    def spy(function):
        def call(dout, cache, into=None):
            calls.append(into)
            return function(dout, cache, into)
        return call
    names = ("projection_backward", "lora_projection_backward", "linear_cross_entropy_backward", "rmsnorm_backward",
             "token_embedding_backward")
    made.base.ops = made.ops._replace(**{name: spy(getattr(made.ops, name)) for name in names})
    losses, caches = made.losses(TOKENS, TOKENS)
    grads = made.backward(np.ones_like(losses), caches)
    wanted = [place for into in calls for place in into if place is not None]
    assert len(wanted) == len(made.params) and all(np.shares_memory(place, grads.flat) for place in wanted)


def test_training_moves_the_adapters_only_and_resumes(tmp_path):
    config = TrainConfig(steps=4, lr=1e-2, warmup=1, eval_every=2, save_every=2, log_every=1)
    made, parts = (adapter(np.float32, learned=False, dropout=0.1) for _ in range(2))
    before = made.base.params.flat.copy()
    train(made, chat_data(), config, tmp_path / "whole")
    assert_same_bits(made.base.params.flat, before)                        # not a bit of the base
    assert made.params["model.layers.0.self_attn.q_proj.b"].any()
    train(parts, chat_data(), config, tmp_path / "parts", deadline=0.0)
    again = adapter(np.float32, learned=False, dropout=0.1)
    train(again, chat_data(), config, tmp_path / "parts")
    assert_same_bits(again.params.flat, made.params.flat)
    loaded = load_adapter(made.base, tmp_path / "whole" / "adapter")
    assert_same_bits(loaded.params.flat, made.params.flat)
    assert_same_bits(load_model(tmp_path / "whole").params.flat, made.merged().params.flat)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_computes_the_same(tmp_path, family):
    """Our adapter in PEFT, its adapter in ours, and the merged model in transformers."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    auto = pytest.importorskip("transformers").AutoModelForCausalLM
    made = adapter(np.float32, family=family)
    made.base.save_pretrained(tmp_path / "base")
    made.save_pretrained(tmp_path / "run")
    theirs = peft.PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "base"), tmp_path / "run" / "adapter")
    for model in (theirs.eval(), auto.from_pretrained(tmp_path / "run").eval()):
        with torch.no_grad():
            logits = model(torch.from_numpy(TOKENS)).logits.numpy()
        assert np.abs(logits - made.model().forward(TOKENS)[0]).max() < 2e-5
    theirs.save_pretrained(tmp_path / "again")
    assert_same_bits(load_adapter(made.base, tmp_path / "again").params.flat, made.params.flat)


def test_names_of_another_family_are_refused():
    with pytest.raises(ValueError, match="targets must be some of self_attn.q_proj, .*: got c_attn"):
        adapter(targets=("c_attn",))


@pytest.mark.parametrize("command, record", [
    ("sft --data", {"messages": talk()}), ("dpo --data", {"prompt": "a?", "chosen": "b", "rejected": "c"}),
    ("grpo --prompts 1 --group 2 -n 2", None)], ids=["sft", "dpo", "grpo"])
def test_the_commands_train_adapters(tmp_path, command, record):
    adapter(np.float32).base.save_pretrained(tmp_path / "base")
    CHAT.save(tmp_path / "base")
    data = [str(write(tmp_path / "data.jsonl", [record] * 8))] if record else []
    name, *options = command.split()
    words = f"{tmp_path}/base --out {tmp_path}/out --lora-rank 2 --lora-targets q_proj,v_proj --set train.steps=1"
    assert main([name, *options, *data, *words.split()]) == 0
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["self_attn.q_proj", "self_attn.v_proj"] and not config["fan_in_fan_out"]
    made = load_adapter(load_model(config["base_model_name_or_path"]), tmp_path / "out" / "adapter")
    assert_same_bits(made.merged().params.flat, load_model(tmp_path / "out").params.flat)
