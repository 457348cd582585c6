"""Traces of OLMo 2, Gemma 1 and Gemma 2: gradients of every parameter, finite differences, attention maps, the lens."""
import functools

import numpy as np
import pytest

from minillm import LlamaConfig, select
from minillm.models.load import model_class
from minillm.ops.attention import causal_softmax
from minillm.study.trace import numeric, terms
from minillm.study.trace.record import record

PROMPT = [1, 2, 3, 4]
TOKENS, TARGETS = np.array([PROMPT[:-1]]), np.array([PROMPT[1:]])
SHAPE = {"n_layer": 1, "n_head": 4, "n_kv_head": 2, "head_dim": 4, "n_embd": 10, "n_inner": 12, "block_size": 8,
         "vocab_size": 11}
KINDS = {"olmo2": {"qk_norm": True, "pad_token": 9}, "gemma": {"tied": True, "pad_token": 9},
         "gemma2": {"tied": True, "window": 2, "query_size": 3.0, "attention_cap": 0.5, "logit_cap": 2.0}}
each_kind = pytest.mark.parametrize("kind", KINDS)


def model(kind, dtype="float32", ops="auto"):
    config = LlamaConfig(**SHAPE, **KINDS[kind], family=kind)
    made = model_class(config)(config, ops=select(ops))
    made.params.flat[:] += 0.2 * np.random.default_rng(0).standard_normal(made.params.flat.size)
    return made if dtype == "float32" else made.on(made.ops, made.params.astype(dtype))


@functools.cache
def recorded(kind):
    with pytest.MonkeyPatch.context() as patch:                     # fewer numbers are explained and measured
        for module, share in ((numeric, 8), (terms, 50)):
            patch.setattr(module, "WORK", module.WORK / share)
        return record(model(kind), PROMPT)


@each_kind
def test_the_gradients_are_the_models_and_agree_with_finite_differences(kind):
    _, grads = model(kind, "float64", "numpy").loss_and_grads(TOKENS, TARGETS)
    measured = 0
    for row in recorded(kind)["parameters"]:
        about = recorded(kind)["arrays"][row["gradient"]]
        got, want = np.array(about["values"]), grads[row["name"]].ravel()
        assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max(), row["name"]
        if "numeric" in about:
            index, values, bars = about["numeric"].values()
            want = want[slice(None) if index is None else index]
            assert (np.abs(np.array(values) - want) <= np.array(bars) + 1e-7).all()
            measured += len(values)
    assert measured > 25 and {row["name"] for row in recorded(kind)["parameters"]} == set(model(kind).params)


@each_kind
def test_the_lens_ends_with_the_models_own_logits(kind):
    lens = recorded(kind)["lens"]
    assert [found["label"] for found in lens] == ["after the embedding", "model.layers.0 after attention",
                                                  "model.layers.0 after the MLP"]
    logits = model(kind).forward(TOKENS)[0][0, -1]
    top = lens[-1]["positions"][-1]["top"][0]
    assert top["id"] == logits.argmax() and top["logit"] == pytest.approx(logits.max(), rel=1e-5)
    decoded = recorded(kind)["decode"]
    logits = model(kind).forward(np.array([PROMPT]))[0][0, -1]
    assert decoded["next"][0]["id"] == logits.argmax()
    assert decoded["next"][0]["logit"] == pytest.approx(logits.max(), rel=1e-5)


def test_attention_maps_have_the_cap_and_the_window():
    maps = {phase: [found for found in recorded("gemma2")["attention"] if found["phase"] == phase]
            for phase in ("forward", "decode")}
    call = next(call for call in recorded("gemma2")["calls"] if call["function"] == "grouped_attention_forward")
    q, k = (np.array(recorded("gemma2")["arrays"][put["array"]]["values"]).reshape(3, -1, 4)
            for put in call["inputs"][:2])
    for head, found in enumerate(maps["forward"]):
        want = causal_softmax(0.5 * np.tanh(q[:, head] @ k[:, head // 2].T / 2 / 0.5), 2)
        assert np.abs(np.array(found["values"]) - want.ravel()).max() < 1e-5
    for found in maps["decode"]:
        values = np.array(found["values"])
        assert values.sum() == pytest.approx(1, abs=1e-5) and (values[:-2] == 0).all() and np.ptp(values[-2:]) < 0.5


@pytest.mark.parametrize("kind", ["gemma", "gemma2"])
def test_steps_that_are_no_ops_are_in_the_record(kind):
    """The scaled embedding, and 1 + w of every norm, whose gradient is w's."""
    calls = recorded(kind)["calls"]
    scale = next(call for call in calls if call["function"] == "*")
    assert scale["phase"] == "forward" and scale["called"]["text"].startswith("x = math.sqrt(self.config.n_embd) * x")
    norm = next(call for call in calls if call["function"] == "rmsnorm_forward")
    assert norm["where"] == "model.layers.0.input_layernorm"
    gains = [call for call in calls if call["function"] == "+" and call["inputs"][0] == {"name": "x", "value": 1}]
    gains = [call["where"] for call in gains if call["phase"] == "forward"]
    assert len(gains) == {"gemma": 3, "gemma2": 5}[kind] and gains[0] == norm["where"] and gains[-1] == "model.norm"
