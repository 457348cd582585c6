"""Answers in the form of OpenAI's protocol: whole or in chunks, with their log-probabilities and usage."""
import secrets
import time
from codecs import getincrementaldecoder
from itertools import accumulate
from typing import Any

from ..generation.decode import Step
from ..tokenizer import Tokenizer
from .engine import Job, Piece
from .protocol import Ask
from .tool_calls import CallReader


def new_id(chat: bool) -> str:
    return ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)


def envelope(ask: Ask, id: str, chunk: bool = False) -> dict:
    """What every answer, and every chunk of a streamed one, begins with."""
    kind = ("chat.completion.chunk" if chunk else "chat.completion") if ask.chat else "text_completion"
    return {"id": id, "object": kind, "created": int(time.time()), "model": ask.model}


def usage(ask: Ask, jobs: list[Job], last: list[Piece]) -> dict:
    """last: the last piece of each answer. After speculative decoding, accepted and rejected draft tokens, too."""
    prompt, written = sum(map(len, ask.prompts)), sum(piece.n_tokens for piece in last)
    tokens: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    if cached := sum(job.n_cached for job in jobs[::ask.n]):
        tokens["prompt_tokens_details"] = {"cached_tokens": cached}
    counts = [job.counts for job in jobs if job.counts]
    if counts:
        accepted, drafted = sum(c.accepted for c in counts), sum(c.drafted for c in counts)
        tokens["completion_tokens_details"] = {"accepted_prediction_tokens": accepted,
                                               "rejected_prediction_tokens": drafted - accepted}
    return tokens


def whole_choice(ask: Ask, index: int, text: str, logprobs: dict | None, reason: str | None) -> dict:
    choice = {"index": index, "logprobs": logprobs, "finish_reason": reason}
    if not ask.chat:
        return choice | {"text": text}
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if ask.calls:
        text, calls = CallReader(ask.calls, ask.one_call).push(text, True)
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
            choice["finish_reason"] = called(reason, len(calls))
    return choice | {"message": message}


def chunk_choice(ask: Ask, index: int, text: str, logprobs: dict | None, reason: str | None,
                 reader: CallReader | None = None) -> dict:
    """reader: of the answer's tool calls, if there may be any; each goes out whole, once it is complete."""
    choice = {"index": index, "logprobs": logprobs, "finish_reason": reason}
    if not ask.chat:
        return choice | {"text": text}
    delta: dict[str, Any] = {}
    if reader:
        first = reader.n_calls
        text, calls = reader.push(text, reason is not None)
        choice["finish_reason"] = called(reason, reader.n_calls)
        delta = {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls, first)]} if calls else {}
    return choice | {"delta": delta | ({"content": text} if text or logprobs else {})}


def called(reason: str | None, n_calls: int) -> str | None:
    """The reason why an answer ended, where it has so many calls."""
    return "tool_calls" if n_calls and reason == "stop" else reason


def opening(ask: Ask, tokenizer: Tokenizer, job: Job, index: int, echoed: str) -> list[dict]:
    """What a stream sends first for each answer: a chat names the voice, a completion may repeat the prompt."""
    if ask.chat:
        delta = {"role": "assistant", "content": ""}
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]
    return [chunk_choice(ask, index, echoed, prompt_logprobs(ask, tokenizer, job), None)] if ask.echo else []


def logprobs(ask: Ask, tokenizer: Tokenizer, steps: list[tuple[int, Step]], offset: int = 0) -> dict | None:
    """The log-probabilities of a piece's steps, [(place, Step)], in the form of the endpoint; None if not asked for.

    offset: characters that stand before the answer, an echoed prompt.
    """
    if ask.top is None:
        return None
    if ask.chat:
        return {"content": [chat_entry(tokenizer, step) for _, step in steps], "refusal": None}
    return {"tokens": [token_name(tokenizer, step.token) for _, step in steps],
            "token_logprobs": [step.logprob for _, step in steps],
            "top_logprobs": [{token_name(tokenizer, token): p for token, p in step.top} for _, step in steps],
            "text_offset": [offset + place for place, _ in steps]}


def prompt_logprobs(ask: Ask, tokenizer: Tokenizer, job: Job) -> dict | None:
    """Those of an echoed prompt; nothing stands before its first token, which has none."""
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    lengths = [len(decoder.decode(tokenizer.token_bytes(id))) for id in job.ids]
    places = accumulate(lengths[:-1], initial=0)
    first = Step(job.ids[0], None, [])      # type: ignore[arg-type]
    found = logprobs(ask, tokenizer, [*zip(places, [first, *job.prompt_steps])])
    return found and found | {"top_logprobs": [None, *found["top_logprobs"][1:]]}


def chat_entry(tokenizer: Tokenizer, step: Step) -> dict:
    top = [logprob_entry(tokenizer, token, logprob) for token, logprob in step.top]
    return logprob_entry(tokenizer, step.token, step.logprob) | {"top_logprobs": top}


def logprob_entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict:
    data = tokenizer.token_bytes(token)
    return {"token": data.decode("utf-8", errors="replace"), "logprob": logprob, "bytes": list(data)}


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; a part of a character as its bytes, so that different tokens have different names."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
