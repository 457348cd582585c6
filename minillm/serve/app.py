"""The server's HTTP side: routes, limits, streams, and how it starts and stops.

    GET  /                       the chat page             GET /health   GET /metrics
    GET  /v1/models              what is served
    POST /v1/completions         continue a text
    POST /v1/chat/completions    answer in a conversation

It listens on this machine alone unless told otherwise, and then refuses other names in the Host header: a web page
cannot reach it by pointing a name of its own at 127.0.0.1. Bodies must be JSON by their content type, which a page of
another origin may not send without asking first; and nothing is ever answered with permission to ask.
Streams are server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""
import asyncio
import contextlib
import hmac
import json
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..generate import TextStream
from . import protocol
from .engine import Job, Piece, QueueFull, ShuttingDown
from .metrics import Counter
from .protocol import ApiError

MAX_BODY = 1 << 20          # bytes
DRAIN = 8                   # a body up to so many times too large is read to its end, unkept: who is still sending when
                            # the connection closes never sees the answer
BODY_SECONDS = 30           # for a body to arrive
ASSETS = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
          "/page.css": ("page.css", "text/css")}
PAGE_HEADERS = {"content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
                "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Disconnected(Exception):
    """The client went away; nobody hears the rest."""


def create_app(engine, model_name, api_key=None, max_body=MAX_BODY, hosts=None):
    """The ASGI application. The engine must be started. hosts: the names the server answers to (default: any)."""
    starlette = need_starlette()
    requests = Counter("minillm_http_requests_total", "HTTP requests, by route and status.", "route", "status")
    complete = partial(answer, engine, model_name, api_key, max_body)
    guard = partial(authorize, api_key)
    routes = {
        ("GET", "/v1/models"): guarded(guard, partial(list_models, engine, model_name)),
        ("GET", "/v1/models/{model}"): guarded(guard, partial(show_model, engine, model_name)),
        ("POST", "/v1/completions"): partial(complete, False),
        ("POST", "/v1/chat/completions"): partial(complete, True),
        ("GET", "/health"): partial(health, engine),
        ("GET", "/metrics"): partial(metrics, engine, requests),
    } | {("GET", path): partial(asset, *file) for path, file in ASSETS.items()}
    app = starlette.applications.Starlette(
        routes=[starlette.routing.Route(path, endpoint(function), methods=[method])
                for (method, path), function in routes.items()],
        exception_handlers={ApiError: on_api_error, Disconnected: on_disconnected, Exception: on_bug,
                            starlette.exceptions.HTTPException: on_http_error})
    return counted(known_hosts(app, hosts), requests, [path for _, path in routes])


def need_starlette():
    try:
        import starlette.applications
        import starlette.exceptions
        import starlette.responses
        import starlette.routing
    except ImportError:
        raise ImportError("the server needs starlette and uvicorn: pip install 'minillm[serve]'") from None
    return starlette


def endpoint(function):
    """A coroutine function of the request, as Starlette wants it (it does not look into a partial)."""
    async def call(request):
        return await function(request)
    return call


def guarded(guard, function):
    """The function, after the key was checked."""
    async def call(request):
        guard(request)
        return await function(request)
    return call


def authorize(api_key, request):
    """The key must be the one the server was given; the time this takes tells nothing about it."""
    if api_key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")     # as the bytes came
    if not hmac.compare_digest(given, api_key.encode()):
        raise ApiError(401, "Incorrect API key provided. Send it as 'Authorization: Bearer KEY'.", None,
                       "invalid_api_key", {"www-authenticate": "Bearer"})


# What surrounds every request

def counted(app, requests, paths):
    """The application, its answers counted by route and status; paths that are not ours share one name."""
    async def call(scope, receive, send):
        async def observe(message):
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in paths else "other"
                requests.add(1, path, message["status"])
            await send(message)
        await app(scope, receive, observe if scope["type"] == "http" else send)
    return call


def known_hosts(app, hosts):
    """The application, for requests to these names only."""
    if hosts is None:
        return app

    async def call(scope, receive, send):
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            name = given.partition("]")[0][1:] if given.startswith("[") else given.partition(":")[0]
            if name not in hosts:
                error = ApiError(403, "This server does not answer to the name in the Host header.")
                return await error_response(error)(scope, receive, send)
        await app(scope, receive, send)
    return call


def json_response(value, status=200, headers=None):
    """JSON in ASCII: a lone surrogate in somebody's text has no other form."""
    from starlette.responses import Response
    return Response(json.dumps(value), status, headers, "application/json")


def error_response(error):
    return json_response(error.body(), error.status, error.headers)


async def on_api_error(request, error):
    return error_response(error)


async def on_http_error(request, error):
    return error_response(ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path[:200]}.",
                                   headers=error.headers))


async def on_disconnected(request, error):
    return json_response({}, 499)               # for the metrics; nobody hears it


async def on_bug(request, error):
    return error_response(ApiError(500, "The server failed on this request; its log says more."))


# The small routes

async def list_models(engine, model_name, request):
    return json_response({"object": "list", "data": [model_card(engine, model_name)]})


async def show_model(engine, model_name, request):
    if request.path_params["model"] != model_name:
        raise ApiError(404, f"This server has the model {model_name!r} only.", "model", "model_not_found")
    return json_response(model_card(engine, model_name))


def model_card(engine, model_name):
    return {"id": model_name, "object": "model", "created": engine.created, "owned_by": "minillm",
            "context_length": engine.model.config.block_size, "speculative": engine.draft is not None}


async def health(engine, request):
    return json_response({"status": "ok" if engine.healthy else "stopping"}, 200 if engine.healthy else 503)


async def metrics(engine, requests, request):
    from starlette.responses import Response
    lines = [*engine.metric_lines(), *requests.lines()]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


async def asset(name, media_type, request):
    from starlette.responses import Response
    return Response((Path(__file__).parent / name).read_bytes(), 200, PAGE_HEADERS, f"{media_type}; charset=utf-8")


# Completions

async def answer(engine, model_name, api_key, max_body, chat, request):
    """A request from its headers to its answer, whole or as a stream."""
    authorize(api_key, request)
    raw = await read_body(request, max_body)
    block_size = engine.model.config.block_size
    ask = protocol.parse(raw, chat, model_name, engine.tokenizer, block_size)
    if engine.new_text is not TextStream:               # filtered: the tokens would tell what the text does not
        ask = replace(ask, top=None)
    queue = asyncio.Queue()                     # holds at most the tokens of the answers: they have an end
    jobs = [make_job(ask, ids, choice, block_size, queue, i * ask.n + choice)
            for i, ids in enumerate(ask.prompts) for choice in range(ask.n)]
    submit(engine, jobs)
    pieces = receive_pieces(engine, jobs, queue, request.receive)
    if ask.stream:
        return await stream_response(stream_chunks(ask, engine.tokenizer, jobs, pieces))
    async with contextlib.aclosing(pieces):
        return json_response(await whole_answer(ask, engine.tokenizer, jobs, pieces))


async def read_body(request, limit):
    """The body's bytes. Raises ApiError: 413 for more than `limit`, 415 if it is not called JSON, 408 if it stalls."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "The Content-Type must be application/json.", headers={"connection": "close"})
    if int_or_zero(request.headers.get("content-length")) > DRAIN * limit:
        raise too_large(limit)
    raw, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > DRAIN * limit:
                    break
                if size <= limit:
                    raw += part
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.", headers={"connection": "close"}) from None
    if size > limit:
        raise too_large(limit)
    return bytes(raw)


def int_or_zero(text):
    return int(text) if text and text.isdecimal() else 0


def too_large(limit):
    return ApiError(413, f"The body is larger than {limit} bytes.", headers={"connection": "close"})


def make_job(ask, ids, choice, block_size, queue, index):
    """One answer's job, whose pieces go to `queue` as (index, piece), from the engine's thread into this loop."""
    loop = asyncio.get_running_loop()

    def put(piece):
        with contextlib.suppress(RuntimeError):         # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(queue.put_nowait, (index, piece))

    settings = protocol.sampling_of(ask, choice)
    return Job(ids, ask.max_tokens or block_size - len(ids), put if ask.stream else at_once(put), settings, ask.stop,
               ask.stop_ids, ask.top or 0, score=ask.echo and ask.top is not None, repeatable=ask.seeded)


def at_once(put):
    """A `put` that keeps the pieces until the last and sends them as one: nobody reads them before, and waking the
    event loop for each token takes longer than a small model's step."""
    kept = []

    def keep(piece):
        if isinstance(piece, Exception):
            return put(piece)
        kept.append(piece)
        if piece.finish_reason:
            put(Piece("".join(p.text for p in kept), [step for p in kept for step in p.steps], piece.n_tokens,
                      piece.finish_reason))
    return keep


def submit(engine, jobs):
    try:
        engine.submit(jobs)
    except QueueFull as error:
        raise ApiError(429, f"The server is busy: {error}.", None, "queue_full", {"retry-after": "1"}) from None
    except ShuttingDown as error:
        raise ApiError(503, f"{error}.", headers={"retry-after": "5"}) from None


async def receive_pieces(engine, jobs, queue, receive):
    """Yield (index, piece) until every job has ended. A client that goes away cancels them all."""
    async def listen():
        while (await receive())["type"] != "http.disconnect":
            pass
        queue.put_nowait((0, Disconnected()))

    listener, left = asyncio.create_task(listen()), len(jobs)
    try:
        while left:
            index, piece = await queue.get()
            if isinstance(piece, ShuttingDown):
                raise ApiError(503, f"{piece}.", headers={"retry-after": "5"})
            if isinstance(piece, Disconnected):
                raise piece
            if isinstance(piece, Exception):
                raise ApiError(500, "The model failed on this request; the server's log says more.")
            yield index, piece
            left -= piece.finish_reason is not None
    finally:
        listener.cancel()
        engine.cancel(jobs)


async def whole_answer(ask, tokenizer, jobs, pieces):
    last = [None] * len(jobs)
    async for index, piece in pieces:               # one for each job: see at_once
        last[index] = piece
    choices = [whole_choice(ask, tokenizer, jobs[index], index, piece) for index, piece in enumerate(last)]
    return protocol.envelope(ask, protocol.new_id(ask.chat)) | {
        "choices": choices, "usage": protocol.usage(ask, jobs, last)}


def whole_choice(ask, tokenizer, job, index, piece):
    """One of the answers, its prompt before it if that was asked for."""
    echoed = echo(ask, tokenizer, index)
    logprobs = protocol.logprobs(ask, tokenizer, piece.steps, len(echoed))
    if ask.echo and logprobs:
        prompt = protocol.prompt_logprobs(ask, tokenizer, job)
        logprobs = {key: prompt[key] + logprobs[key] for key in prompt}
    return protocol.whole_choice(ask, index, echoed + piece.text, logprobs, piece.finish_reason)


def echo(ask, tokenizer, index):
    """What an answer's text begins with: its prompt, if that was asked for."""
    return tokenizer.decode(ask.prompts[index // ask.n]) if ask.echo else ""


async def stream_chunks(ask, tokenizer, jobs, pieces):
    """Yield the chunks of a streamed answer as dicts."""
    head = protocol.envelope(ask, protocol.new_id(ask.chat), chunk=True)
    if ask.include_usage:
        head |= {"usage": None}
    last = [None] * len(jobs)
    async with contextlib.aclosing(pieces):
        async for index, piece in pieces:
            echoed = echo(ask, tokenizer, index)
            if last[index] is None:
                for choice in protocol.opening(ask, tokenizer, jobs[index], index, echoed):
                    yield head | {"choices": [choice]}
            last[index] = piece
            logprobs = protocol.logprobs(ask, tokenizer, piece.steps, len(echoed))
            yield head | {"choices": [protocol.chunk_choice(ask, index, piece.text, logprobs, piece.finish_reason)]}
    if ask.include_usage:
        yield head | {"choices": [], "usage": protocol.usage(ask, jobs, last)}


async def stream_response(chunks):
    """An ASGI response of server-sent events. Its status waits for the first chunk: errors before it are plain."""
    try:
        first = await anext(chunks)
    except BaseException:
        await chunks.aclose()
        raise

    async def respond(scope, receive, send):
        async with contextlib.aclosing(chunks):
            await send({"type": "http.response.start", "status": 200, "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no")]})
            with contextlib.suppress(Disconnected, OSError):
                await send_event(send, first)
                await send_events(send, chunks)
                await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    return respond


async def send_events(send, chunks):
    """The rest of the chunks; an error among them is the last event."""
    try:
        async for chunk in chunks:
            await send_event(send, chunk)
    except (Disconnected, OSError):
        raise
    except ApiError as error:
        await send_event(send, error.body())


async def send_event(send, value):
    await send({"type": "http.response.body", "body": b"data: " + json.dumps(value).encode() + b"\n\n",
                "more_body": True})


# Start and stop

def serve(engine, model_name, host="127.0.0.1", port=8000, api_key=None, grace=10.0, ready=None):
    """Serve until SIGTERM or SIGINT; then no request is taken any more and what runs has `grace` seconds to finish.

    ready: called with the address once the server listens. Raises OSError if the port is taken.
    """
    server = make_server(engine, model_name, host, port, api_key, grace, ready)
    engine.start()
    try:
        with listening_socket(host, port) as sock:
            server.run([sock])
    finally:
        engine.close()
        engine.thread.join(timeout=5)


def make_server(engine, model_name, host="127.0.0.1", port=8000, api_key=None, grace=10.0, ready=None):
    """The uvicorn.Server that `serve` runs."""
    uvicorn = need_uvicorn()

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            if ready:
                ready(f"http://{host}:{sockets[0].getsockname()[1] if sockets else port}")

        async def shutdown(self, sockets=None):
            engine.close(grace)                     # before the wait for open connections, which it brings to an end
            await super().shutdown(sockets)

    app = create_app(engine, model_name, api_key, hosts=LOOPBACK if host in LOOPBACK and api_key is None else None)
    return Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False,
                                 limit_concurrency=1024, timeout_keep_alive=30,
                                 timeout_graceful_shutdown=int(grace) + 5))


def listening_socket(host, port):
    """Bound before the server starts, so that a port that is taken is a plain OSError.

    Made by hand because asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP; others wait 40 ms
    before the second packet of every answer.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
        return sock
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def need_uvicorn():
    try:
        import uvicorn
    except ImportError:
        raise ImportError("the server needs starlette and uvicorn: pip install 'minillm[serve]'") from None
    return uvicorn
