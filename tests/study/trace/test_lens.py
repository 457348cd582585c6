"""Attention maps are those of the reference; the last line of the logit lens is the model's own output."""
import numpy as np
from tracing import PROMPT, array, calls, given, model, recorded

from minillm.ops.attention import attention_forward
from minillm.study.trace import lens, numeric
from minillm.study.trace.record import record


def test_attention_maps():
    maps = recorded()["attention"]
    forward = [row for row in maps if row["phase"] == "forward"]
    assert [(row["layer"], row["head"]) for row in forward] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for layer, call in enumerate(calls(recorded(), "attention_forward")):
        P = attention_forward(array(recorded(), given(call, "qkv")), 2)[1][2]
        for head in range(2):
            row = forward[2 * layer + head]
            assert np.array_equal(np.array(row["values"], np.float32).reshape(4, 4), P[0, head])
            assert row["queries"] == row["keys"] == [0, 1, 2, 3]


def test_decoding_attends_from_the_last_token_to_all():
    rows = [row for row in recorded()["attention"] if row["phase"] == "decode"]
    assert len(rows) == 4
    for row in rows:
        assert row["queries"] == [4] and row["keys"] == [0, 1, 2, 3, 4] and abs(sum(row["values"]) - 1) < 1e-6


def test_the_last_layers_lens_is_the_models_output():
    found = recorded()["lens"]
    assert [row["label"] for row in found] == ["after the embedding", "h.0 after attention", "h.0 after the MLP",
                                               "h.1 after attention", "h.1 after the MLP"]
    logits, _ = model().forward(np.array([PROMPT[:-1]]))
    P = model().ops.softmax_forward(logits[0])[0]
    for row, p, position in zip(logits[0], P, found[-1]["positions"], strict=True):
        assert [best["id"] for best in position["top"]] == np.argsort(-row)[:5].tolist()
        assert [np.float32(best["probability"]) for best in position["top"]] == np.sort(p)[::-1][:5].tolist()
    first = [best["id"] for position in found[0]["positions"] for best in position["top"]]
    assert first != [best["id"] for position in found[-1]["positions"] for best in position["top"]]


def test_of_long_prompts_the_end_is_shown(monkeypatch):
    for name, value in {"NUMBERS": 4 * 9, "WIDE": 3, "POSITIONS": 2}.items():
        monkeypatch.setattr(lens, name, value)
    monkeypatch.setattr(numeric, "WORK", 1e7)
    found = record(model(), PROMPT)
    logits, _ = model().forward(np.array([PROMPT[:-1]]))
    assert [row["position"] for row in found["lens"][-1]["positions"]] == [2, 3]
    assert [row["top"][0]["id"] for row in found["lens"][-1]["positions"]] == logits[0, 2:].argmax(-1).tolist()
    qkv = array(recorded(), given(calls(recorded(), "attention_forward")[0], "qkv"))
    row = found["attention"][1]
    assert row["queries"] == row["keys"] and row["queries"][-1] == 3
    P = attention_forward(qkv, 2)[1][2][0, 1][np.ix_(row["queries"], row["keys"])]
    assert np.array_equal(np.array(row["values"], np.float32), P.ravel())
