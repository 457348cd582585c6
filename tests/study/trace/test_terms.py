"""What a gradient is the sum of: the terms that are shown and the rest add up to it."""
import numpy as np
import pytest
from tracing import PROMPT, SHAPE, array, calls, given, model, recorded

from minillm.study.trace import numeric, terms
from minillm.study.trace.record import record


def explained(found):
    for key, about in found["arrays"].items():
        if "contributors" in about:
            parts = about["contributors"]
            yield key, range(np.prod(about["shape"])) if parts["index"] is None else parts["index"], parts


def test_they_add_up_to_the_gradient():
    count = 0
    for key, index, parts in explained(recorded()):
        grads = array(recorded(), key).ravel()[list(index)]
        sums = [sum(top[1::2]) + rest for top, (_, rest) in zip(parts["top"], parts["rest"], strict=True)]
        assert np.allclose(sums, grads, rtol=1e-5, atol=2e-6 * np.abs(array(recorded(), key)).max()), key
        count += len(index)
    assert count > 3000


def test_every_gradient_that_a_call_makes_is_explained():
    made = {put["array"] for call in recorded()["calls"] if call["phase"] == "backward" for put in call["outputs"]
            if recorded()["arrays"][put["array"]]["kind"] == "gradient"}
    assert made == {key for key, *_ in explained(recorded())}


def test_of_a_linear_layer_they_are_the_products():
    found = recorded()
    back = calls(found, "linear_backward")[-1]                          # of h.0.attn.c_attn
    forward = found["calls"][back["partner"]]
    x, dout = array(found, given(forward, "x")), array(found, given(back, "dout"))
    parts = found["arrays"][given(back, "dweight")]["contributors"]
    assert parts["by"] == "element" and parts["arrays"] == [given(back, "dout")]
    for place, top in zip(parts["index"] or range(8 * 24), parts["top"]):
        i, j = divmod(place, 24)
        products = {n * 24 + j: x[0, n, i] * dout[0, n, j] for n in range(4)}
        assert {at: np.float32(term) for at, term in zip(top[::2], top[1::2])} == {
            at: product for at, product in products.items() if product}
        assert sorted(map(abs, top[1::2]), reverse=True) == [*map(abs, top[1::2])]


def test_the_tied_embedding_has_the_heads_part_and_that_of_each_token():
    found = recorded()
    about = found["arrays"][given(calls(found, "embedding_backward")[0], "dwte")]
    before = array(found, about["contributors"]["before"]).ravel()
    dout = array(found, about["contributors"]["arrays"][0])[0]
    index = about["contributors"]["index"] or range(19 * 8)
    for place, top in zip(index, about["contributors"]["top"]):
        token, column = divmod(place, 8)
        wanted = {-1: before[place]} | {8 * t + column: dout[t, column] for t in range(4) if PROMPT[t] == token}
        assert {at: np.float32(term) for at, term in zip(top[::2], top[1::2])} == wanted


@pytest.mark.parametrize("limit", ["CALL", "PAGES"])
def test_where_that_is_dear_few_elements_are_explained_to_the_same_sum(monkeypatch, limit):
    """By complex steps, or by positions."""
    monkeypatch.setattr(numeric, "WORK", 1e7)
    monkeypatch.setattr(terms, "WORK", 1)
    monkeypatch.setattr(terms, limit, {"CALL": 1e9, "PAGES": 1e12}[limit])
    found = record(model(shape=SHAPE), PROMPT)
    kinds = set()
    for key, index, parts in explained(found):
        grads = array(found, key).ravel()
        sums = np.array([sum(top[1::2]) + rest for top, (_, rest) in zip(parts["top"], parts["rest"], strict=True)])
        assert np.allclose(sums, grads[list(index)], rtol=1e-4, atol=1e-5 * np.abs(grads).max()), key
        kinds.add(parts["by"])
    assert kinds >= {{"CALL": "position", "PAGES": "element"}[limit]}
