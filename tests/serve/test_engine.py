"""The engine: continuous batching changes no answer, a failing model fails its own requests, a full queue refuses."""
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from serving import PROMPTS, alone, httpx, idle, model, running, tokenizer, wait_until  # noqa: F401  (fixtures)

from minillm import GPT
from minillm.generation.sampling import Sampling
from minillm.generation.speculative import Lookup
from minillm.serve.engine import Engine, Job


def collect(engine, jobs):
    """Run the jobs on an engine that is not started; returns for each (text, tokens, finish_reason)."""
    out = [[] for _ in jobs]
    for job, pieces in zip(jobs, out):
        job.put = pieces.append
    engine.submit(jobs)
    while engine.active or engine.waiting:
        engine.step()
    return [("".join(p.text for p in pieces), [s.token for p in pieces for _, s in p.steps], pieces[-1].finish_reason)
            for pieces in out]


@pytest.mark.parametrize("n_slots, chunk", [(1, 256), (3, 7), (16, 32), (5, 1)])
def test_answers_do_not_depend_on_slots_or_chunks(model, tokenizer, n_slots, chunk):
    def jobs():
        return [Job(tokenizer.encode(PROMPTS[i % 6] * (1 + i % 3)), 5 + i % 9, None, Sampling(seed=i))
                for i in range(20)]
    crowd = collect(Engine(model, tokenizer, n_slots, 64, chunk), jobs())
    assert crowd == [collect(Engine(model, tokenizer, 1, 1, chunk), [job])[0] for job in jobs()]
    assert len({answer[0] for answer in crowd}) > 15


def speculating(model, tokenizer, kind):
    """An engine with a draft: the text itself, or a model near enough to the target to be right now and then."""
    if kind == "lookup":
        return Engine(model, tokenizer, 4, 64, draft=Lookup(model.config.vocab_size))
    draft = GPT(model.config, params=model.params.astype(np.float32))
    draft.params.flat[:] += 0.01 * np.random.default_rng(3).standard_normal(draft.params.flat.size)
    return Engine(model, tokenizer, 4, 64, draft=draft)


@pytest.mark.parametrize("kind", ["lookup", "model"])
def test_speculation_changes_no_answer_that_must_repeat(model, tokenizer, kind):
    """Greedy alone: speculative, the same tokens. Seeded, or in a crowd: plain. Unseeded alone: speculative."""
    def job(prompt, repeatable=True, **sampling):
        return Job(tokenizer.encode(prompt), 30, None, Sampling(**sampling), top=2, repeatable=repeatable)

    engine, plain = speculating(model, tokenizer, kind), Engine(model, tokenizer, 4, 64)
    for prompt in PROMPTS:
        greedy = job(prompt, temperature=0)
        assert collect(engine, [greedy]) == collect(plain, [job(prompt, temperature=0)])
        assert greedy.counts.tokens >= 29 and greedy.counts.drafted >= greedy.counts.accepted
        seeded = job(prompt, seed=5)
        assert collect(engine, [seeded]) == collect(plain, [job(prompt, seed=5)]) and seeded.counts is None
        free = job(prompt, repeatable=False, seed=5)
        assert len(collect(engine, [free])[0][1]) == 30 and free.counts.passes > 0
    assert collect(engine, [Job(tokenizer.encode("the"), 0, None, Sampling(0))]) == [("", [], "length")]
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
    with running(gate, tokenizer, {"n_slots": 1, "n_waiting": 2}) as server, ThreadPoolExecutor(8) as pool:
        body = {"prompt": "the", "max_tokens": 3, "temperature": 0}
        first = [pool.submit(server.client.post, "/v1/completions", json=body)]
        wait_until(lambda: server.engine.active)
        first += [pool.submit(server.client.post, "/v1/completions", json=body) for _ in range(2)]
        wait_until(lambda: len(server.engine.waiting) == 2)
        for more in (body, body | {"stream": True}, body | {"n": 3}):
            refused = server.client.post("/v1/completions", json=more)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "queue_full"
        gate.open.set()
        assert len({future.result().json()["choices"][0]["text"] for future in first}) == 1
        assert server.client.post("/v1/completions", json=body).status_code == 200


def test_a_client_that_leaves_frees_its_slot(model, tokenizer):
    """Waiting, in prefill or decoding; whole or streamed: the slot goes to the next at once."""
    gate = Gate(model)
    body = {"prompt": "the", "max_tokens": 100, "temperature": 0}
    with running(gate, tokenizer, {"n_slots": 1, "n_waiting": 8}) as server:
        for stream in (False, True):
            gate.open.clear()
            for _ in range(2):                  # the first gets the slot, the second waits
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
