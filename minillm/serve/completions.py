"""From a request's body to its answer: jobs for the engine, and their pieces as one JSON object or as a stream.

Streams are server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""
import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from ..tokenizer import Tokenizer
from . import answers, protocol
from .engine import Engine, Job, Piece, QueueFull, ShuttingDown
from .errors import ApiError
from .protocol import Ask
from .tool_calls import CallReader

MAX_BODY = 1 << 20          # bytes
DRAIN = 8                   # a body up to so many times too large is read to its end, unkept: who is still sending when
                            # the connection closes never sees the answer
BODY_SECONDS = 30           # for a body to arrive
SMALL = 1 << 14             # bytes of a body that is read in a few milliseconds


class Disconnected(Exception):
    """The client went away; nobody hears the rest."""


class Parser:
    """protocol.parse on a thread, so that a large body stops no stream, nor many of them.

    One large and one small at a time: the event loop has its turn after each, and the small do not wait for the large.
    """

    def __init__(self) -> None:
        self.lanes = asyncio.Semaphore(), asyncio.Semaphore()

    async def parse(self, raw: bytes, *more: Any) -> Ask:
        async with self.lanes[len(raw) > SMALL]:
            return await asyncio.to_thread(protocol.parse, raw, *more)


async def answer(engine: Engine, model_name: str, max_body: int, parser: Parser, chat: bool, request: Any) -> Any:
    """A request from its body to its answer, whole or as a stream."""
    raw = await read_body(request, max_body)
    block_size = engine.model.config.block_size
    ask = await parser.parse(raw, chat, model_name, engine.tokenizer, block_size)
    if engine.filtered and ask.top is not None:
        raise ApiError(400, "logprobs are not supported: this server filters its answers, and they show every token.",
                       "logprobs", "unsupported_parameter")
    queue: asyncio.Queue = asyncio.Queue()      # holds at most the tokens of the answers: they have an end
    shown = frozenset(id for text, id in engine.tokenizer.special_tokens.items() if text in ask.shown)
    jobs = [make_job(ask, ids, choice, block_size, queue, i * ask.n + choice, shown)
            for i, ids in enumerate(ask.prompts) for choice in range(ask.n)]
    if len(jobs) > (most := engine.n_slots + engine.n_waiting):
        raise ApiError(400, f"These are {len(jobs)} answers; the server holds {most} at most.",
                       "n" if ask.n > 1 else "prompt")
    submit(engine, jobs)
    pieces = receive_pieces(engine, jobs, queue, request.receive)
    if ask.stream:
        return await stream_response(stream_chunks(ask, engine.tokenizer, jobs, pieces))
    async with contextlib.aclosing(pieces):
        return json_response(await whole_answer(ask, engine.tokenizer, jobs, pieces))


def json_response(value: Any, status: int = 200, headers: dict | None = None) -> Any:
    """JSON in ASCII: a lone surrogate in somebody's text has no other form."""
    from starlette.responses import Response
    return Response(json.dumps(value), status, headers, "application/json")


async def read_body(request: Any, limit: int) -> bytes:
    """The body's bytes. Raises ApiError: 413 for more than `limit`, 415 if it is not called JSON, 408 if it stalls.

    Raises Disconnected if the client goes away before its end.
    """
    from starlette.requests import ClientDisconnect
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
    except ClientDisconnect:
        raise Disconnected from None
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.", headers={"connection": "close"}) from None
    if size > limit:
        raise too_large(limit)
    return bytes(raw)


def int_or_zero(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes.", headers={"connection": "close"})


def make_job(ask: Ask, ids: list[int], choice: int, block_size: int, queue: asyncio.Queue, index: int,
             shown: frozenset[int]) -> Job:
    """One answer's job, whose pieces go to `queue` as (index, piece), from the engine's thread into this loop."""
    loop = asyncio.get_running_loop()

    def put(piece: Piece | Exception) -> None:
        with contextlib.suppress(RuntimeError):         # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(queue.put_nowait, (index, piece))

    settings = protocol.sampling_of(ask, choice)
    room = block_size - len(ids)
    longest = room if ask.max_tokens is None else min(ask.max_tokens, room)
    return Job(ids, longest, put if ask.stream else at_once(put), settings, ask.stop, ask.stop_ids, ask.top or 0,
               score=ask.echo and ask.top is not None, repeatable=ask.seeded, grammar=ask.grammar,
               shown=shown)


def at_once(put: Callable[[Piece | Exception], object]) -> Callable[[Piece | Exception], object]:
    """A `put` that keeps the pieces until the last and sends them as one: nobody reads them before, and waking the
    event loop for each token takes longer than a small model's step."""
    kept: list[Piece] = []

    def keep(piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            put(piece)
            return
        kept.append(piece)
        if piece.finish_reason:
            put(Piece("".join(p.text for p in kept), [step for p in kept for step in p.steps], piece.n_tokens,
                      piece.finish_reason))
    return keep


def submit(engine: Engine, jobs: list[Job]) -> None:
    try:
        engine.submit(jobs)
    except QueueFull as error:
        raise ApiError(429, f"The server is busy: {error}.", None, "queue_full", {"retry-after": "1"}) from None
    except ShuttingDown as error:
        raise ApiError(503, f"{error}.", headers={"retry-after": "5"}) from None


async def receive_pieces(engine: Engine, jobs: list[Job], queue: asyncio.Queue,
                         receive: Callable) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yield (index, piece) until every job has ended. A client that goes away cancels them all."""
    async def listen() -> None:
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


async def whole_answer(ask: Ask, tokenizer: Tokenizer, jobs: list[Job], pieces: AsyncGenerator) -> dict:
    last: list = [None] * len(jobs)
    async for index, piece in pieces:               # one for each job: see at_once
        last[index] = piece
    choices = [whole_choice(ask, tokenizer, jobs[index], index, piece) for index, piece in enumerate(last)]
    return answers.envelope(ask, answers.new_id(ask.chat)) | {
        "choices": choices, "usage": answers.usage(ask, jobs, last)}


def whole_choice(ask: Ask, tokenizer: Tokenizer, job: Job, index: int, piece: Piece) -> dict:
    """One of the answers, its prompt before it if that was asked for."""
    echoed = echo(ask, tokenizer, index)
    logprobs = answers.logprobs(ask, tokenizer, piece.steps, len(echoed))
    if ask.echo and logprobs:
        prompt = answers.prompt_logprobs(ask, tokenizer, job) or {}
        logprobs = {key: prompt[key] + logprobs[key] for key in prompt}
    return answers.whole_choice(ask, index, echoed + piece.text, logprobs, piece.finish_reason)


def echo(ask: Ask, tokenizer: Tokenizer, index: int) -> str:
    """What an answer's text begins with: its prompt, if that was asked for."""
    return tokenizer.decode(ask.prompts[index // ask.n]) if ask.echo else ""


async def stream_chunks(ask: Ask, tokenizer: Tokenizer, jobs: list[Job], pieces: AsyncGenerator) -> AsyncGenerator:
    """Yield the chunks of a streamed answer as dicts."""
    head = answers.envelope(ask, answers.new_id(ask.chat), chunk=True)
    if ask.include_usage:
        head |= {"usage": None}
    last: list = [None] * len(jobs)
    readers = [CallReader(ask.calls, ask.one_call) if ask.calls else None for _ in jobs]
    async with contextlib.aclosing(pieces):
        async for index, piece in pieces:
            echoed = echo(ask, tokenizer, index)
            if last[index] is None:
                for choice in answers.opening(ask, tokenizer, jobs[index], index, echoed):
                    yield head | {"choices": [choice]}
            last[index] = piece
            logprobs = answers.logprobs(ask, tokenizer, piece.steps, len(echoed))
            choice = answers.chunk_choice(ask, index, piece.text, logprobs, piece.finish_reason, readers[index])
            if not ask.chat or choice["delta"] or choice["finish_reason"]:
                yield head | {"choices": [choice]}
    if ask.include_usage:
        yield head | {"choices": [], "usage": answers.usage(ask, jobs, last)}


async def stream_response(chunks: AsyncGenerator) -> Callable:
    """An ASGI response of server-sent events. Its status waits for the first chunk: errors before it are plain."""
    try:
        first = await anext(chunks)
    except BaseException:
        await chunks.aclose()
        raise

    async def respond(scope: dict, receive: Callable, send: Callable) -> None:
        async with contextlib.aclosing(chunks):
            await send({"type": "http.response.start", "status": 200, "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no")]})
            with contextlib.suppress(Disconnected, OSError):
                await send_event(send, first)
                await send_events(send, chunks)
                await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    return respond


async def send_events(send: Callable, chunks: AsyncGenerator) -> None:
    """The rest of the chunks; an error among them is the last event."""
    try:
        async for chunk in chunks:
            await send_event(send, chunk)
    except (Disconnected, OSError):
        raise
    except ApiError as error:
        await send_event(send, error.body())


async def send_event(send: Callable, value: dict) -> None:
    await send({"type": "http.response.body", "body": b"data: " + json.dumps(value).encode() + b"\n\n",
                "more_body": True})
