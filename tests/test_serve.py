"""The server's protocol over real HTTP: the openai client's view, bad requests, the key, health and metrics."""
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import BLOCK, NAME, PROMPTS, alone, idle, model, running, tokenizer  # noqa: F401  (two are fixtures)

from minillm.generation.sampling import Sampling
from minillm.serve import completions, protocol


@pytest.fixture(scope="module")
def server(model, tokenizer):
    with running(model, tokenizer) as server:
        yield server


# The openai client

@pytest.fixture(scope="module")
def client(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_openai_lists_the_model(client):
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 7}, {"seed": -1, "top_p": 0.8, "temperature": 1.7},
                                     {"seed": 3, "extra_body": {"top_k": 9, "min_p": 0.01, "repetition_penalty": 1.3}}])
def test_openai_completions_are_those_of_the_library(client, model, tokenizer, prompt, options):
    """Whole and streamed, and each equal to what `steps` writes without a server."""
    named = {k: v for k, v in options.items() if k != "extra_body"} | options.get("extra_body", {})
    sampling = Sampling(**named | {"seed": named.get("seed", 0) % 2**64})
    expected, reason, count = alone(model, tokenizer, prompt, 24, sampling)
    whole = client.completions.create(model=NAME, prompt=prompt, max_tokens=24, **options)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (expected, reason)
    assert whole.usage.completion_tokens == count and whole.usage.prompt_tokens == len(tokenizer.encode(prompt))
    chunks = list(client.completions.create(model=NAME, prompt=prompt, max_tokens=24, stream=True,
                                            stream_options={"include_usage": True}, **options))
    assert "".join(c.choices[0].text for c in chunks[:-1]) == expected
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + [reason]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage and not any(c.usage for c in chunks[:-1])


def test_openai_chat_whole_and_streamed(client, tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the ☃?"}]
    whole = client.chat.completions.create(model=NAME, messages=messages, max_tokens=30, seed=5, logprobs=True,
                                           top_logprobs=3)
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and whole.usage.completion_tokens >= len(choice.logprobs.content) > 0
    data = bytes(byte for entry in choice.logprobs.content for byte in entry.bytes)
    assert data.decode(errors="replace").startswith(choice.message.content)
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= entry.top_logprobs[0].logprob + 1e-6 <= 1e-6
    chunks = list(client.chat.completions.create(model=NAME, messages=messages, max_tokens=30, seed=5, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason and len({c.id for c in chunks}) == 1


def test_openai_n_answers_and_lists_of_prompts(client, model, tokenizer):
    """Choice 0 is the answer of n = 1; the others differ from it; prompts may be ids; echo repeats them."""
    answers = client.completions.create(model=NAME, prompt=PROMPTS[:2], n=3, max_tokens=12, seed=1, echo=True)
    assert [choice.index for choice in answers.choices] == list(range(6))
    for i, prompt in enumerate(PROMPTS[:2]):
        texts = [choice.text for choice in answers.choices[3 * i:3 * i + 3]]
        assert texts[0] == prompt + alone(model, tokenizer, prompt, 12, Sampling(seed=1))[0] and len(set(texts)) == 3
        ids = client.completions.create(model=NAME, prompt=tokenizer.encode(prompt), max_tokens=12, seed=1)
        assert prompt + ids.choices[0].text == texts[0]


def test_openai_stop_strings_are_cut_out(client, model, tokenizer):
    """A stop string taken from the middle of the answer ends it there; its tokens and log-probabilities go with it."""
    text = alone(model, tokenizer, "the quick", 40, Sampling(seed=4))[0]
    stop = text[10:13]
    expected = alone(model, tokenizer, "the quick", 40, Sampling(seed=4), (stop,))
    for stream in (False, True):
        answer = client.completions.create(model=NAME, prompt="the quick", max_tokens=40, seed=4, logprobs=1,
                                           stop=[stop, "\0never"], stream=stream)
        choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        assert ("".join(c.text for c in choices), choices[-1].finish_reason) == expected[:2]
        assert stop not in expected[0] and expected[1] == "stop"
        tokens = [token for c in choices for token in c.logprobs.tokens]
        offsets = [offset for c in choices for offset in c.logprobs.text_offset]
        assert len(tokens) < expected[2] and offsets == sorted(offsets) and offsets[-1] < len(expected[0])


def test_openai_echo_scores_the_prompt(client, model, tokenizer):
    """What evaluation harnesses ask for: the prompt's own log-probabilities, those of a plain forward pass."""
    ids = tokenizer.encode("Naïve ☃ brown fox")
    logits = model.forward(np.array([ids]))[0][0].astype(np.float64)
    right = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for stream in (False, True):
        answer = client.completions.create(model=NAME, prompt=ids, max_tokens=2, logprobs=2, echo=True, temperature=0,
                                           stream=stream)
        choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        text = "".join(c.text for c in choices)
        found = [(t, p, top, at) for c in choices for t, p, top, at in zip(
            c.logprobs.tokens, c.logprobs.token_logprobs, c.logprobs.top_logprobs, c.logprobs.text_offset)]
        assert text.startswith("Naïve ☃ brown fox") and len(found) == len(ids) + 2
        assert found[0][1:] == (None, None, 0)
        scores = [p for _, p, _, _ in found[1:len(ids)]]
        np.testing.assert_allclose(scores, right[np.arange(len(ids) - 1), ids[1:]], rtol=1e-4)
        for (_, _, top, _), row in zip(found[1:len(ids)], right):
            assert abs(max(top.values()) - row.max()) < 1e-3 and len(top) == 2
        for token, _, _, at in found:
            assert token.startswith("bytes:") or text[at:at + len(token)] == token
    assert client.completions.create(model=NAME, prompt=ids, max_tokens=1, echo=True).choices[0].logprobs is None


def test_openai_errors_have_their_classes(client):
    import openai
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="gpt-4", prompt="x")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x" * 9999}])
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=NAME, prompt="x", temperature=-1)
    assert error.value.param == "temperature"


# Bad requests

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
    ("completions", {"prompt": "x", "stop": ["a"] * 5}, 400, "stop"),
    ("completions", {"prompt": "x", "stop": [""]}, 400, "stop"),
    ("completions", {"prompt": "x", "stop": {"a": 1}}, 400, "stop"),
    ("completions", {"prompt": "x", "stream": 1}, 400, "stream"),
    ("completions", {"prompt": "x", "stream_options": {"include_usage": True}}, 400, "stream_options"),
    ("completions", {"prompt": "x", "presence_penalty": 0.5}, 400, "presence_penalty"),
    ("completions", {"prompt": "x", "logit_bias": {"5": 1}}, 400, "logit_bias"),
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
                                  b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"])
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


def test_names_with_a_slash_and_paths_with_one_too_many(model, tokenizer):
    with running(model, tokenizer, name="org/tiny") as server:
        get = server.client.get
        listed = get("/v1/models").json()["data"][0]
        assert get("/v1/models/org/tiny").json() == get("/v1/models/org%2Ftiny").json() == listed
        assert get("/health/").status_code == 404 and "message" in get("/health/").json()["error"]
        assert get("/health", headers={"host": "LocalHost:80"}).status_code == 200
        long = server.client.post("/v1/completions", json={"model": "x" * 5000, "prompt": "x"})
        assert long.status_code == 404 and len(long.text) < 400


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
    except protocol.ApiError as error:
        json.dumps(error.body())
    else:
        assert all(0 < len(ids) < BLOCK for ids in ask.prompts)


# The key, the page's files, health, metrics

def test_api_key(model, tokenizer):
    with running(model, tokenizer, api_key="sésame") as server:
        for key, status in (("", 401), ("Bearer wrong", 401), ("Bearer s", 401), ("Bearer sésame", 200)):
            answer = server.client.get("/v1/models", headers={"authorization": key.encode()})
            assert answer.status_code == status
        assert answer.json()["data"][0]["id"] == NAME
        refused = server.client.post("/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert server.client.get("/health").status_code == 200 == server.client.get("/").status_code


def test_health_and_metrics(server):
    server.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 3})
    assert server.client.get("/health").json() == {"status": "ok"}
    lines = server.client.get("/metrics").text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})?', name) for name in samples)
    assert float(samples["minillm_generated_tokens_total"]) >= 3 and samples["minillm_requests_running"] == "0"
    assert float(samples['minillm_http_requests_total{route="/v1/completions",status="200"}']) >= 1
    buckets = [float(v) for name, v in samples.items() if name.startswith("minillm_queue_seconds_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == float(samples["minillm_queue_seconds_count"])


def test_metrics_are_read_by_prometheus(server):
    """By its own parser; a counter's family is called without its _total."""
    parser = pytest.importorskip("prometheus_client.parser")
    server.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 3})
    families = {f.name: f for f in parser.text_string_to_metric_families(server.client.get("/metrics").text)}
    assert {f.type for f in families.values()} == {"gauge", "counter", "histogram"}
    assert families["minillm_generated_tokens"].samples[0].value >= 3
    buckets = [sample.value for sample in families["minillm_step_seconds"].samples if "le" in sample.labels]
    assert buckets == sorted(buckets) and len(buckets) == 16
