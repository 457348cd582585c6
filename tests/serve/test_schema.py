"""Answers by JSON schema over the API: whole, streamed and several at once; never speculative, never special tokens."""
import json

import pytest
from serving import PROMPTS, model, running, tokenizer  # noqa: F401  (fixtures)

from minillm.generation.speculative import Lookup

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

SCHEMA = {"type": "object", "properties": {"fox": {"enum": ["quick", "brown"]}, "n": {"type": "integer", "minimum": 0,
                                                                                     "maximum": 9}},
          "required": ["fox", "n"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "fox", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def server(model, tokenizer):
    with running(model, tokenizer, {"draft": Lookup(model.config.vocab_size)}) as server:
        yield server


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("temperature", [0, 1, 2])
def test_every_answer_is_valid(server, prompt, temperature):
    body = {"messages": [{"role": "user", "content": prompt}], "response_format": FORM, "temperature": temperature,
            "n": 3, "seed": 2, "max_tokens": 60}
    whole = server.client.post("/v1/chat/completions", json=body).json()
    for choice in whole["choices"]:
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    alone = server.client.post("/v1/chat/completions", json=body | {"n": 1}).json()["choices"]     # the engine is idle
    assert alone == whole["choices"][:1]
    texts = [""] * 3
    with server.client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
        for line in filter(None, answer.iter_lines()):
            if line != "data: [DONE]":
                (choice,) = json.loads(line[6:])["choices"]
                texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]


def test_any_object_and_answers_that_are_cut(server):
    """json_object is any object; max_tokens ends it where it is, as everywhere."""
    body = {"prompt": "the", "response_format": {"type": "json_object"}, "max_tokens": 9, "seed": 1}
    choice = server.client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["text"].startswith("{") and choice["finish_reason"] in ("length", "stop")
    bias = {"logit_bias": {str(server.engine.tokenizer.encode("x")[0]): 100}, "response_format": FORM}
    text = server.client.post("/v1/completions", json=body | bias | {"max_tokens": 60}).json()["choices"][0]["text"]
    jsonschema.validate(json.loads(text), SCHEMA)
