"""Lines of source: those that are there, and that compute what they are said to."""
from pathlib import Path

from tracing import calls, recorded

import minillm

ROOT = Path(minillm.__file__).parents[1]


def lines():
    for call in recorded()["calls"]:
        yield call["called"]
        yield from (put["source"] for put in call["outputs"] if "source" in put)


def test_each_line_is_what_the_file_has_there():
    seen = set()
    for line in lines():
        assert line["file"].startswith("minillm/")
        text = (ROOT / line["file"]).read_text(encoding="utf-8").splitlines()[line["line"] - 1]
        assert text.strip().startswith(line["text"].splitlines()[0]) and line["text"]
        seen.add((line["file"], line["line"]))
    assert len(seen) > 40


def test_results_and_the_lines_that_compute_them():
    (back, *_), (head, *_) = calls(recorded(), "linear_backward"), calls(recorded(), "layernorm_backward")
    texts = {put["name"]: put["source"]["text"] for put in back["outputs"]}
    assert texts == {"dx": "dx = rows(dout) @ weight.T", "dweight": "dweight = rows(x).T @ rows(dout)",
                     "dbias": "dbias = rows(dout).sum(axis=0)"}
    assert "xhat * (g * xhat)" in head["outputs"][0]["source"]["text"]
    (embedding,) = calls(recorded(), "embedding_backward")
    assert "np.add.at" in embedding["outputs"][0]["source"]["text"]
    (attention, *_) = calls(recorded(), "attention_forward")
    assert "merge_heads(P @ v)" in attention["outputs"][0]["source"]["text"]


def test_calls_are_where_the_model_makes_them():
    texts = [call["called"]["text"] for call in recorded()["calls"] if call["parent"] is None and call["op"]]
    for text, call in zip(texts, [call for call in recorded()["calls"] if call["parent"] is None and call["op"]]):
        assert any(word in text for word in (call["function"], call["op"], "self.update", "sum_squares")), text
