"""The record of a step holds the package's own numbers, bit for bit."""
import json

import numpy as np
import pytest
from tracing import PROMPT, SHAPE, array, calls, given, model, recorded, training

from minillm import AdamW, select
from minillm.kernels.select import OPS
from minillm.models.adapted import LoraModel
from minillm.models.quantized import quantize
from minillm.study.trace import numeric, terms
from minillm.study.trace.record import record
from minillm.train.nonfinite import NonFiniteError
from minillm.train.optim import clip_scale, global_norm

TOKENS, TARGETS = np.array([PROMPT[:-1]]), np.array([PROMPT[1:]])


def parameters():
    return {row["name"]: row for row in recorded()["parameters"]}


def test_gradients_are_those_of_the_model_bit_for_bit():
    loss, grads = model().loss_and_grads(TOKENS, TARGETS)
    assert recorded()["training"]["loss_before"] == loss
    assert set(parameters()) == set(grads)
    for name, row in parameters().items():
        assert np.array_equal(array(recorded(), row["gradient"]), grads[name]), name
        assert np.array_equal(array(recorded(), row["value"]), model().params[name]), name


def test_the_update_is_that_of_the_optimizer_bit_for_bit():
    other, state = model(), training(model())
    _, grads = other.loss_and_grads(TOKENS, TARGETS)
    optimizer = AdamW(other.params, eps=state.config.eps, weight_decay=0.2, ops=other.ops)
    optimizer.m.flat[:], optimizer.v.flat[:], optimizer.steps = state.m.flat, state.v.flat, 3
    norm = global_norm(grads, other.ops)
    assert recorded()["training"]["norm"] == norm > 0.5
    optimizer.step(grads, 1e-2, clip_scale(norm, 0.5))
    for name, row in parameters().items():
        for label, values in {"m": state.m, "v": state.v, "m_after": optimizer.m, "v_after": optimizer.v,
                              "after": other.params}.items():
            assert np.array_equal(np.array(row[label], np.float32), values[name].ravel()), (name, label)
        moved = other.params[name].ravel() - model().params[name].ravel()
        assert np.array_equal(np.array(row["update"], np.float32), moved)
        assert row["decayed"] is (model().params[name].ndim == 2)
    assert recorded()["training"]["loss_after"] == other.loss_and_grads(TOKENS, TARGETS)[0]


def test_logits_of_decoding_and_of_the_loss_are_the_models():
    found = recorded()
    of, ids = model(), np.array([PROMPT])
    kept = of.new_cache(1)
    of.decode(ids[:, :-1], kept)
    logits = of.decode(ids[:, -1:], kept)
    assert np.array_equal(array(found, found["decode"]["logits"]), logits)
    assert np.allclose(logits[0, -1], of.forward(ids)[0][0, -1], atol=1e-5)
    of_loss = given(calls(found, "cross_entropy_forward", "forward")[0], "logits")
    assert np.array_equal(array(found, of_loss), model().forward(TOKENS)[0][0])
    losses, _ = model().losses(TOKENS, TARGETS)
    assert np.array_equal(array(found, found["training"]["losses"]), losses)
    best = found["decode"]["next"][0]
    assert best["id"] == logits[0, -1].argmax() and np.float32(best["logit"]) == logits[0, -1].max()


def test_every_activation_is_what_its_op_gives_for_its_inputs():
    found, ops, checked = recorded(), model().ops, 0
    for call in found["calls"]:
        if call["op"] and OPS[call["op"]].kind in ("pair", "decode") and call["function"].endswith(("_forward", "e")):
            values = [array(found, put["array"]) if "array" in put else put["value"] for put in call["inputs"]]
            out = getattr(ops, call["function"])(*shaped(call, values))
            out = out[0] if OPS[call["op"]].kind == "pair" else out
            for put, value in zip(call["outputs"], out if isinstance(out, tuple) else (out,)):
                assert np.array_equal(array(found, put["array"]).ravel(), value.ravel()), call["id"]
                checked += 1
    assert checked > 40


def shaped(call, values):
    """A row of tokens as the loss takes it: (B, T, C) -> (B*T, C)."""
    flat = call["op"] == "linear_cross_entropy"
    return [values[0].reshape(-1, values[0].shape[-1]), *values[1:]] if flat else values


def test_the_model_is_not_changed():
    of = model()
    before, grads_before = of.params.flat.copy(), of.loss_and_grads(TOKENS, TARGETS)[1].flat
    few = pytest.MonkeyPatch()
    few.setattr(numeric, "WORK", 1e7)
    record(of, PROMPT, training(of))
    few.undo()
    assert np.array_equal(of.params.flat, before)
    assert np.array_equal(of.loss_and_grads(TOKENS, TARGETS)[1].flat, grads_before)


def test_the_graph_holds_together():
    found = recorded()
    json.dumps(found, allow_nan=False)
    for place, call in enumerate(found["calls"]):
        assert call["id"] == place
        if call["partner"] is not None:
            assert found["calls"][call["partner"]]["partner"] == place
        for put in call["inputs"]:
            if "array" in put:
                about = found["arrays"][put["array"]]
                assert place in about["used_by"]
                assert about["made_by"] is None or about["made_by"] < place
    for key, about in found["arrays"].items():
        assert about["id"] == key
        if about["gradient"]:
            assert np.prod(found["arrays"][about["gradient"]]["shape"]) == np.prod(about["shape"])
    forward = [call for call in found["calls"] if call["phase"] == "forward" and call["op"] and call["parent"] is None]
    assert all(call["partner"] for call in forward), "each op of the forward has its backward"


def test_a_gradient_is_what_came_back_from_all_who_read_the_array():
    """From its only reader, or the sum (the embedding's output goes into a LayerNorm and into the residual stream)."""
    found, alone = recorded(), 0
    tops = {call["id"]: call for call in found["calls"] if call["op"] and call["parent"] is None}
    for key, about in found["arrays"].items():
        readers = [tops[number] for number in about["used_by"] if number in tops and tops[number]["phase"] == "forward"]
        back = [(found["calls"][call["partner"]], put["name"]) for call in readers for put in call["inputs"]
                if put.get("array") == key]
        if about["kind"] == "activation" and len(back) == 1:
            assert about["gradient"] == given(back[0][0], f"d{back[0][1]}"), about["role"]
            alone += 1
        elif about["kind"] == "activation" and back:
            parts = [array(found, given(call, f"d{name}")) for call, name in back]
            assert len(parts) == 2 and np.array_equal(array(found, about["gradient"]), parts[0] + parts[1])
    assert alone > 10


def test_work_is_counted_by_the_op_table():
    (call,) = calls(recorded(), "linear_forward")[:1]
    assert call["flops"] == 2 * 4 * 8 * 24 and call["bytes"] == 4 * (4 * 8 + 8 * 24 + 24 + 4 * 24)
    assert call["seconds"] > 0
    totals = recorded()["totals"]
    assert totals["backward"]["flops"] == sum(c["flops"] for c in recorded()["calls"]
                                              if c["phase"] == "backward" and c["op"] and c["parent"] is None)


def test_dropout_is_that_of_the_step(monkeypatch):
    monkeypatch.setattr(numeric, "WORK", 1e7)
    of = model(shape=type(SHAPE)(**{**vars(SHAPE), "dropout": 0.3}))
    state = training(of)
    found = record(of, PROMPT, state)
    loss, grads = of.loss_and_grads(TOKENS, TARGETS, key=(0, 3, 0))
    assert found["training"]["loss_before"] == loss != of.loss_and_grads(TOKENS, TARGETS)[0]
    row = next(row for row in found["parameters"] if row["name"] == "wte.weight")
    assert np.array_equal(array(found, row["gradient"]), grads["wte.weight"])


def test_on_numpy_the_numbers_are_numpys(monkeypatch):
    monkeypatch.setattr(numeric, "WORK", 1e7)
    of = model(ops=select("numpy"))
    found = record(of, PROMPT)
    loss, grads = of.loss_and_grads(TOKENS, TARGETS)
    assert found["training"]["loss_before"] == loss
    for row in found["parameters"]:
        assert np.array_equal(array(found, row["gradient"]), grads[row["name"]])


@pytest.mark.parametrize("tokens, words", [([], "at least 2 tokens"), ([1], "at least 2 tokens: one"),
                                           ([1] * 9, "context window of 8 tokens: got 9")])
def test_prompts_that_cannot_be_traced(tokens, words):
    with pytest.raises(ValueError, match=words.split(":")[0]):
        record(model(), tokens)


@pytest.mark.parametrize("of", [lambda: quantize(model()), lambda: LoraModel(model(), 2)])
def test_weights_that_have_no_plain_gradients_are_refused(of):
    with pytest.raises(ValueError, match="plain weights"):
        record(of(), PROMPT)


def test_a_nan_is_named():
    of = model()
    of.params["h.1.ln_2.weight"][3] = np.nan
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"h\.1\.ln_2"):
        record(of, PROMPT)


def test_a_larger_model_is_cut_and_bounded(monkeypatch):
    monkeypatch.setattr(numeric, "WORK", 1e7)
    monkeypatch.setattr(terms, "WORK", 1e7)
    of = model(shape=type(SHAPE)(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=1200))
    found = record(of, PROMPT * 4)
    assert not found["model"]["whole"] and len(json.dumps(found)) < 2e6
    _, grads = of.loss_and_grads(np.array([(PROMPT * 4)[:-1]]), np.array([(PROMPT * 4)[1:]]))
    row = next(row for row in found["parameters"] if row["name"] == "wte.weight")
    cut = found["arrays"][row["gradient"]]
    assert set(PROMPT) <= set(cut["rows"]), "the rows of the prompt's tokens"
    part = grads["wte.weight"][np.ix_(cut["rows"], cut["cols"])]
    assert np.array_equal(np.array(cut["values"], np.float32), part.ravel())
    assert sum(cut["stats"]["histogram"]["counts"]) == grads["wte.weight"].size
    for about in found["arrays"].values():
        for name in {"numeric", "contributors"} & set(about):
            places = about[name]["index"] or range(np.prod(about["shape"]))
            width = about["shape"][-1]
            assert about["whole"] or {place // width for place in places} <= set(about["rows"]), "only what is shown"
