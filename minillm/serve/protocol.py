"""OpenAI's protocol, the part that a small model can keep: requests are validated here, their prompts made in
prompts.py, the answers written in answers.py.

What we do not know or do not do is an error that names the parameter: a setting that is silently ignored would give
answers that nobody asked for. Beyond OpenAI's settings there are top_k, min_p and repetition_penalty (the openai client
sends them by `extra_body`). Reference: https://platform.openai.com/docs/api-reference/completions and .../chat
"""
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ..generation.grammar import Grammar
from ..generation.sampling import Sampling
from ..tokenizer import Tokenizer
from .errors import ApiError, brief, too_long
from .prompts import TEMPLATE, calls_of, conversation, exists, forced_tools, texts
from .tool_calls import Form, schema_of

MAX_N, MAX_STOPS, MAX_STOP_LENGTH, MAX_TOP = 16, 16, 200, 20
COMPLETION_TOKENS = 16      # where a completion does not say how many
IGNORED = {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
NEUTRAL = {     # known, not done, harmless at these values
    "suffix": ("",), "modalities": (["text"],),
    "parallel_tool_calls": (True, False), "functions": ([],), "function_call": ("none", "auto"),
}
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
COMMON = {"stream", "stream_options", "stop", "seed", "n", "max_tokens", "logit_bias", "response_format", *SAMPLING,
          *IGNORED, *NEUTRAL}
COMPLETION = COMMON | {"prompt", "echo", "logprobs", "best_of"}
CHAT = COMMON | {"messages", "logprobs", "top_logprobs", "max_completion_tokens", "tool_choice", *TEMPLATE}


@dataclass(frozen=True)
class Ask:
    """A request that was checked. There are n answers to each prompt; `top` is None where no logprobs are wanted."""

    chat: bool
    model: str
    prompts: list[list[int]]
    n: int
    max_tokens: int | None      # None: up to the end of the context, where every answer ends
    sampling: Sampling
    seeded: bool                # whether the seed was the client's
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    top: int | None
    stream: bool
    include_usage: bool
    echo: bool
    grammar: Grammar | None
    calls: Form | None          # how the model writes calls of the tools that it was given
    one_call: bool              # whether there may be one of them at most

    @property
    def shown(self) -> tuple[str, ...]:
        """The special tokens that an answer's text has in it, for `calls` to be seen."""
        return self.calls.marks if self.calls else ()


def parse(raw: bytes, chat: bool, model: str, tokenizer: Tokenizer, block_size: int) -> Ask:
    """The bytes of a request's body as Ask. Raises ApiError naming the parameter."""
    body = parse_body(raw)
    check_known(body, CHAT if chat else COMPLETION)
    if body.get("model", model) != model:
        raise ApiError(404, f"The model {brief(body['model'])} does not exist; this server has {model!r}.", "model",
                       "model_not_found")
    prompts_of = conversation if chat else texts
    prompts, stop, stop_ids = prompts_of(body, tokenizer, block_size)
    echo = not chat and flag(body, "echo")
    limit = token_limit(body, 0 if echo else 1, block_size)
    ask = Ask(chat=chat, model=model, prompts=prompts, stop=stop + stops(body), stop_ids=frozenset(stop_ids),
              n=number(body, "n", int, 1, MAX_N, 1),
              max_tokens=limit if limit is not None or chat else COMPLETION_TOKENS,
              sampling=sampling(body, tokenizer), seeded=body.get("seed") is not None,
              top=chat_logprobs(body) if chat else number(body, "logprobs", int, 0, MAX_TOP, None),
              stream=flag(body, "stream"), include_usage=usage_wanted(body), echo=echo,
              grammar=grammar(body, tokenizer), calls=calls_of(body, tokenizer) if chat else None,
              one_call=body.get("parallel_tool_calls") is False)
    if body.get("best_of") not in (None, ask.n):
        raise ApiError(400, "best_of is not supported: leave it out, or give it the value of n.", "best_of")
    check_lengths(ask, 1 if limit is None else limit, block_size)
    return ask


def parse_body(raw: bytes) -> dict:
    """The JSON object. A number that is none (NaN, Infinity) is refused with the rest of what is no JSON.

    So is an object with a key twice: of the two values, a proxy that checks requests may have read the other one.
    """
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError(f"the key {brief(Counter(key for key, _ in pairs).most_common(1)[0][0])} stands twice")
        return found

    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise ApiError(400, f"The body must be a JSON object: got {type(body).__name__}.")
    return {key: value for key, value in body.items() if value is not None}      # null means: as if not given


def check_known(body: dict, known: Collection[str]) -> None:
    for name, value in body.items():
        if name not in known:
            raise ApiError(400, f"Unknown parameter: {name[:100]!r}.", name[:100], "unknown_parameter")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise ApiError(400, f"{name} is not supported by this server.", name, "unsupported_parameter")


def number(body: dict, name: str, kind: type, low: float, high: float, default: Any) -> Any:
    """An int or float of the body in [low, high]."""
    value = body.get(name, default)
    if value is default:
        return default
    kinds = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        word = "an integer" if kind is int else "a number"
        raise ApiError(400, f"{name} must be {word} from {low} to {high}: got {brief(value)}.", name, "invalid_value")
    return value


def flag(body: dict, name: str, default: bool = False) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise ApiError(400, f"{name} must be true or false: got {brief(value)}.", name, "invalid_type")
    return value


def sampling(body: dict, tokenizer: Tokenizer) -> Sampling:
    """Temperature 1 where none is given, as at OpenAI; a seed of our own where none is given."""
    seed = number(body, "seed", int, -2**63, 2**64 - 1, None)
    number(body, "temperature", float, 0, 2, None)
    for name in ("presence_penalty", "frequency_penalty"):
        number(body, name, float, -2, 2, None)
    settings = {name: body[name] for name in SAMPLING if name in body}
    if type(settings.get("top_k")) is int and settings["top_k"] in (0, -1):
        del settings["top_k"]                            # what others write for all tokens
    try:
        return Sampling(**settings, seed=secrets.randbits(63) if seed is None else seed % 2**64,
                        logit_bias=logit_bias(body, tokenizer))
    except ValueError as error:
        name = str(error).split()[0]                     # its messages begin with the setting's name
        raise ApiError(400, f"{str(error)[:200]}.", name, "invalid_value") from None


def logit_bias(body: dict, tokenizer: Tokenizer) -> dict[int, float]:
    """{"50256": -100}, as JSON has it, with the ids as ints."""
    given = body.get("logit_bias", {})
    if not isinstance(given, dict) or not all(is_id(key, tokenizer) and type(bias) in (int, float) and abs(bias) <= 100
                                              for key, bias in given.items()):
        raise ApiError(400, f"logit_bias must be an object of ids of tokens, from 0 to {tokenizer.vocab_size - 1}, and "
                            "numbers from -100 to 100.", "logit_bias", "invalid_value")
    return {int(key): bias for key, bias in given.items()}


def is_id(text: str, tokenizer: Tokenizer) -> bool:
    """Whether a text is the id of a token, as one writes it."""
    return len(text) < 10 and text.isdecimal() and str(int(text)) == text and exists(tokenizer, int(text))


def grammar(body: dict, tokenizer: Tokenizer) -> Grammar | None:
    """What the answer must follow: a JSON schema, any JSON object, a call of a tool, or nothing."""
    form = body.get("response_format", {"type": "text"})
    if wanted := forced_tools(body):
        if form != {"type": "text"}:
            raise ApiError(400, "response_format must be left out where tool_choice asks for a call.", "tool_choice",
                           "invalid_value")
        form = {"type": "json_schema", "json_schema": {"schema": schema_of(wanted)}}
    if form == {"type": "text"}:
        return None
    if form == {"type": "json_object"}:
        form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    inside = form.get("json_schema") if isinstance(form, dict) and form.get("type") == "json_schema" else None
    if not isinstance(inside, dict) or not isinstance(inside.get("schema"), dict):
        raise ApiError(400, 'response_format must be {"type": "text"}, {"type": "json_object"} or {"type": '
                            '"json_schema", "json_schema": {"schema": an object}}.', "response_format", "invalid_value")
    try:
        return Grammar(tokenizer, inside["schema"])
    except (ImportError, ValueError) as error:
        param = "tool_choice" if wanted else "response_format"
        raise ApiError(400, f"{param}: {str(error)[:300]}", param, "invalid_value") from None


def stops(body: dict) -> tuple[str, ...]:
    value = body.get("stop", [])
    value = [value] if isinstance(value, str) else value
    valid = isinstance(value, list) and len(value) <= MAX_STOPS and all(
        isinstance(text, str) and 0 < len(text) <= MAX_STOP_LENGTH for text in value)
    if not valid:
        raise ApiError(400, f"stop must be a string, or at most {MAX_STOPS} strings, of 1 to {MAX_STOP_LENGTH} "
                            "characters each.", "stop", "invalid_value")
    return tuple(value)


def token_limit(body: dict, least: int, block_size: int) -> int | None:
    """How many tokens an answer may have, or None where that is not said."""
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return number(body, name, int, least, block_size, None)


def chat_logprobs(body: dict) -> int | None:
    """How many of the most probable tokens to report, or None for no log-probabilities at all."""
    wanted, top = flag(body, "logprobs"), number(body, "top_logprobs", int, 0, MAX_TOP, None)
    if top is not None and not wanted:
        raise ApiError(400, "top_logprobs needs logprobs to be true.", "top_logprobs", "invalid_value")
    return (top or 0) if wanted else None


def usage_wanted(body: dict) -> bool:
    options = body.get("stream_options", {})
    if not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
        raise ApiError(400, "stream_options must be an object with include_usage.", "stream_options", "invalid_value")
    if options and not body.get("stream"):
        raise ApiError(400, "stream_options is only allowed when stream is true.", "stream_options", "invalid_value")
    return flag(options, "include_usage")


def check_lengths(ask: Ask, limit: int, block_size: int) -> None:
    """Every prompt, and an answer of `limit` tokens, must fit into the context."""
    param = "messages" if ask.chat else "prompt"
    for ids in ask.prompts:
        if len(ids) + min(1, limit) > block_size:
            raise too_long(len(ids), block_size, param)
        if len(ids) + limit > block_size:
            raise too_long(f"{len(ids)} and {limit} for the answer", block_size, "max_tokens")


def sampling_of(ask: Ask, choice: int) -> Sampling:
    """The settings for one of n answers: each has its own seed; the first has the request's, as with n = 1."""
    if choice == 0:
        return ask.sampling
    digest = hashlib.blake2b(f"{ask.sampling.seed} {choice}".encode(), digest_size=8).digest()
    return replace(ask.sampling, seed=int.from_bytes(digest, "little"))
