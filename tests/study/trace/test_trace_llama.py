"""A trace of a Llama: its gradients, finite differences, attention maps, lens and layers; the command."""
import functools

import numpy as np
import pytest

from minillm import Llama, LlamaConfig, Tokenizer, select
from minillm.__main__ import main
from minillm.ops.attention import causal_softmax
from minillm.study.trace import numeric, terms
from minillm.study.trace.record import record

PROMPT = [1, 2, 3, 4]
TOKENS, TARGETS = np.array([PROMPT[:-1]]), np.array([PROMPT[1:]])


def model(dtype="float32", ops="auto"):
    config = LlamaConfig(n_layer=1, n_head=4, n_kv_head=2, head_dim=4, n_embd=10, n_inner=12, block_size=8,
                         vocab_size=11, family="qwen3", qk_norm=True, tied=True)
    made = Llama(config, ops=select(ops))
    made.params.flat[:] += 0.2 * np.random.default_rng(0).standard_normal(made.params.flat.size)
    return made if dtype == "float32" else Llama(config, ops=select(ops), params=made.params.astype(dtype))


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    """Fewer numbers are explained and measured."""
    for module, share in ((numeric, 8), (terms, 50)):
        monkeypatch.setattr(module, "WORK", module.WORK / share)


@functools.cache
def recorded():
    return record(model(), PROMPT)


def test_the_gradients_are_the_models_and_agree_with_finite_differences():
    _, grads = model("float64", "numpy").loss_and_grads(TOKENS, TARGETS)
    measured = 0
    for row in recorded()["parameters"]:
        about = recorded()["arrays"][row["gradient"]]
        got, want = np.array(about["values"]), grads[row["name"]].ravel()
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), row["name"]
        index, values, bars = about["numeric"].values()
        assert (np.abs(np.array(values) - want[slice(None) if index is None else index]) <= np.array(bars) + 1e-7).all()
        measured += len(values)
    assert measured > 25 and {row["name"] for row in recorded()["parameters"]} == set(model().params)


def test_attention_maps_are_those_of_each_query_head():
    maps = [found for found in recorded()["attention"] if found["phase"] == "forward"]
    assert [found["head"] for found in maps] == [0, 1, 2, 3]
    call = next(call for call in recorded()["calls"] if call["function"] == "grouped_attention_forward")
    q, k = (np.array(recorded()["arrays"][put["array"]]["values"]).reshape(3, -1, 4) for put in call["inputs"][:2])
    for head, found in enumerate(maps):
        want = causal_softmax(q[:, head] @ k[:, head // 2].T / 2)
        assert np.abs(np.array(found["values"]) - want.ravel()).max() < 1e-5
    last = [found for found in recorded()["attention"] if found["phase"] == "decode"]
    assert len(last) == 4 and all(np.sum(found["values"]) == pytest.approx(1, abs=1e-5) for found in last)


def test_layers_and_the_lens():
    wheres = {call["op"]: call["where"] for call in recorded()["calls"] if call["phase"] == "forward" and call["op"]}
    assert wheres["grouped_attention"] == wheres["rope"] == "model.layers.0.self_attn"
    assert wheres["swiglu"] == "model.layers.0.mlp"
    labels = [found["label"] for found in recorded()["lens"]]
    assert labels == ["after the embedding", "model.layers.0 after attention", "model.layers.0 after the MLP"]
    logits = model().forward(TOKENS)[0][0, -1]
    top = recorded()["lens"][-1]["positions"][-1]["top"][0]
    assert top["id"] == logits.argmax() and top["logit"] == pytest.approx(logits.max(), rel=1e-5)


def test_the_command(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat. " * 20], 262, stop_early=True)
    config = LlamaConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=4, n_embd=8, n_inner=8, block_size=8,
                         vocab_size=tokenizer.vocab_size)
    Llama(config).save_pretrained(tmp_path / "run")
    tokenizer.save(tmp_path / "run")
    assert main(["trace", str(tmp_path / "run"), "-p", "the cat", "-o", str(tmp_path / "trace.html")]) == 0
    page = (tmp_path / "trace.html").read_text()
    assert "self_attn.q_proj" in page and "grouped_attention" in page and len(page) < 2e6
