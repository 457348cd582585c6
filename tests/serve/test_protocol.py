"""Requests to the server: bad ones name the parameter, limits hold, and any JSON is a request or an error."""
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import BLOCK, NAME, idle, model, server, tokenizer  # noqa: F401  (fixtures)

from minillm.serve import completions, prompts, protocol
from minillm.serve.errors import ApiError

BAD = [     # path, body, status, param
    ("completions", {"prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
    ("completions", {"prompt": "x", "max_tokens": BLOCK}, 400, "max_tokens"),
    ("completions", {"prompt": "x", "max_tokens": True}, 400, "max_tokens"),
    ("completions", {"prompt": "x", "max_tokens": 10**30}, 400, "max_tokens"),
    ("completions", {"prompt": "x", "temperature": "hot"}, 400, "temperature"),
    ("completions", {"prompt": "x", "temperature": 2.1}, 400, "temperature"),
    ("completions", {"prompt": "x", "top_p": 0}, 400, "top_p"),
    ("completions", {"prompt": "x", "top_k": 1.5}, 400, "top_k"),
    ("completions", {"prompt": "x", "min_p": 2}, 400, "min_p"),
    ("completions", {"prompt": "x", "repetition_penalty": 0}, 400, "repetition_penalty"),
    ("completions", {"prompt": "x", "seed": 0.5}, 400, "seed"),
    ("completions", {"prompt": "x", "seed": 2**64}, 400, "seed"),
    ("completions", {"prompt": "x", "n": 17}, 400, "n"),
    ("completions", {"prompt": "x", "logprobs": 21}, 400, "logprobs"),
    ("completions", {"prompt": "x", "stop": ["a"] * 17}, 400, "stop"),
    ("completions", {"prompt": "x", "stop": [""]}, 400, "stop"),
    ("completions", {"prompt": "x", "stop": {"a": 1}}, 400, "stop"),
    ("completions", {"prompt": "x", "stream": 1}, 400, "stream"),
    ("completions", {"prompt": "x", "stream_options": {"include_usage": True}}, 400, "stream_options"),
    ("completions", {"prompt": "x", "presence_penalty": 2.5}, 400, "presence_penalty"),
    ("completions", {"prompt": "x", "frequency_penalty": "1"}, 400, "frequency_penalty"),
    *[("completions", {"prompt": "x", "logit_bias": bias}, 400, "logit_bias")
      for bias in ([], {"5": 101}, {"5": True}, {"x": 1}, {"300": 1}, {"-1": 1}, {"05": 1}, {"5": None})],
    ("completions", {"prompt": "x", "top_k": -2}, 400, "top_k"),
    ("completions", {"prompt": "x", "echo": False, "max_tokens": 0}, 400, "max_tokens"),
    *[("chat/completions", {"messages": [{"role": "user", "content": "x"}], "response_format": form}, 400,
       "response_format") for form in ("json", {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema",
       "json_schema": {"schema": []}}, {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}})],
    ("completions", {"prompt": "x", "best_of": 3}, 400, "best_of"),
    ("completions", {"prompt": "x", "temprature": 1}, 400, "temprature"),
    ("completions", {"prompt": "x", "model": "other"}, 404, "model"),
    ("completions", {"prompt": "x", "model": ["other"]}, 404, "model"),
    ("completions", {"prompt": [[1, 2], [-1]]}, 400, "prompt"),
    ("completions", {"prompt": [300]}, 400, "prompt"),
    ("completions", {"prompt": [True]}, 400, "prompt"),
    ("completions", {"prompt": []}, 400, "prompt"),
    ("completions", {"prompt": 5}, 400, "prompt"),
    ("completions", {"prompt": {"a": "b"}}, 400, "prompt"),
    ("completions", {"prompt": ["x", 5]}, 400, "prompt"),
    ("completions", {"prompt": ["x"] * 65}, 400, "prompt"),
    ("completions", {"prompt": "x" * 5000}, 400, "prompt"),
    ("completions", {"prompt": "x" * 900_000}, 400, "prompt"),
    ("chat/completions", {}, 400, "messages"),
    ("chat/completions", {"messages": []}, 400, "messages"),
    ("chat/completions", {"messages": "hi"}, 400, "messages"),
    ("chat/completions", {"messages": ["hi"]}, 400, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": ["user"], "content": "x"}]}, 400, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "user", "content": None}]}, 400, "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, 400,
     "messages[0].tool_calls"),
    ("chat/completions", {"messages": [{"role": "user", "content": ""}] * 30_500}, 400, "messages"),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400,
     "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}, 400, "top_logprobs"),
    ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "prompt": "x"}, 400, "prompt"),
    ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "x"}]}, 400, "tools"),
]


def test_bad_requests_name_the_parameter(server):
    for path, body, status, param in BAD:
        answer = server.client.post(f"/v1/{path}", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param), (body, answer.text[:300])
        assert error["message"] and len(answer.text) < 600
    assert idle(server.engine)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"prompt": "x", "temperature": NaN}',
                                  b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}",
                                  b'{"prompt": "x", "seed": 1, "seed": 1}',
                                  b'{"messages": [{"role": "system", "content": "x", "role": "user"}]}'])
def test_bodies_that_are_no_json_object(server, body):
    answer = server.client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_limits_of_the_body_and_other_refusals(server):
    """Too large by its own word, or only by its bytes; no JSON by its type; unknown paths and methods."""
    as_json = {"content-type": "application/json"}
    post, large = server.client.post, b"x" * (completions.MAX_BODY + 1)
    assert post("/v1/completions", content=large, headers=as_json).status_code == 413
    assert post("/v1/completions", content=iter([large]), headers=as_json).status_code == 413
    assert post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert post("/v1/chat/completions").status_code == 415
    for answer, status in ((server.client.get("/nothing"), 404), (server.client.get("/v1/completions"), 405),
                           (server.client.get("/v1/models/other"), 404),
                           (server.client.get("/health", headers={"host": "evil.example"}), 403)):
        assert answer.status_code == status and "message" in answer.json()["error"]
    lone = post("/v1/completions", headers=as_json, content=json.dumps(
        {"prompt": "x\ud800", "echo": True, "max_tokens": 1, "stop": "\udfff"}))
    assert lone.status_code == 200 and lone.json()["choices"][0]["text"].startswith("x\ufffd")


def test_answers_that_could_never_be_held_are_no_reason_to_try_again(server):
    """8 rows and 64 places to wait: 80 answers are refused for good, not with 429."""
    answer = server.client.post("/v1/completions", json={"prompt": ["x"] * 5, "n": 16})
    assert answer.status_code == 400 and "72 at most" in answer.json()["error"]["message"]


def test_a_default_length_is_no_reason_to_refuse(server):
    """16 tokens where none are asked for, or as many as there is room for."""
    def ask(length, **more):
        return server.client.post("/v1/completions", json={"prompt": [65] * length, "temperature": 0, **more})

    for length, room in ((BLOCK - 17, 16), (BLOCK - 3, 3), (BLOCK - 1, 1)):
        answer = ask(length).json()
        assert answer["choices"][0]["finish_reason"] == "stop" or answer["usage"]["completion_tokens"] == room
    assert ask(BLOCK - 3, max_tokens=4).json()["error"]["param"] == "max_tokens"
    assert ask(BLOCK).json()["error"]["param"] == "prompt"


def test_what_cannot_fit_is_refused_before_it_is_rendered(tokenizer, monkeypatch):
    """A message has a token or more, even an empty one: 30,500 of them took a second to render."""
    def never(*args):
        raise AssertionError("rendered")
    monkeypatch.setattr(prompts, "chat_prompt", never)
    for messages in ([{"role": "user", "content": ""}] * (BLOCK + 1), [{"role": "user", "content": "x" * 100_000}]):
        with pytest.raises(ApiError) as error:
            protocol.parse(json.dumps({"messages": messages}).encode(), True, NAME, tokenizer, BLOCK)
        assert error.value.code == "context_length_exceeded"


def test_what_others_write_is_understood(server):
    """top_k 0 and -1 are all tokens; 16 stops; an assistant that said nothing; biases and penalties count."""
    def ask(**more):
        return server.client.post("/v1/completions", json={"prompt": "the", "max_tokens": 8, "seed": 1} | more).json()

    plain = ask()["choices"]
    for more in ({"top_k": 0}, {"top_k": -1}, {"presence_penalty": 0}, {"logit_bias": {}}, {"stop": ["\0"] * 16}):
        assert ask(**more)["choices"] == plain
    assert ask(logit_bias={"65": 100})["choices"][0]["text"] != plain[0]["text"]
    forced = ask(prompt=[66], logit_bias={"65": 100, "66": 95}, temperature=0, presence_penalty=2, frequency_penalty=1,
                 logprobs=0)["choices"][0]["logprobs"]["tokens"]
    names = server.engine.tokenizer.decode([65]), server.engine.tokenizer.decode([66])
    assert set(forced[:2]) == {names[0]} and names[1] in forced          # until the penalties weigh more than the bias
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None},
                {"role": "user", "content": "b"}]
    answers = [server.client.post("/v1/chat/completions", json={"messages": some, "seed": 1, "max_tokens": 8}).json()
               for some in (messages, [messages[0], messages[1] | {"content": ""}, messages[2]])]
    assert answers[0]["choices"] == answers[1]["choices"]


def test_no_tokens_but_the_prompts_scores(server):
    """max_tokens 0 with echo: what harnesses ask for, with room for a prompt as long as the context."""
    def ask(**more):
        body = {"prompt": [65] * BLOCK, "max_tokens": 0, "echo": True} | more
        return server.client.post("/v1/completions", json=body)

    choice = ask(logprobs=1).json()["choices"][0]
    assert choice["text"] == server.engine.tokenizer.decode([65] * BLOCK) and choice["finish_reason"] == "length"
    assert len(choice["logprobs"]["token_logprobs"]) == BLOCK and choice["logprobs"]["token_logprobs"][0] is None
    assert ask().json()["usage"]["completion_tokens"] == 0 and ask().json()["choices"][0]["logprobs"] is None
    lines = [line for line in ask(stream=True, logprobs=1).text.splitlines() if line]
    assert "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]) == choice["text"]
    assert ask(prompt=[65] * (BLOCK + 1)).json()["error"]["param"] == "prompt"


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
                      | st.sampled_from(["user", "text", "x", 1, [], {}, 10**20]),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                          st.sampled_from(["role", "content", "type", "text", "include_usage"]), inner, max_size=3),
                      max_leaves=6)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(chat=st.booleans(), good=st.booleans(),
       body=st.dictionaries(st.sampled_from(sorted(protocol.CHAT | protocol.COMPLETION | {"x"})), VALUES, max_size=4))
def test_any_json_is_a_request_or_an_api_error(tokenizer, chat, good, body):
    start = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
    raw = json.dumps(start | body if good else body).encode()
    try:
        ask = protocol.parse(raw, chat, NAME, tokenizer, BLOCK)
    except ApiError as error:
        json.dumps(error.body())
    else:
        assert all(0 < len(ids) < BLOCK + (ask.max_tokens == 0) for ids in ask.prompts)
