"""Slow, idle and crowding clients: their connections end in time and keep nobody out."""
import contextlib
import resource
import socket
import time
from types import SimpleNamespace

import pytest
from serving import command, httpx, idle, model, running, tokenizer, wait_until  # noqa: F401  (fixtures)
from small_models import talker  # noqa: F401  (a fixture)

from minillm.serve import completions
from minillm.serve.connections import Limits

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SLOW = {"nothing": b"", "half a head": HEAD, "half a body": HEAD + b"content-length: 50\r\n\r\n{"}


def connect(server, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 10, (source, 0))


def closed(sock):
    """Whether the server has ended the connection; waits for what it says for at most 10 s."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(1 << 16):
            pass
    return True


@pytest.mark.parametrize("sent", SLOW)
def test_half_a_request_is_closed_in_time(model, tokenizer, monkeypatch, sent):
    """Whether nothing came, or half a head, or half a body; and however slowly more of it comes."""
    monkeypatch.setattr(completions, "BODY_SECONDS", 0.6)
    with running(model, tokenizer, limits=Limits(head_seconds=0.6)) as server, connect(server) as sock:
        sock.sendall(SLOW[sent])
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while sent != "nothing" and time.monotonic() < start + 5:
                sock.sendall(b"x")              # a byte at a time keeps it open no longer
                time.sleep(0.05)
        assert closed(sock) and time.monotonic() - start < 4


def test_the_second_request_of_a_connection_has_the_same_time(model, tokenizer):
    with running(model, tokenizer, limits=Limits(head_seconds=0.5)) as server, connect(server) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200 OK" in sock.recv(1 << 16)
        time.sleep(1)                           # between two requests it may be idle for longer
        start = time.monotonic()
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        assert closed(sock) and time.monotonic() - start < 4


def test_who_does_not_read_is_dropped(model, tokenizer):
    """An answer larger than the buffers between us, and a client that takes nothing of it."""
    with running(model, tokenizer, limits=Limits(unread_seconds=0.5)) as server, connect(server) as sock:
        sock.sendall(b"GET /page.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000)
        connections = server.server.server_state.connections
        wait_until(lambda: connections)
        wait_until(lambda: not connections, 15)


@pytest.mark.parametrize("sent", SLOW)
def test_a_crowd_of_half_open_connections_keeps_nobody_out(model, tokenizer, sent):
    """Of the crowd's own address or another; a request that is being answered is never dropped for them."""
    body = {"prompt": "the", "max_tokens": 100, "temperature": 0, "stream": True, "stop": "\0"}
    limits = Limits(connections=60, per_address=40)
    with running(model, tokenizer, limits=limits) as server, contextlib.ExitStack() as stack:
        with server.client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            for source in ["127.0.0.1"] * 150 + ["127.0.0.2"] * 150 + [f"127.0.1.{i}" for i in range(1, 100)]:
                stack.enter_context(connect(server, source)).sendall(SLOW[sent])
            for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                transport = httpx.HTTPTransport(local_address=source)
                with httpx.Client(base_url=server.url, transport=transport, timeout=10) as client:
                    assert client.get("/health").status_code == 200
            assert len(server.server.server_state.connections) <= 60
            assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_flood_does_not_use_up_the_files(talker):
    """1,500 at once from one address and from many, at a server that may open 1,024 files: it accepts no more at a time
    than it has room for, says nothing, and answers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("too few files for so many clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    try:
        with command(talker) as (process, url):
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1024, hard))
            for count in (1, 40):
                with contextlib.ExitStack() as stack:
                    for i in range(1500):
                        there = SimpleNamespace(url=url)
                        stack.enter_context(connect(there, f"127.0.{1 + i % count}.1")).sendall(HEAD)
                    assert httpx.get(url + "/health", timeout=20).status_code == 200
            process.kill()
            assert process.stderr.read() == ""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_leaves_in_mid_body_is_no_error(model, tokenizer, caplog):
    """Nor one that leaves before its answer: nothing is logged, the metrics count it."""
    with running(model, tokenizer) as server:
        for half in (SLOW["half a body"], HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{"):
            with connect(server) as sock:
                sock.sendall(half)
                time.sleep(0.1)
        whole = b'{"prompt": "the", "max_tokens": 120, "stream": true}'
        with connect(server) as sock:
            sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(whole) + whole)
            sock.recv(10)
        count = 'requests_total{route="/v1/completions",status="499"} 2'
        wait_until(lambda: count in server.client.get("/metrics").text and idle(server.engine), 10)
    assert not caplog.records


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_a_body_that_is_no_http_is_no_error(model, tokenizer, caplog, host):
    """The answer to the head, which may have begun, and the one to the body are not both sent."""
    head = HEAD.replace(b"localhost", host.encode()) + b"transfer-encoding: chunked\r\n\r\n"
    with running(model, tokenizer) as server:
        for pieces in ([head.replace(b"POST", b"HEAD") + b"no chunk\r\n"], [head + b"no chunk\r\n"],
                       [head, b"no chunk\r\n"], [head + b"5\r\n{", b"}12345678"]):
            with connect(server) as sock:
                for piece in pieces:
                    sock.sendall(piece)
                    time.sleep(0.05)
                assert closed(sock)
        assert server.client.get("/health").status_code == 200
    assert "Traceback" not in caplog.text and not [r for r in caplog.records if r.levelname == "ERROR"], caplog.text


def test_two_lengths_of_a_body_close_the_connection(model, tokenizer):
    """What follows is not taken for another request."""
    with running(model, tokenizer) as server, connect(server) as sock:
        sock.sendall(HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                     b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        text = b""
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(1 << 16):
                text += part
        assert text.startswith(b"HTTP/1.1 400") and b"connection: close" in text and text.count(b"HTTP/1.1") == 1
