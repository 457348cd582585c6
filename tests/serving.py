"""What the tests of the server share: a small model, a server that runs, and what an answer should be."""
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer
from minillm.generation.decode import steps
from minillm.generation.text import TextStream
from minillm.serve.engine import Engine

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from minillm.serve import listen  # noqa: E402

NAME, BLOCK = "tiny", 128
PROMPTS = ["the quick", "Naïve ☃ ", "漢字", "over the lazy dog. the", "x" * 40, "brown fox jumps!"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the quick brown fox jumps over the lazy dog. Naïve ☃ 漢字! " * 30], 300, stop_early=True)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Far from its initialisation: answers that differ much between prompts and between seeds."""
    found = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=BLOCK, vocab_size=tokenizer.vocab_size), seed=0)
    found.params.flat[:] += 0.1 * np.random.default_rng(2).standard_normal(found.params.flat.size)
    return found


@contextlib.contextmanager
def running(model, tokenizer, engine_options=None, name=NAME, **options):
    """A real server on a free port, in a thread; gives its address and its engine."""
    engine, address = Engine(model, tokenizer, **(engine_options or {})), []
    server = listen.make_server(engine, name, ready=address.append, grace=1, **options)
    engine.start()
    sock = listen.listening_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        wait_until(lambda: address)
        yield SimpleNamespace(url=address[0], engine=engine, server=server,
                              client=httpx.Client(base_url=address[0], timeout=60))
    finally:
        server.should_exit = True
        thread.join(30)
        engine.thread.join(30)
    assert not thread.is_alive() and not engine.thread.is_alive()


@pytest.fixture(scope="module")
def server(model, tokenizer):
    with running(model, tokenizer) as server:
        yield server


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def idle(engine):
    return not engine.active and not engine.waiting and len(engine.free_slots) == engine.n_slots


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
