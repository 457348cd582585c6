"""`minillm verify`: healthy models pass on every backend, and each planted fault fails the check that is meant for it,
which names the layer."""
import json

import numpy as np
import pytest

from minillm import GPT, GPTConfig, select
from minillm.__main__ import main
from minillm.kernels import select as registry
from minillm.models import gpt2
from minillm.models.adapted import LoraModel
from minillm.models.kv_cache import KVCache
from minillm.models.quantized import quantize, save_quantized
from minillm.ops.attention import merge_heads, split_heads
from minillm.train.optim import AdamW
from minillm.workbench import verify as checks
from minillm.workbench.verify import CHECKS, finding, subject_of, verify, verify_model

L = 3
CONFIG = GPTConfig(n_layer=L, n_head=2, n_embd=16, block_size=40, vocab_size=50)
every_layer = pytest.mark.parametrize("i", range(L))
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


def verdicts(rows):
    return {row["check"]: row["passed"] for row in rows}


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


# ---- healthy models ----

@pytest.mark.parametrize("backend", ["numpy", "auto", pytest.param("cpu/bf16", marks=with_kernels)])
def test_a_healthy_model_passes(backend, tmp_path):
    model = rough_model(backend)
    model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rows = verify(tmp_path, backend)
    assert False not in verdicts(rows).values(), rows
    skipped = {row["check"]: row["figure"] for row in rows if row["passed"] is None}
    assert set(skipped) <= {"adapter", "transformers", "thread invariance", "reference ops"}
    assert all(text.startswith("skipped: ") for text in skipped.values())
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("config", [GPTConfig(1, 1, 4, 1, 2), GPTConfig(1, 2, 4, 2, 3, 0.5), GPTConfig(2, 1, 8, 3, 9)],
                         ids=str)
def test_the_smallest_models_pass(config):
    rows = verify_model(rough_model(config=config))
    assert False not in verdicts(rows).values(), rows


def test_adapters_and_quantized_models(tmp_path):
    base = rough_model()
    base.save_pretrained(tmp_path / "base")
    lora = LoraModel(base, 2, seed=3, name="moved/base")
    lora.params.flat[:] += 0.1
    for folder in ("run", "run/last"):
        lora.save_pretrained(tmp_path / folder)
    rows = verify(tmp_path / "run", "numpy")
    assert verdicts(rows)["adapter"] and False not in verdicts(rows).values(), rows
    lora.params.flat[:] *= 1.5
    lora.merged().save_pretrained(tmp_path / "run")                 # another adapter than the one beside it
    assert verdicts(verify(tmp_path / "run", "numpy"))["adapter"] is False
    save_quantized(tmp_path / "int8", quantize(base))
    rows = verify(tmp_path / "int8", "numpy")
    assert verdicts(rows)["causal"] and verdicts(rows)["save and load"] and verdicts(rows)["resume"] is None
    assert False not in verdicts(rows).values(), rows


# ---- leaks ----

def attention_with(mask):
    """Attention under another mask (T, T): True where a token may look."""
    def attend(qkv, n_head, out):
        q, k, v = split_heads(qkv, n_head)
        S = np.where(mask(qkv.shape[1]), q @ k.swapaxes(-1, -2), -np.inf)
        P = np.exp(S - S.max(axis=-1, keepdims=True))
        return merge_heads(P / P.sum(axis=-1, keepdims=True) @ v)
    return attend


LEAKS = {           # fault: (op, what it does, calls in a layer, which of them, the layer that is named)
    "mask off by one": ("attention_forward", attention_with(lambda T: np.tri(T, k=1, dtype=bool)), 1, 0,
                        "h.{i}.attn (attention)"),
    "no mask": ("attention_forward", attention_with(lambda T: np.ones((T, T), bool)), 1, 0, "h.{i}.attn (attention)"),
    "queries see the last token": ("linear_forward", lambda x, w, b, out: out + x[:, -1:].mean(), 2, 0,
                                   "h.{i}.attn.c_attn (linear)"),
    "projection over time": ("linear_forward", lambda x, w, b, out: out[:, ::-1].copy(), 2, 1,
                             "h.{i}.attn.c_proj (linear)"),
    "LayerNorm over time": ("residual_layernorm_forward", lambda *args: (args[-1][0], args[-1][1] - args[-1][1].mean(1)
                                                                         ), 2, 0,
                            "h.{i}.ln_2 (residual_layernorm)"),
    "mlp mixes tokens": ("mlp_forward", lambda x, *args: args[-1] + 1e-3 * np.roll(args[-1], -1, axis=1), 1, 0,
                         "h.{i}.mlp.c_fc (mlp)"),
}


@every_layer
@pytest.mark.parametrize("fault", LEAKS)
def test_a_leak_is_named_by_its_layer(fault, i):
    op, wrong, calls, call, layer = LEAKS[fault]
    result = failed(checks.causal, planted(rough_model(), op, wrong, calls * i + call, calls * L), "leak")
    assert result.layer == layer.format(i=i) and f"first in {result.layer}: the output at " in result.figure


@with_kernels
def test_a_leak_of_one_bit_between_compiled_kernels():
    def last_bit(qkv, n_head, out):
        if qkv[0, 20, 0] > 0:
            out[0, 19, 5] = np.nextafter(out[0, 19, 5], np.float32(9))
        return out
    model = planted(rough_model("cpu"), "attention_forward", last_bit, 1, L)
    result = failed(checks.causal, model, "the output at 19 changes")
    assert result.layer == "h.1.attn (attention)"


def test_leaks_at_both_ends():
    shift = lambda tokens, *args: args[0][np.roll(tokens, -1)] + args[1][:tokens.shape[1]]             # noqa: E731
    assert failed(checks.causal, planted(rough_model(), "embedding_forward", shift)).layer == "embedding"
    norm = planted(rough_model(), "residual_layernorm_forward", lambda *args: tuple(a[:, ::-1].copy() for a in args[-1]),
                   2 * L - 1, 2 * L)
    assert failed(checks.causal, norm).layer == "ln_f (residual_layernorm)"
    model = rough_model()
    model.ops = model.ops._replace(head=lambda x, wte: x[:, ::-1] @ wte.T)
    assert failed(checks.causal, model).layer == "head"


def test_a_leak_in_the_models_own_code(monkeypatch):
    """No op gives it away, only the logits do."""
    class Peeking(GPT):
        def forward(self, tokens):
            logits, cache = super().forward(tokens)
            return logits + logits[:, ::-1], cache
    assert failed(checks.causal, Peeking(CONFIG, ops=select("numpy"))).layer == "logits"


def test_a_blind_model_is_no_proof():
    model = rough_model()
    model.params.flat[:] = 0
    failed(checks.causal, model, "blind")


@pytest.mark.parametrize("by", [1, -1])
def test_shifted_positions(by):
    def shifted(tokens, wte, wpe, start, out=None):
        return wte[tokens] + np.roll(wpe, by, axis=0)[:tokens.shape[1]]
    model = planted(rough_model(), "embedding_forward", lambda tokens, wte, wpe, *rest: shifted(tokens, wte, wpe, 0))
    assert failed(checks.positions, model, "positions are shifted").layer == "embedding"
    assert found(checks.causal, model).passed


# ---- other faults: each is found by its check, and the causal check does not mistake it for a leak ----

def test_a_row_that_depends_on_its_batch():
    model = planted(rough_model(), "mlp_forward", lambda x, *args: args[-1] + x.mean(axis=0))
    failed(checks.batch_invariance, model, "row 0")
    assert found(checks.causal, model).passed


@pytest.mark.parametrize("name", ["truncate", "attend"])
def test_a_stale_cache(monkeypatch, name):
    right = getattr(KVCache, name)

    def truncate(self, length):
        self.keys[1] += 1e-2
        right(self, length)

    def attend(self, ops, layer, rows, qkv):
        kept = self.keys[1].copy()
        out = right(self, ops, layer, rows, qkv)
        self.keys[1] = kept
        return out
    monkeypatch.setattr(KVCache, name, {"truncate": truncate, "attend": attend}[name])
    failed(checks.cached_decoding, rough_model(), {"truncate": "after rolling back", "attend": "in pieces"}[name])


def test_rows_of_the_cache_that_are_mixed_up(monkeypatch):
    right = KVCache.check_rows
    monkeypatch.setattr(KVCache, "check_rows", lambda self, rows, count: np.sort(right(self, rows, count)))
    failed(checks.cached_decoding, rough_model(), "rows in another order")


def test_padding_that_counts():
    model = planted(rough_model(), "linear_cross_entropy_forward", lambda *args: np.maximum(args[-1], 1e-6))
    failed(checks.padding_invariance, model, "the filling of row 0")
    model = planted(rough_model(), "attention_forward", lambda qkv, n_head, out: out / qkv.shape[1])
    failed(checks.padding_invariance, model, "losses of row 0")


def test_packed_documents_that_see_each_other(monkeypatch):
    right = gpt2.apart
    monkeypatch.setattr(gpt2, "apart", lambda ops, lengths: right(ops, lengths)._replace(
        attention_forward=ops.attention_forward))
    failed(checks.packing_invariance, rough_model(config=GPTConfig(2, 2, 16, 40, 50)), "losses of document 1")


@with_kernels
def test_a_kernel_that_depends_on_the_threads():
    model = planted(rough_model("cpu"), "mlp_forward", lambda x, *args: args[-1] + registry._cpp.max_threads() * 1e-5)
    before = registry._cpp.max_threads()
    failed(checks.thread_invariance, model, "on 2 threads")
    assert registry._cpp.max_threads() == before


def test_lost_accumulation():
    model = rough_model()
    right = model.ops.linear_backward

    def overwriting(dout, cache, into):
        for array in into:
            array[:] = 0
        return right(dout, cache, into)
    model.ops = model.ops._replace(linear_backward=overwriting)
    failed(checks.accumulation, model, "gradient of h.0.attn.c_attn.weight")
    failed(checks.rank_invariance, model, "gradient of h.0.attn.c_attn.weight")


def test_a_mean_of_means(monkeypatch):
    right = GPT.loss_and_grads
    monkeypatch.setattr(GPT, "loss_and_grads", lambda self, *args, count=None, **kwargs: right(self, *args, **kwargs))
    failed(checks.accumulation, rough_model(), "loss")


@pytest.mark.parametrize("op", ["head", "linear_cross_entropy_forward"])
def test_an_untied_head(op):
    model = rough_model()
    other, right = model.params["wte.weight"].copy(), getattr(model.ops, op)
    model.ops = model.ops._replace(**{op: lambda x, wte, *rest: right(x, other, *rest)})
    failed(checks.tied_weights, model, ("logits" if op == "head" else "losses") + " of token 49 do not follow row 49")


def test_a_copy_of_wte_as_the_head():
    class Untied(GPT):
        def forward(self, tokens):
            x, caches = self.hidden(tokens)
            return self.ops.head(x, self.params["wte.weight"].copy()), caches
    failed(checks.tied_weights, Untied(CONFIG, ops=select("numpy")), "head: reads another matrix than wte")


@pytest.mark.parametrize("lost", ["nothing", "everything"])
def test_a_gradient_of_tied_weights_that_is_lost(lost):
    model = rough_model()
    right = model.ops.embedding_backward

    def wrong(dout, cache, into):
        if lost == "nothing":                   # of its own, but what the head has added
            into[0][:] = 0
            right(dout, cache, into)
    model.ops = model.ops._replace(embedding_backward=wrong)
    failed(checks.tied_weights, model, "head plus embedding" if lost == "nothing" else "no gradient from the embedding")


@pytest.mark.parametrize("number, words", [(0, "row 25 of wte"), (1, "row 39 of wpe")])
def test_unused_rows_with_a_gradient(number, words):
    model = rough_model()
    right = model.ops.embedding_backward

    def wrong(dout, cache, into):
        right(dout, cache, into)
        into[number][:] += 1e-12
    model.ops = model.ops._replace(embedding_backward=wrong)
    failed(checks.unused_tokens, model, words)


def test_ignored_targets_with_a_gradient():
    model = rough_model()
    right = model.ops.linear_cross_entropy_backward
    model.ops = model.ops._replace(linear_cross_entropy_backward=lambda dout, cache, into: (
        right(dout, cache, into)[0] + np.float32(1e-6), None))
    failed(checks.unused_tokens, model, "all targets ignored")


def test_dropout_without_its_key():
    model, rng = rough_model(), np.random.default_rng(0)
    right = model.ops.dropout_forward
    model.ops = model.ops._replace(dropout_forward=lambda x, p, key: right(x, p, (key[0], 0, key[2])))
    failed(checks.dropout_determinism, model, "another seed, step or micro-batch")
    model.ops = model.ops._replace(dropout_forward=lambda x, p, key: right(x, p, (int(rng.integers(2 ** 31)), 0, 0)))
    failed(checks.dropout_determinism, model, "loss: 1 of 1 numbers differ")


def test_weights_that_are_saved_rounded(monkeypatch):
    right = GPT.save_pretrained

    def rounded(self, directory, eot_token=None):
        right(self.on(self.ops, self.params.astype(np.float16).astype(np.float32)), directory, eot_token)
    monkeypatch.setattr(GPT, "save_pretrained", rounded)
    failed(checks.save_and_load, rough_model(), "wte.weight")
    failed(checks.resume, rough_model(), "tensors differ after resuming: wte.weight")


@pytest.mark.parametrize("lost", ["m", "v", "steps"])
def test_a_checkpoint_that_loses_something(monkeypatch, lost):
    right = checks.restore

    def forgetful(run, learner, optimizer, *rest, **settings):
        kept = right(run, learner, optimizer, *rest, **settings)
        if lost == "steps":
            optimizer.steps = 0
        else:
            getattr(optimizer, lost).flat[:] = 0
        return kept
    monkeypatch.setattr(checks, "restore", forgetful)
    failed(checks.resume, rough_model(), "after resuming")


def test_resuming_begins_with_the_runs_own_checkpoint(tmp_path):
    model = rough_model()
    optimizer = AdamW(model.params)
    optimizer.m.flat[:], optimizer.v.flat[:], optimizer.steps = 1e-3, 1e-4, 7
    state = {"step": 7, "seed": 5, "data": "abc", "settings": {"lr": 1}, "best": {"step": 7}}
    model.save_pretrained(tmp_path)
    checks.save(tmp_path, model, optimizer, state, None)
    for directory in (tmp_path, tmp_path / "last"):
        result = found(checks.resume, model, directory)
        assert result.passed and result.figure.startswith("step 9"), result
    path = tmp_path / "last" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    failed(checks.resume, model, "damaged", tmp_path)


def test_ops_that_are_not_the_reference():
    model = planted(rough_model(), "mlp_forward", lambda x, *args: args[-1] * np.float32(1.01))
    assert found(checks.reference_ops, model).passed is None                # it says it is NumPy's
    model.ops = model.ops._replace(backends={**model.ops.backends, "mlp": "file:my.c"})
    failed(checks.reference_ops, model, "logits")


def test_transformers_agrees(tmp_path):
    pytest.importorskip("transformers")
    model = rough_model()
    model.save_pretrained(tmp_path)
    assert found(checks.transformers, model, tmp_path).passed
    failed(checks.transformers, planted(model, "mlp_forward", lambda x, *args: args[-1] * np.float32(1.01)), "logits",
           tmp_path)


# ---- the table ----

def test_an_error_is_a_failure_and_little_memory_is_not(monkeypatch):
    def missing(*args):
        raise KeyError("nothing")
    model = rough_model()
    model.ops = model.ops._replace(head=missing)
    failed(checks.causal, model, "KeyError: 'nothing'")
    monkeypatch.setattr(checks, "free_bytes", lambda: 1000)
    rows = verify_model(rough_model())
    assert verdicts(rows)["resume"] is None and verdicts(rows)["causal"]
    assert "free" in next(row["figure"] for row in rows if row["check"] == "resume")


def test_comparing():
    one = np.float32([1, 0])
    assert checks.compare({"x": (one, one)}, 0).passed
    assert not checks.compare({"x": (one, np.float32([1, -0.0]))}, 0).passed              # not the same bits
    assert checks.compare({"x": (one, one + np.float32(1e-5))}, 1e-4).passed
    assert not checks.compare({"big": (1e3 * one, 1e3 * one), "small": (one * 0.1, one)}, 1e-1).passed
    assert not checks.compare({"x": (one * np.nan, one)}, 1e-4).passed
    assert not checks.compare({"x": (one[:1], one)}, 1e-4).passed


def test_the_command(tmp_path, capsys, monkeypatch):
    rough_model().save_pretrained(tmp_path)
    assert main(["verify", str(tmp_path), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert "PASS  causal" in out and "0 failed" in out and "skip  adapter" in out
    from minillm import ops
    right = ops.attention_forward
    monkeypatch.setattr(ops, "attention_forward", lambda qkv, n_head: (attention_with(
        lambda T: np.ones((T, T), bool))(qkv, n_head, None), right(qkv, n_head)[1]))
    assert main(["verify", str(tmp_path), "--backend", "numpy", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(CHECKS) and not rows[0]["passed"] and rows[0]["layer"] == "h.0.attn (attention)"
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    assert "no such directory" in capsys.readouterr().err
