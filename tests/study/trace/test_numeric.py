"""Finite differences beside the gradients: within their error bars of the gradient in float64."""
import numpy as np
import pytest
from tracing import PROMPT, array, calls, given, model, recorded

from minillm import GPT, select
from minillm.study.trace import numeric
from minillm.study.trace.record import record

TOKENS, TARGETS = np.array([PROMPT[:-1]]), np.array([PROMPT[1:]])


def measured(found):
    for key, about in found["arrays"].items():
        if "numeric" in about:
            index = about["numeric"]["index"]
            yield key, slice(None) if index is None else index, *map(np.array, list(about["numeric"].values())[1:])


def test_parameters_against_the_gradient_in_float64():
    exact = GPT(model().config, params=model().params.astype(np.float64), ops=select("numpy"))
    _, grads = exact.loss_and_grads(TOKENS, TARGETS)
    names = {row["gradient"]: row["name"] for row in recorded()["parameters"]}
    seen = 0
    for key, index, values, bars in measured(recorded()):
        if key in names:
            off = np.abs(values - grads[names[key]].ravel()[index])
            assert (off <= bars + 1e-8 * np.abs(values) + 1e-15).all(), names[key]
            seen += 1
    assert seen == len(names), "every parameter has some"


def test_every_gradient_agrees_to_the_precision_of_float32():
    of_activations = 0
    for key, index, values, bars in measured(recorded()):
        grads = array(recorded(), key).ravel()
        off = np.abs(values - grads[index])
        assert (off <= bars + 2e-5 * np.abs(grads).max()).all(), recorded()["arrays"][key]
        assert (bars < 1e-4 * max(1e-3, np.abs(grads).max())).all()
        of_activations += recorded()["arrays"][recorded()["arrays"][key]["of"]]["kind"] != "parameter"
    assert of_activations >= 20


def test_inside_of_composite_ops_too():
    gelu, loss = calls(recorded(), "gelu_forward")[0], calls(recorded(), "cross_entropy_forward")[0]
    for key in (given(gelu, "x"), given(gelu, "out"), given(loss, "logits")):
        assert "numeric" in recorded()["arrays"][recorded()["arrays"][key]["gradient"]]


def test_a_wrong_backward_is_seen(monkeypatch):
    """A gradient that lacks its mean term: the record shows it beside the finite difference."""
    monkeypatch.setattr(numeric, "WORK", 3e9)
    of = model()

    def wrong(dout, cache, into=None):
        dx, *rest = of.ops.layernorm_backward(dout, cache, into=into)
        return dx + np.float32(0.1), *rest
    found = record(of.on(of.ops._replace(layernorm_backward=wrong)), PROMPT)
    key = given(calls(found, "layernorm_backward")[0], "dx")
    # h.0.ln_1's input is the embedding, which the residual stream reads as well: its whole gradient is the sum
    total = found["arrays"][found["arrays"][key]["of"]]["gradient"]
    about = found["arrays"][total]["numeric"]
    index = slice(None) if about["index"] is None else about["index"]
    off = np.abs(np.array(about["values"]) - array(found, total).ravel()[index])
    assert off == pytest.approx(0.1, abs=1e-3)
