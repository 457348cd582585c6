"""One rule of what ends a text, in everything that generates: what the model's files say, or else its tokenizer's."""
import json
from functools import partial

import pytest
from ending import CHATML, directory_that_ends, said_after
from serving import httpx, running  # noqa: F401  (skips without a server)

from minillm.__main__ import main
from minillm.evaluate import harness, perplexity, safety, samples
from minillm.generation.sampling import Sampling
from minillm.generation.text import generate_text, load_generator
from minillm.models.load import load
from minillm.posttrain.grpo import RewardData, sample_group
from minillm.posttrain.tasks import TASKS
from minillm.tokenizer import chat_template as chat

WORDS = {                                            # what the files say, and what the ends are
    "config": ({"config": "</s>"}, {"</s>"}),
    "list": ({"config": ["<|im_end|>", "</s>"]}, {"<|im_end|>", "</s>"}),
    "generation": ({"config": "<s>", "generation": ["</s>", "<|im_end|>"]}, {"</s>", "<|im_end|>"}),
    "tokenizer": ({"roles": {"eos_token": "</s>", "bos_token": "<s>"}}, {"</s>"}),
    "object": ({"roles": {"eos_token": {"content": "</s>", "lstrip": False}}}, {"</s>"}),
    "map": ({"roles": {}, "special_map": {"eos_token": {"content": "</s>"}}}, {"</s>"}),
    "model first": ({"config": "</s>", "roles": {"eos_token": "<s>"}}, {"</s>"}),
}


@pytest.fixture
def make(tmp_path):
    return partial(directory_that_ends, tmp_path)


@pytest.mark.parametrize("word", WORDS)
def test_whoever_says_it_the_text_ends_there(make, word):
    files, ends = WORDS[word]
    folder = make(**files)
    _, tokenizer = load(folder)
    assert chat.end_tokens(tokenizer) == {tokenizer.special_tokens[end] for end in ends}
    found = generate_text(load_generator(folder), "the cat", 20, Sampling(temperature=0))
    assert (found["text"], found["finish"]) == (said_after(len(tokenizer.encode("the cat"))), "stop")


@pytest.mark.parametrize("how", [{}, {"lookup": True}, {"draft": True}])
def test_endoftext_is_no_end_of_a_model_that_names_another(make, how):
    folder = make(end="<|endoftext|>", config="</s>")
    generator = load_generator(folder, **({"draft": folder} if "draft" in how else how))
    found = generate_text(generator, "the cat", 20, Sampling(temperature=0))
    assert found["finish"] == "length" and len(found["tokens"]) == 20
    other = make(end="</s>", config="</s>")
    found = generate_text(load_generator(other, **({"draft": other} if "draft" in how else how)), "the cat", 20,
                          Sampling(temperature=0))
    assert found["finish"] == "stop"


def test_without_any_word_it_is_endoftext(make):
    found = generate_text(load_generator(make(end="<|endoftext|>")), "the cat", 20, Sampling(temperature=0))
    assert found["finish"] == "stop"


def test_eval_safety_and_rewards_end_there(make):
    model, tokenizer = load(make(config="</s>", roles={"bos_token": "<s>"}))
    length = len(tokenizer.encode("the cat"))
    assert samples.continuation(model, tokenizer, "the cat", 20) == said_after(length)
    assert harness.continued(model, tokenizer, "the cat", {"until": ["x"], "max_gen_toks": 20}) == said_after(length)
    assert len(safety.reply(model, tokenizer, "the cat", 0, 20)) <= 3
    data = RewardData(TASKS["addition"], tokenizer, 1, 2, 20)
    (answer,) = sample_group(model, tokenizer.encode("the cat"), 1, 20, data.ends, (0,), temperature=0)
    assert answer[-1] == tokenizer.special_tokens["</s>"] and tokenizer.decode(answer[:-1]) == said_after(length)
    assert perplexity.surprises(model, tokenizer, ["the cat"])[0].tokens == length   # begun by <s>: all are predicted


def test_the_command_line_ends_there(make, capsys):
    folder = make(config=["</s>", "<|im_end|>"])
    assert main(["generate", str(folder), "-p", "the cat", "-n", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["finish"] == "stop"


@pytest.mark.parametrize("end", ["</s>", "<|im_end|>"])
def test_the_server_ends_there_with_a_chat_template_or_without(make, end):
    """<|im_end|> is no end by the model's files, but by the chat template of its directory."""
    pytest.importorskip("jinja2")
    model, tokenizer = load(make(end=end, config="</s>", template=CHATML))
    with running(model, tokenizer) as server:
        ask = {"prompt": "the cat", "max_tokens": 20, "temperature": 0}
        whole = server.client.post("/v1/completions", json=ask).json()["choices"][0]
        assert whole["finish_reason"] == ("stop" if end == "</s>" else "length")
        talk = {"messages": [{"role": "user", "content": "cat"}], "max_tokens": 20, "temperature": 0}
        whole = server.client.post("/v1/chat/completions", json=talk).json()["choices"][0]
        ids = chat.encode_prompt(tokenizer, talk["messages"])
        assert (whole["finish_reason"], whole["message"]["content"]) == ("stop", said_after(len(ids)))
        with server.client.stream("POST", "/v1/chat/completions", json=talk | {"stream": True}) as answer:
            chunks = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == said_after(len(ids))


def test_a_chat_ends_there(make, capsys, monkeypatch):
    pytest.importorskip("jinja2")
    folder = make(end="<|im_end|>", config="</s>", template=CHATML)
    lines = iter(["cat"])
    monkeypatch.setattr("builtins.input", lambda *_: next(lines, None) or (_ for _ in ()).throw(EOFError))
    assert main(["chat", str(folder), "-n", "20", "--temperature", "0", "--no-colour"]) == 0
    _, tokenizer = load(folder)
    ids = chat.encode_prompt(tokenizer, [{"role": "user", "content": "cat"}])
    assert capsys.readouterr().out.splitlines()[0] == said_after(len(ids))
