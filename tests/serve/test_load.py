"""The server under load: a crowd with bad manners gets its own answers, and nothing is left."""
import asyncio
import contextlib
import json
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from serving import PROMPTS, alone, httpx, idle, model, running, tokenizer, wait_until  # noqa: F401  (fixtures)

from minillm.generation.sampling import Sampling
from minillm.serve import completions, protocol


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
    with running(model, tokenizer, {"n_slots": 16, "n_waiting": 400}) as server:
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

    with running(model, tokenizer, {"n_slots": 2, "n_waiting": 10}) as server:
        answers = asyncio.run(many(server.url))
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(a.json()["choices"][0]["text"] == text for a in answers if a.status_code == 200)


def test_large_bodies_stop_nobody(model, tokenizer, monkeypatch):
    """They are read one at a time and not by the event loop, which goes on; small ones go past them."""
    right, reading, most, small = protocol.parse, [], [], threading.Event()

    def parse(raw, *more):
        if len(raw) < 1000:
            return right(raw, *more)
        reading.append(raw)
        most.append(len(reading))
        assert small.wait(60)                   # stuck until a small one has been answered
        time.sleep(0.02)
        reading.pop()
        return right(raw, *more)

    monkeypatch.setattr(protocol, "parse", parse)
    large = {"messages": [{"role": "user", "content": ""}] * 30_500}
    with running(model, tokenizer) as server, ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(server.client.post, "/v1/chat/completions", json=large) for _ in range(8)]
        wait_until(lambda: reading)
        assert server.client.get("/health").status_code == 200
        assert server.client.post("/v1/completions", json={"prompt": "the", "max_tokens": 2}).status_code == 200
        small.set()
        assert {answer.result().json()["error"]["code"] for answer in refused} == {"context_length_exceeded"}
    assert most == [1] * 8


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
