"""The filter on a model's own words, the red team's counts, and the model card."""
import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluate import TOK, model

from minillm.__main__ import main
from minillm.evaluate import safety
from minillm.generation.output_filter import FilteredText, OutputFilter
from minillm.generation.text import TextStream


def through(make, text, stop=()):
    """The pieces that a text makes, token by token, and what is left at the end."""
    stream = make(TOK, stop)
    pieces = [stream.push(token) for token in TOK.encode(text)]
    return pieces, stream.finish()


def test_personal_data_never_goes_out_even_in_pieces():
    text = "Write to jane@mail.example.org today. Then rest"
    pieces, last = through(FilteredText, text)
    assert "".join(pieces) + last == "Write to <EMAIL> today. Then rest"
    assert last == "Then rest" and not any("jane" in piece for piece in pieces)


@given(st.text("ab. \n!é", max_size=60), st.sampled_from([(), ("a.",), ("\n", "b b")]))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_without_finds_the_text_is_that_of_a_plain_stream(text, stop):
    def joined(make):
        pieces, last = through(make, text, stop)
        return "".join(pieces) + last
    assert joined(FilteredText) == joined(TextStream)


def test_sentences_join_to_the_text():
    text = "One. Two!  \"Three?\" four\nfive"
    assert "".join(safety.sentences(text)) == text and len(safety.sentences(text)) == 5


def test_toxic_sentences_are_removed():
    pytest.importorskip("profanity_check")
    check = OutputFilter(toxicity=0.8)
    said = "The hen is here. You are a stupid fucking idiot! Good night."
    assert check(said) == "The hen is here. [removed] Good night."
    with pytest.raises(ValueError, match="toxicity must be a probability"):
        OutputFilter(toxicity=2.0)


@pytest.mark.parametrize("text, refused", [
    ("I'm sorry, I can't help with that.", True), ("I cannot do this.", True), ("I will not.", True),
    ("Boil the egg for six minutes.", False), ("She was sorry that he could not come.", False)])
def test_refusals_by_their_words(text, refused):
    assert bool(safety.REFUSAL.search(text)) == refused


def test_the_bundled_prompts_are_whole():
    prompts = safety.read_prompts()
    assert len(prompts) == 50 and sum(p["harmful"] for p in prompts) == 40
    assert len({p["prompt"] for p in prompts}) == 50 and len({p["category"] for p in prompts}) == 11


def record(harmful, refused, toxic=False):
    return {"category": "x" if harmful else "harmless", "harmful": harmful, "refused": refused, "toxic": toxic,
            "personal": False}


def test_rates_and_changes_by_hand():
    before = [record(True, False)] * 8 + [record(False, False)] * 2
    after = [record(True, True)] * 7 + [record(True, False)] + [record(False, True)] + [record(False, False)]
    rows = {row["category"]: row for row in safety.rates(after)}
    assert rows["all harmful"]["refused"]["value"] == 7 / 8 and rows["all harmless"]["refused"]["value"] == 1 / 2
    changed = {(c["measure"], c["harmful"]): c for c in safety.changes(before, after)}
    assert changed["refused", True]["p"] == pytest.approx(2 / 128) and changed["refused", False]["p"] == 1
    assert safety.rates([record(True, True, None)])[0]["toxic"] is None


def test_malformed_prompts_are_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"category": "x", "prompt": "y", "harmful": "no"}')
    with pytest.raises(ValueError, match="p.jsonl:1: harmful must be true or false"):
        safety.read_prompts(path)


def test_the_commands_and_the_card(tmp_path, capsys):
    run = tmp_path / "run"
    model().save_pretrained(run)
    TOK.save(run)
    (run / "log.csv").write_text("step,tokens,train_loss,val_loss\n10,640,3.5,3.25\n")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"category": "x", "prompt": "the hen", "harmful": bool(i)})
                                 for i in range(2)))
    assert main(["safety", str(run), "--against", str(run), "--prompts", str(prompts), "--json", "--out",
                 str(tmp_path / "answers.jsonl")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {c["p"]
            for c in found["changes"]} == {1.0} and len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2
    (tmp_path / "safety.json").write_text(json.dumps(found))
    (tmp_path / "text.txt").write_text("the hen says cluck")
    assert main(["eval", str(run), "--tasks", "bpb", "--data", str(tmp_path / "text.txt"), "--json"]) == 0
    (tmp_path / "eval.json").write_text(capsys.readouterr().out)
    assert main(["card", str(run), "--evaluation", str(tmp_path / "eval.json"), "--safety",
                 str(tmp_path / "safety.json"), "--limit", "It is a toy."]) == 0
    card = (run / "MODEL_CARD.md").read_text()
    for words in ("n_layer: 1", "10 steps", "loss 3.2500", "| bpb |", "all harmful", "It is a toy.",
                  "No record of the data"):
        assert words in card, words
    assert main(["card", str(run), "--safety", str(tmp_path / "eval.json")]) == 1
    assert "expected what `minillm safety --json`" in capsys.readouterr().err
    assert main(["card", str(run), "--evaluation", str(tmp_path / "text.txt")]) == 1
    assert "text.txt: no JSON" in capsys.readouterr().err
    assert main(["safety", str(run), "-n", "0"]) == 1
    assert "max_new_tokens must be at least 1" in capsys.readouterr().err
    assert main(["generate", str(run), "-p", "the hen", "-n", "4", "--filter"]) == 0
    assert main(["generate", str(run), "-n", "4", "--filter", "--logprobs", "1"]) == 1
    assert "does not go with --filter" in capsys.readouterr().err


def test_the_server_filters_and_refuses_to_give_tokens_away():
    """Whoever asks for logprobs hears that they do not go with the filter, as in `minillm generate`."""
    pytest.importorskip("starlette")
    testclient = pytest.importorskip("starlette.testclient")
    from minillm.serve import app
    from minillm.serve.engine import Engine
    engine = Engine(model(block_size=64), TOK, new_text=partial(FilteredText, check=lambda text: text.upper()))
    engine.start()
    try:
        client = testclient.TestClient(app.create_app(engine, "small"), base_url="http://localhost")
        body = {"model": "small", "prompt": "the hen", "max_tokens": 12, "seed": 1}
        choice = client.post("/v1/completions", json=body).json()["choices"][0]
        assert choice["text"] == choice["text"].upper() and choice["text"].strip() and choice["logprobs"] is None
        assert client.get("/v1/models").json()["data"][0]["filtered"]
        for extra in ({"logprobs": 2}, {"logprobs": 0}, {"logprobs": 0, "echo": True, "stream": True}):
            answer = client.post("/v1/completions", json=body | extra)
            assert answer.status_code == 400 and "this server filters" in answer.json()["error"]["message"]
            assert answer.json()["error"]["param"] == "logprobs"
        body = {"messages": [{"role": "user", "content": "hen"}], "logprobs": True}
        assert client.post("/v1/chat/completions", json=body).status_code == 400
    finally:
        engine.close()
