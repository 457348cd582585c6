"""The server over real HTTP: the openai client's view, a crowd with bad manners, limits, and a clean end."""
import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minillm import GPT, GPTConfig, Tokenizer
from minillm.generate import TextStream, steps
from minillm.sampling import Sampling
from minillm.serve import protocol
from minillm.serve.engine import Engine, Job
from minillm.speculative import Lookup

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from minillm.serve import app

NAME, BLOCK = "tiny", 128
PROMPTS = ["the quick", "Naïve ☃ ", "漢字", "over the lazy dog. the", "x" * 40, "brown fox jumps!"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the quick brown fox jumps over the lazy dog. Naïve ☃ 漢字! " * 30], 300, stop_early=True)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Far from its initialisation: answers that differ much between prompts and between seeds."""
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=BLOCK, vocab_size=tokenizer.vocab_size), seed=0)
    model.params.flat[:] += 0.1 * np.random.default_rng(2).standard_normal(model.params.flat.size)
    return model


@contextlib.contextmanager
def running(model, tokenizer, engine_options=None, **options):
    """A real server on a free port, in a thread; gives its address and its engine."""
    engine, address = Engine(model, tokenizer, **(engine_options or {})), []
    server = app.make_server(engine, NAME, ready=address.append, grace=1, **options)
    engine.start()
    sock = app.listening_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        wait_until(lambda: address)
        yield SimpleNamespace(url=address[0], engine=engine, client=httpx.Client(base_url=address[0], timeout=60))
    finally:
        server.should_exit = True
        thread.join(30)
        engine.thread.join(30)
    assert not thread.is_alive() and not engine.thread.is_alive()


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def server(model, tokenizer):
    with running(model, tokenizer) as server:
        yield server


def idle(engine):
    return not engine.writers and not engine.waiting and len(engine.free) == engine.n_rows


def alone(model, tokenizer, prompt, max_tokens, sampling, stop=()):
    """The answer without any server: (text, finish_reason, tokens written)."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    stream, text, count = TextStream(tokenizer, stop), "", 0
    for step in steps(model, ids, max_tokens, sampling, stop=tokenizer.eot_token):
        count += 1
        if step.token == tokenizer.eot_token:
            return text + stream.finish(), "stop", count
        text += stream.push(step.token)
        if stream.stopped is not None:
            return text, "stop", count
    return text + stream.finish(), "length", count


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
    post, large = server.client.post, b"x" * (app.MAX_BODY + 1)
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


# The engine

def collect(engine, jobs):
    """Run the jobs on an engine that is not started; returns for each (text, tokens, finish_reason)."""
    out = [[] for _ in jobs]
    for job, pieces in zip(jobs, out):
        job.put = pieces.append
    engine.submit(jobs)
    while engine.writers or engine.waiting:
        engine.step()
    return [("".join(p.text for p in pieces), [s.token for p in pieces for _, s in p.steps], pieces[-1].finish_reason)
            for pieces in out]


@pytest.mark.parametrize("n_rows, chunk", [(1, 256), (3, 7), (16, 32), (5, 1)])
def test_answers_do_not_depend_on_rows_or_chunks(model, tokenizer, n_rows, chunk):
    def jobs():
        return [Job(tokenizer.encode(PROMPTS[i % 6] * (1 + i % 3)), 5 + i % 9, None, Sampling(seed=i))
                for i in range(20)]
    crowd = collect(Engine(model, tokenizer, n_rows, 64, chunk), jobs())
    assert crowd == [collect(Engine(model, tokenizer, 1, 1, chunk), [job])[0] for job in jobs()]
    assert len({answer[0] for answer in crowd}) > 15


def guessing(model, tokenizer, kind):
    """An engine with a draft: the text itself, or a model near enough to the target to be right now and then."""
    if kind == "lookup":
        return Engine(model, tokenizer, 4, 64, draft=Lookup(model.config.vocab_size))
    draft = GPT(model.config, params=model.params.astype(np.float32))
    draft.params.flat[:] += 0.01 * np.random.default_rng(3).standard_normal(draft.params.flat.size)
    return Engine(model, tokenizer, 4, 64, draft=draft)


@pytest.mark.parametrize("kind", ["lookup", "model"])
def test_guessing_ahead_changes_no_answer_that_must_repeat(model, tokenizer, kind):
    """Greedy alone: guessed, and the same tokens. Seeded, or in a crowd: not guessed. Unseeded alone: guessed."""
    def job(prompt, repeatable=True, **sampling):
        return Job(tokenizer.encode(prompt), 30, None, Sampling(**sampling), top=2, repeatable=repeatable)

    engine, plain = guessing(model, tokenizer, kind), Engine(model, tokenizer, 4, 64)
    for prompt in PROMPTS:
        greedy = job(prompt, temperature=0)
        assert collect(engine, [greedy]) == collect(plain, [job(prompt, temperature=0)])
        assert greedy.counts.tokens >= 29 and greedy.counts.drafted >= greedy.counts.accepted
        seeded = job(prompt, seed=5)
        assert collect(engine, [seeded]) == collect(plain, [job(prompt, seed=5)]) and seeded.counts is None
        free = job(prompt, repeatable=False, seed=5)
        assert len(collect(engine, [free])[0][1]) == 30 and free.counts.passes > 0
    crowd = [job(prompt, temperature=0) for prompt in PROMPTS]
    assert collect(engine, crowd) == collect(plain, [job(prompt, temperature=0) for prompt in PROMPTS])
    assert sum(job.counts is not None for job in crowd) <= 1 and idle(engine)
    accepted = [line for line in engine.metric_lines() if 'draft_tokens_total{outcome="accepted"}' in line]
    assert float(accepted[0].split()[-1]) > 0


def test_a_failing_model_fails_its_requests_only(model, tokenizer):
    """NaN logits end one answer, an exception all that run; afterwards the engine works as before."""
    broken = SimpleNamespace(config=model.config, new_cache=model.new_cache, fault=None)

    def decode(tokens, cache, rows, last):
        logits = model.decode(tokens, cache, rows, last)
        if broken.fault == "nan":
            logits[0] = np.nan
        if broken.fault == "error":
            raise MemoryError("no memory left")
        return logits
    broken.decode = decode
    with running(broken, tokenizer) as server:
        def ask():
            return server.client.post("/v1/completions", json={"prompt": "the", "max_tokens": 4, "seed": 1})
        good = ask().json()["choices"]
        for broken.fault in ("nan", "error"):
            answer = ask()
            assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
        broken.fault = None
        assert ask().json()["choices"] == good and idle(server.engine)


class Gate:
    """A model that waits at each pass until the gate is open: the tests decide what runs when."""

    def __init__(self, model):
        self.config, self.new_cache, self.model, self.open = model.config, model.new_cache, model, threading.Event()

    def decode(self, *args, **kwargs):
        assert self.open.wait(60)
        return self.model.decode(*args, **kwargs)


def test_a_full_queue_is_429(model, tokenizer):
    gate = Gate(model)
    with running(gate, tokenizer, {"n_rows": 1, "n_waiting": 2}) as server, ThreadPoolExecutor(8) as pool:
        body = {"prompt": "the", "max_tokens": 3, "temperature": 0}
        first = [pool.submit(server.client.post, "/v1/completions", json=body)]
        wait_until(lambda: server.engine.writers)
        first += [pool.submit(server.client.post, "/v1/completions", json=body) for _ in range(2)]
        wait_until(lambda: len(server.engine.waiting) == 2)
        for more in (body, body | {"stream": True}, body | {"n": 4}):
            refused = server.client.post("/v1/completions", json=more)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "queue_full"
        gate.open.set()
        assert len({future.result().json()["choices"][0]["text"] for future in first}) == 1
        assert server.client.post("/v1/completions", json=body).status_code == 200


def test_a_client_that_leaves_frees_its_row(model, tokenizer):
    """Waiting, reading or writing; whole or streamed: the row goes to the next at once."""
    gate = Gate(model)
    body = {"prompt": "the", "max_tokens": 100, "temperature": 0}
    with running(gate, tokenizer, {"n_rows": 1, "n_waiting": 8}) as server:
        for stream in (False, True):
            gate.open.clear()
            for wanted in (1, 2):               # the first gets the row, the second waits
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(server.url + "/v1/completions", json=body | {"stream": stream}, timeout=0.3)
            gate.open.set()
            wait_until(lambda: idle(server.engine))
        with server.client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
            next(answer.iter_lines())
        wait_until(lambda: idle(server.engine))
        text = server.client.get("/metrics").text
        cancelled = int(re.search(r'answers_total\{finish_reason="cancelled"\} (\d+)', text)[1])
        assert cancelled >= 2


# The crowd

async def crowd(url, count, expected, seed=0):
    """`count` concurrent requests of many kinds; returns the statuses by kind. Each answer is compared."""
    rng, seen = np.random.default_rng(seed), []
    kinds = [("whole", "stream", "leave", "malformed", "oversized", "impossible")[k]
             for k in rng.choice(6, count, p=[0.45, 0.35, 0.08, 0.05, 0.02, 0.05])]

    async def one(client, i, kind):
        key = i % len(expected)
        body, (text, reason, written) = expected[key]
        if kind == "whole":
            answer = await client.post("/v1/completions", json=body)
            choice, usage = answer.json()["choices"][0], answer.json()["usage"]
            assert (choice["text"], choice["finish_reason"], usage["completion_tokens"]) == (text, reason, written), i
        elif kind == "stream":
            async with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
                lines = [line async for line in answer.aiter_lines() if line]
            assert lines.pop() == "data: [DONE]"
            choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
            assert ("".join(c["text"] for c in choices), choices[-1]["finish_reason"]) == (text, reason), i
        elif kind == "leave":
            async with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
                await anext(answer.aiter_lines())
        else:
            content = {"malformed": b'{"prompt": ', "oversized": b"x" * (app.MAX_BODY + 9),
                       "impossible": b'{"prompt": "x", "max_tokens": 100000}'}[kind]
            answer = await client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
        seen.append((kind, answer.status_code))

    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=url, timeout=240, limits=limits) as client:
        await asyncio.gather(*(one(client, i, kind) for i, kind in enumerate(kinds)))
    return seen


def resident():
    """Bytes of this process in memory, now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_crowd_gets_its_own_answers_and_nothing_is_left(model, tokenizer):
    """Hundreds at once, some of whom leave, send rubbish or too much: every answer is the one a request gets alone."""
    expected = []
    for i in range(40):
        prompt, seed, limit = PROMPTS[i % 6] + " fox" * (i % 5), i, 4 + i % 23
        body = {"prompt": prompt, "max_tokens": limit, "seed": seed, "temperature": 1.2}
        expected.append((body, alone(model, tokenizer, prompt, limit, Sampling(temperature=1.2, seed=seed))))
    statuses = {"whole": 200, "stream": 200, "leave": 200, "malformed": 400, "oversized": 413, "impossible": 400}
    with running(model, tokenizer, {"n_rows": 16, "n_waiting": 400}) as server:
        asyncio.run(crowd(server.url, 60, expected))           # everything is allocated that ever is
        before = resident()
        seen = asyncio.run(crowd(server.url, 300, expected, seed=1))
        assert len(seen) == 300 and {kind for kind, _ in seen} == set(statuses)
        assert all(status == statuses[kind] for kind, status in seen)
        wait_until(lambda: idle(server.engine))
        assert (server.engine.cache.lengths == 0).all()
        assert resident() - before < 64 << 20
        assert server.client.get("/health").json() == {"status": "ok"}


def test_refused_requests_in_a_crowd_are_429_and_the_rest_is_right(model, tokenizer):
    body = {"prompt": "the quick", "max_tokens": 20, "seed": 1}
    text = alone(model, tokenizer, "the quick", 20, Sampling(seed=1))[0]

    async def many(url):
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=200)) as client:
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for _ in range(150)))

    with running(model, tokenizer, {"n_rows": 2, "n_waiting": 10}) as server:
        answers = asyncio.run(many(server.url))
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(a.json()["choices"][0]["text"] == text for a in answers if a.status_code == 200)


def test_rubbish_on_the_wire(model, tokenizer):
    """Bytes that are no HTTP, requests that stop half way, bodies shorter than they say: the server goes on."""
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    rng = np.random.default_rng(0)
    wire = [b"", b"\0" * 50, b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 100_000, head,
            head + b"content-length: 50\r\n\r\n{",
            head + b"content-length: -1\r\n\r\n", head + b"content-length: 1e9\r\n\r\n",
            head + b"content-length: 99999999999999999999\r\n\r\n{}",
            head + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            head + b"transfer-encoding: chunked\r\n\r\n5\r\n{\r\n0\r\n\r\n", *(rng.bytes(300) for _ in range(20))]
    with running(model, tokenizer) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        sockets = [socket.create_connection(address) for _ in wire]
        for sock, data in zip(sockets, wire):
            with contextlib.suppress(OSError):
                sock.sendall(data)
        answer = server.client.post("/v1/completions", json={"prompt": "the", "max_tokens": 3, "seed": 1})
        assert answer.json()["choices"][0]["text"] == alone(model, tokenizer, "the", 3, Sampling(seed=1))[0]
        for sock in sockets:
            sock.close()
        wait_until(lambda: idle(server.engine))
        assert server.client.get("/health").status_code == 200


# The command, and its end

@pytest.fixture(scope="module")
def run(model, tokenizer, tmp_path_factory):
    """A run directory whose model takes seconds for its longest answer."""
    directory = tmp_path_factory.mktemp("runs") / "long"
    long = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=20_000, vocab_size=tokenizer.vocab_size), seed=0)
    long.save_pretrained(directory)
    tokenizer.save(directory)
    return directory


@contextlib.contextmanager
def command(run, *options):
    """`minillm serve` as a user starts it; gives the process and its address."""
    process = subprocess.Popen([sys.executable, "-m", "minillm", "serve", str(run), "--port", "0", *options],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        line = process.stdout.readline()
        assert "is served at" in line, line + process.stderr.read()
        yield process, re.search(r"at (http://\S+)", line)[1]
    finally:
        process.kill()
        process.communicate()


def test_sigterm_cuts_what_runs_and_exits_cleanly(run):
    """Within the grace the stream ends as streams end; what still waited is told; the exit code is 0."""
    with command(run, "--grace", "0.5", "--rows", "1") as (process, url), ThreadPoolExecutor(1) as pool:
        body = {"prompt": "the", "max_tokens": 19_000, "temperature": 0, "stop": "\0"}
        with httpx.stream("POST", url + "/v1/completions", json=body | {"stream": True}, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            waiting = pool.submit(httpx.post, url + "/v1/completions", json=body, timeout=60)
            wait_until(lambda: "requests_waiting 1" in httpx.get(url + "/metrics").text)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert waiting.result().status_code == 503
        assert process.wait(30) == 0, process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")


def test_the_command_refuses_what_cannot_work(run, capsys):
    from minillm.__main__ import main
    sock = app.listening_socket("127.0.0.1", 0)
    port = str(sock.getsockname()[1])
    for options, words in ((["--port", port], "cannot listen"), (["--rows", "0"], "--rows"),
                           (["--queue", "-1"], "--queue"), (["--port", "65536"], "--port")):
        assert main(["serve", str(run), *options]) == 1
        assert words in capsys.readouterr().err
    assert main(["serve", str(run / "nowhere")]) == 1
