"""Attention maps are those of the reference; the last line of the logit lens is the model's own output."""
import numpy as np
from tracing import PROMPT, array, calls, given, model, recorded

from minillm.ops.attention import attention_forward
from minillm.study.trace import lens


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


def test_long_prompts_are_shown_in_part(monkeypatch):
    monkeypatch.setattr(lens, "NUMBERS", 8 * 9)
    monkeypatch.setattr(lens, "WIDE", 3)
    call = calls(recorded(), "attention_forward")[0]
    seen = type("Seen", (), {"calls": [dict(call)], "live": {
        put["array"]: array(recorded(), put["array"]) for put in call["inputs"] if "array" in put}})
    row = lens.attention_maps(seen)[0]
    assert row["queries"] == row["keys"] == [0, 1, 2, 3] or len(row["queries"]) == 3
    assert len(row["values"]) == len(row["queries"]) * len(row["keys"])
