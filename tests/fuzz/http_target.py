"""The server's protocol: whatever bytes come in, an answer that is no fault of the server's, and others are served."""

import json
import logging
import socket

from minillm import GPT, GPTConfig, Tokenizer

from . import mutations as m
from .targets import Missing, target

COMPLETION = {
    "model": "tiny",
    "prompt": "the quick",
    "max_tokens": 3,
    "temperature": 0.5,
    "seed": 1,
    "n": 1,
    "stop": ["x"],
    "logprobs": 1,
    "echo": False,
    "stream": False,
    "logit_bias": {"5": 1},
    "top_p": 0.9,
    "presence_penalty": 0.1,
}
CHAT = {
    "model": "tiny",
    "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    "max_tokens": 3,
    "stream": True,
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
    "logprobs": True,
    "top_logprobs": 2,
    "tools": None,
}
PATHS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/models",
    "/",
    "/metrics",
    "/health",
    "/v1/models/tiny",
    "/nothing",
)
HEADERS = (
    b"Content-Type: application/json",
    b"Transfer-Encoding: chunked",
    b"Content-Length: -1",
    b"Content-Length: 5",
    b"Content-Length: 99999999999",
    b"Expect: 100-continue",
    b"Authorization: Bearer \xff",
    b"Origin: http://evil.example",
    b"Host: evil.example",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"X: " + b"y" * 9000,
    b"no colon",
    b": empty",
    b"Cookie: a=\0",
    b"Accept-Encoding: gzip",
    b"Content-Encoding: gzip",
)


class Errors(logging.Handler):
    """What the server logs as an error, tracebacks among it."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(self.format(record))


def request(rng) -> tuple[bytes, bool]:
    """(the bytes, whether they are a whole request: else the client says that no more will come)."""
    body = rng.choice((COMPLETION, CHAT))
    path = PATHS[body is CHAT] if rng.random() < 0.8 else rng.choice(PATHS)
    for _ in range(rng.choice((0, 1, 1, 2))):
        body = m.json_(rng, body)
    data = m.json_text(rng, body)
    method = rng.choice(("POST",) * 8 + ("GET", "HEAD", "OPTIONS", "BREW"))
    length = len(data) if rng.random() < 0.95 else rng.choice((0, 1, len(data) + 5))
    more = rng.sample(HEADERS, rng.choice((0, 0, 0, 1, 2)))
    headers = [b"Host: 127.0.0.1", b"Content-Type: application/json", b"Content-Length: %d" % length, *more]
    whole = b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *headers, b"Connection: close", b"", data])
    if rng.random() < 0.15:
        return m.bytes_(rng, whole), False
    return whole, length == len(data) and not more


def answer(address, data: bytes, whole: bool = True) -> bytes:
    """All that the server says before it closes the connection; if the request is not whole, the client leaves."""
    with socket.create_connection(address, timeout=30) as sock:
        parts = []
        try:
            sock.sendall(data)
            if not whole:
                sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                parts.append(part)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return b"".join(parts)


@target()
def http(folder):
    try:
        from _pytest.outcomes import Skipped

        try:
            from serving import running
        except Skipped as error:
            raise Missing(str(error)) from error
    except ImportError as error:
        raise Missing(str(error)) from error
    tokenizer = Tokenizer.train(
        ["the quick brown fox " * 9],
        290,
        stop_early=True,
        special_tokens=["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
    )
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64, vocab_size=tokenizer.vocab_size), 0)
    context, errors = running(model, tokenizer), Errors()
    server = context.__enter__()
    logging.getLogger().addHandler(errors)
    for name in ("uvicorn", "uvicorn.error", "minillm"):
        logging.getLogger(name).addHandler(errors)
    host, port = server.url.removeprefix("http://").split(":")
    address = host, int(port)
    good = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1}).encode()

    def draw(rng):
        data, whole = request(rng)

        def run():
            errors.found.clear()
            said = answer(address, data, whole)
            assert said or not whole, data
            status = said.split(b" ", 2)[1:2]
            assert not said or said.startswith(b"HTTP/1.") and status[0] < b"500" or status[0] in (b"501", b"505"), (
                said,
                data,
            )
            assert not errors.found, (errors.found, data)
            if rng.random() < 0.05:
                head = (
                    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                )
                said = answer(address, head % len(good) + good)
                assert b" 200 " in said[:20] and b"choices" in said, (said, data)
                json.loads(said[said.index(b"{") : said.rindex(b"}") + 1])

        return len(data), run

    draw.close = lambda: context.__exit__(None, None, None)
    return draw
