"""Adapters: the same model at first, gradients that are right, a merge that is exact, files that PEFT reads."""
import json

import numpy as np
import pytest
from chats import chat_data, small_model
from tolerances import assert_close, assert_same_bits

from minillm import GPT, TrainConfig, select
from minillm.models.adapted import TARGETS, LoraModel, Routed, load_adapter
from minillm.train.loop import train

TOKENS = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def adapter(dtype=np.float64, learned=True, **settings):
    made = LoraModel(small_model(dtype=dtype), **{"rank": 3, "alpha": 6.0, **settings})
    if learned:
        made.params.flat += 0.05 * np.random.default_rng(1).standard_normal(made.params.flat.size).astype(dtype)
    return made


def test_a_new_adapter_changes_nothing():
    made = adapter(learned=False)
    assert np.array_equal(made.losses(TOKENS, TOKENS)[0], made.base.losses(TOKENS, TOKENS)[0])


@pytest.mark.parametrize("targets", [TARGETS, TARGETS[:1], TARGETS[2:3]], ids=",".join)
def test_merged_is_the_adapted_model(targets):
    made = adapter(targets=targets)
    merged = made.merged()
    assert_close("losses", merged.losses(TOKENS, TOKENS)[0], made.losses(TOKENS, TOKENS)[0], "same model")
    assert not np.allclose(made.losses(TOKENS, TOKENS)[0], made.base.losses(TOKENS, TOKENS)[0])
    changed = {name for name in merged.params if not np.array_equal(merged.params[name], made.base.params[name])}
    assert changed == {f"h.0.{target}.weight" for target in targets}
    cache, other = made.new_cache(2), merged.new_cache(2)
    assert_close("decoded", made.decode(TOKENS, cache), merged.decode(TOKENS, other), "same model")


@pytest.mark.parametrize("key", [None, (3, 1, 0)], ids=["plain", "dropout"])
def test_gradients_of_the_adapters_by_central_differences(key):
    made = adapter(dropout=0.3)
    _, grads = made.loss_and_grads(TOKENS, TOKENS, key=key)
    rng = np.random.default_rng(0)
    for name, view in made.params.items():
        for _ in range(3):
            place = tuple(rng.integers(0, size) for size in view.shape)
            kept, ends = view[place], []
            for step in (1e-6, -1e-6):
                view[place] = kept + step
                ends.append(made.losses(TOKENS, TOKENS, key=key)[0].mean())
            view[place] = kept
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(grads[name][place], rel=1e-5, abs=1e-8), (name, place)


class Everywhere(Routed):
    """As before: gradients of everything frozen fall into arrays that nobody reads."""

    def __init__(self, grads, frozen):
        super().__init__(grads)
        self.frozen = frozen

    def __getitem__(self, name):
        place = super().__getitem__(name)
        return self.frozen[name] if place is None else place


@pytest.mark.parametrize("targets", [TARGETS, ("attn.c_attn",), ("mlp.c_fc",)], ids=",".join)
@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_gradients_that_nobody_wants_are_not_computed_and_the_others_keep_every_bit(targets, backend):
    made = adapter(np.float32, targets=targets)
    made.base.ops = made.ops = select(backend)
    losses, caches = made.losses(TOKENS, TOKENS)
    wanted, frozen = made.params.zeros_like(), made.base.params.zeros_like()
    made.base.backward(np.ones_like(losses), caches, Everywhere(wanted, frozen))
    assert wanted.flat.any() and frozen["wte.weight"].any() and frozen["ln_f.weight"].any()

    calls = []
    spied = {name: spy(getattr(made.ops, name), calls) for name in ("linear_backward", "linear_cross_entropy_backward")}
    made.base.ops = made.ops._replace(**spied)
    losses, caches = made.losses(TOKENS, TOKENS)
    assert_same_bits(made.backward(np.ones_like(losses), caches).flat, wanted.flat)
    assert calls and all(grads[1:] == (None,) * (len(grads) - 1) for grads in calls)


def spy(function, calls):
    def call(dout, cache, into=None):
        grads = function(dout, cache, into)
        calls.append(grads)
        return grads
    return call


def test_dropout_differs_by_step_and_layer_and_repeats():
    made = adapter(dropout=0.5)
    losses = [made.losses(TOKENS, TOKENS, key=key)[0] for key in ((0, 1, 0), (0, 1, 0), (0, 2, 0), None)]
    assert np.array_equal(losses[0], losses[1])
    assert not np.allclose(losses[0], losses[2]) and not np.allclose(losses[0], losses[3])


def test_training_moves_the_adapters_only_and_resumes(tmp_path):
    config = TrainConfig(steps=6, lr=1e-2, warmup=1, eval_every=3, save_every=2, log_every=1)
    made, parts = (adapter(np.float32, learned=False, dropout=0.1) for _ in range(2))
    before = made.base.params.flat.copy()
    state = train(made, chat_data(), config, tmp_path / "whole")
    assert_same_bits(made.base.params.flat, before)                        # not a bit of the base
    assert made.params["h.0.attn.c_attn.b"].any() and state["best"]["step"] == 6
    train(parts, chat_data(), config, tmp_path / "parts", deadline=0.0)
    again = adapter(np.float32, learned=False, dropout=0.1)
    train(again, chat_data(), config, tmp_path / "parts")
    assert_same_bits(again.params.flat, made.params.flat)
    loaded = load_adapter(made.base, tmp_path / "whole" / "adapter")
    assert_same_bits(loaded.params.flat, made.params.flat)
    assert (loaded.rank, loaded.alpha, loaded.dropout) == (3, 6.0, 0.1)
    merged = GPT.from_pretrained(tmp_path / "whole")                        # every other command opens the run, too
    assert_same_bits(merged.params.flat, made.merged().params.flat)


def test_peft_computes_the_same(tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = adapter(np.float32)
    made.base.save_pretrained(tmp_path / "base")
    made.save_pretrained(tmp_path / "adapter")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter" / "adapter").eval()
    merged = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "adapter").eval()  # not with the adapter again
    for model in (theirs, merged):
        with torch.no_grad():
            logits = model(torch.from_numpy(TOKENS)).logits.numpy()
        assert np.abs(logits - made.model().forward(TOKENS)[0]).max() < 1e-4
    theirs.save_pretrained(tmp_path / "again")
    assert_same_bits(load_adapter(made.base, tmp_path / "again").params.flat, made.params.flat)


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"target_modules": ["c_attn", "c_proj"]}], ids=str)
def test_an_adapter_of_pefts_own_computes_what_peft_does(tmp_path, settings):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    base = small_model(dtype=np.float32)
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=5, **{"target_modules": ["c_attn"], **settings}, init_lora_weights=False,
                             task_type="CAUSAL_LM", fan_in_fan_out=True)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    theirs = peft.get_peft_model(theirs, config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        logits = theirs(torch.from_numpy(TOKENS)).logits.numpy()
    made = load_adapter(base, tmp_path / "adapter")
    assert np.abs(logits - made.model().forward(TOKENS)[0]).max() < 1e-4


def test_rank_stabilized_adapters_are_scaled_by_the_root_of_the_rank(tmp_path):
    made = adapter()                                                        # rank 3, alpha 6: scale 2
    changed(made, tmp_path, {"use_rslora": True})
    assert load_adapter(made.base, tmp_path / "adapter").alpha / 3 == pytest.approx(6 / 3 ** 0.5)


def changed(made, folder, settings):
    """Save an adapter, and change its adapter_config.json."""
    made.save_pretrained(folder)
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("key, value", [
    ("rank_pattern", {"c_attn": 2}), ("use_dora", True), ("bias", "all"), ("modules_to_save", ["wte"]),
    ("init_lora_weights", "pissa"), ("lora_bias", True), ("invented_tomorrow", 0.5), ("target_modules", ["wte"]),
    ("layer_replication", [[0, 1]]), ("target_parameters", ["x"]), ("trainable_token_indices", [1]),
    ("alora_invocation_tokens", [1]), ("use_qalora", True), ("megatron_config", {"a": 1})], ids=str)
def test_an_adapter_that_means_something_else_is_refused(tmp_path, key, value):
    made = adapter()
    changed(made, tmp_path, {key: value})
    with pytest.raises(ValueError, match=key):
        load_adapter(made.base, tmp_path / "adapter")


@pytest.mark.parametrize("key, value, words", [
    ("r", None, "rank"), ("r", 2 ** 40, "r = 1099511627776"), ("r", True, "rank"), ("lora_alpha", "8", "alpha"),
    ("lora_alpha", float("nan"), "alpha"), ("lora_dropout", {}, "dropout"), ("target_modules", 3, "target_modules"),
    ("target_modules", 1.5, "target_modules")], ids=str)
def test_settings_of_a_wrong_type_are_named(tmp_path, key, value, words):
    made = adapter()
    changed(made, tmp_path, {key: value})
    with pytest.raises(ValueError, match=words):
        load_adapter(made.base, tmp_path / "adapter")


@pytest.mark.parametrize("settings, words", [
    ({"rank": 0}, "rank must be"), ({"alpha": 0}, "alpha must be"), ({"dropout": 1.0}, "dropout must be"),
    ({"targets": ()}, "targets must be some of attn.c_attn"), ({"targets": ("wte",)}, "got wte"),
])
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        LoraModel(small_model(), **settings)


def test_an_adapter_for_another_model_is_refused(tmp_path):
    made = adapter()
    made.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="different adapter"):
        adapter(rank=2).load_weights(tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(ValueError, match="peft_type must be 'LORA'"):
        load_adapter(made.base, tmp_path / "adapter")
