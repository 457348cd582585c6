"""The server at work: batches that change no answer, a crowd with bad manners, limits, and a clean end."""
import asyncio
import contextlib
import json
import re
import resource
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

# noqa: F401  (fixtures)
from serving import PROMPTS, alone, command, httpx, idle, running, wait_until

from minillm import GPT, GPTConfig
from minillm.generation.sampling import Sampling
from minillm.generation.speculative import Lookup
from minillm.serve import completions, listen
from minillm.serve.engine import Engine, Job

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
        for more in (body, body | {"stream": True}, body | {"n": 3}):
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
            for _ in range(2):                  # the first gets the row, the second waits
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
            content = {"malformed": b'{"prompt": ', "oversized": b"x" * (completions.MAX_BODY + 9),
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
    sock = listen.listening_socket("127.0.0.1", 0)
    port = str(sock.getsockname()[1])
    for options, words in ((["--port", port], "cannot listen"), (["--rows", "0"], "--rows"),
                           (["--queue", "-1"], "--queue"), (["--port", "65536"], "--port")):
        assert main(["serve", str(run), *options]) == 1
        assert words in capsys.readouterr().err
    assert main(["serve", str(run / "nowhere")]) == 1
