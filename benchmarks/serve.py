"""Throughput of the server: tokens per second through HTTP with more and more concurrent clients, beside the library.

One step of the batched decode reads every weight once for all clients, so together they should get far more than one
gets alone, at little more latency. The model has random weights of the size that was asked for and a vocabulary
of GPT-2's size; every client sends its own prompt and seed, and all answers must be those that they get alone.
"""
import asyncio
import statistics
import threading
import time
from dataclasses import replace

from minillm import GPT, Tokenizer
from minillm.generation.decode import steps
from minillm.generation.sampling import Sampling
from minillm.generation.text import TextStream
from minillm.serve import listen
from minillm.serve.engine import Engine
from minillm.tokenizer.formats import BYTE_ORDER

from .measure import report_row
from .step import sizes

CLIENTS, ROUNDS, TOKENS, TEMPERATURE = (1, 2, 4, 8, 16), 5, 24, 0.7


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    try:
        import httpx
    except ImportError:
        return [], {}, {"all": "httpx is not installed"}
    config = replace(sizes(options.size, 1, 1)[0], block_size=256)
    model, tokenizer = GPT(config, seed=0), byte_tokenizer(config.vocab_size)
    rounds, wrong, times = options.repeat or ROUNDS, [], {name: [] for name in ("library", *CLIENTS)}
    expected = [alone(model, tokenizer, i)[0] for i in range(max(CLIENTS))]
    with running(Engine(model, tokenizer, n_slots=max(CLIENTS))) as url:
        asyncio.run(crowd(httpx, url, max(CLIENTS)))                # warm-up
        for done in range(rounds):
            times["library"].append(alone(model, tokenizer, 0)[1])
            for clients in CLIENTS:
                answers, seconds = asyncio.run(crowd(httpx, url, clients))
                times[clients].append(seconds)
                wrong += [f"client {i} of {clients} got another answer than alone"
                          for i, answer in enumerate(answers) if answer != expected[i]]
            if progress:
                progress(done + 1, rounds)
    dims = f"{options.size} {TOKENS} tokens a client"
    found = [row(dims, name, seconds, times[1]) for name, seconds in times.items()]
    return found, {"server": wrong} if wrong else {}, {}


def row(dims, name, seconds, one):
    clients = 1 if name == "library" else name
    rate, first = (n * TOKENS / statistics.median(s) for n, s in ((clients, seconds), (1, one)))
    candidate = "library" if name == "library" else f"{clients} client{'s' * (clients > 1)}"
    return report_row("serve", dims, "generate", candidate, "float32", seconds, tokens_per_second=rate,
                      x_minillm=rate / first)


def byte_tokenizer(vocab_size):
    """Bytes, and names for all other ids: enough to turn any token into text."""
    names = {f"<{id}>": id for id in range(256, vocab_size)}
    return Tokenizer([bytes([byte]) for byte in BYTE_ORDER] + [name.encode() for name in names], [], names)


def prompt_of(client):
    return f"Client {client} asks for a story. " + "Once upon a time. " * (client % 3)


def alone(model, tokenizer, client):
    """The client's answer without a server, and the seconds it took."""
    start, text, stream = time.perf_counter(), "", TextStream(tokenizer)
    for step in steps(model, tokenizer.encode(prompt_of(client)), TOKENS, Sampling(TEMPERATURE, seed=client)):
        text += stream.push(step.token)
    return text + stream.finish(), time.perf_counter() - start


class running:
    """A server of the engine on a free port, in threads; gives its address."""

    def __init__(self, engine):
        self.engine, self.ready = engine, threading.Event()

    def __enter__(self):
        sock = listen.listening_socket("127.0.0.1", 0)
        self.server = listen.make_server(self.engine, "bench", ready=lambda address: self.ready.set())
        self.thread = threading.Thread(target=self.server.run, args=([sock],))
        self.engine.start()
        self.thread.start()
        self.ready.wait(60)
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join()


async def crowd(httpx, url, clients):
    """`clients` requests at once; returns their texts and the seconds until the last had come."""
    async def ask(client, number):
        body = {"prompt": prompt_of(number), "max_tokens": TOKENS, "seed": number, "temperature": TEMPERATURE}
        return (await client.post("/v1/completions", json=body)).json()["choices"][0]["text"]

    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        start = time.perf_counter()
        texts = await asyncio.gather(*(ask(client, number) for number in range(clients)))
        return texts, time.perf_counter() - start
