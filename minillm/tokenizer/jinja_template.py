"""A directory's own chat template: a conversation as text, rendered by Jinja in a process of its own (jinja_worker.py).

Where transformers keeps it: chat_template.jinja, or chat_template in tokenizer_config.json (a text, or a list of named
ones, of which tools have "tool_use"), or chat_template.json. The text is what apply_chat_template gives for the same
messages, tools, documents and variables.

What people write stays what they wrote: a special token's text in a message becomes no special token, so that nobody
can forge a turn. To that end it is rendered with a character in it that no text has (`guarded`), which `encode` takes
out again.

What the assistant says is what a template marks by {% generation %}. Without such marks it is what an answer adds to
the text of the messages before it, up to the special token that ends it.
"""
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..worker import Worker
from . import jinja_worker
from .pretokenize import special_matcher, split_special
from .roles import CONFIG, read_object

FILE, FOLDER, OBJECT = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
LONGEST = 2 ** 20                                       # bytes of a template's file
GUARDS = [chr(code) for code in range(0xFDD1, 0xFDF0)]  # Unicode's noncharacters: no text has them
NONCE = os.urandom(8).hex()
MARKS = (f"\ufdd0{NONCE}(", f"\ufdd0{NONCE})")          # around what {% generation %} holds; nobody can write them
ASKED, ANSWERED, GOES_ON = "qone", "qtwo", "qthree"     # the words of a conversation that shows where answers end
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LANG", "LC_ALL", "TZ")     # no keys of others
REASONING = ("reasoning_content", "thinking", "reasoning")      # names for one thing: templates read the first two

NOTHING: Mapping[str, Any] = MappingProxyType({})
Cut = tuple[int, bool]                                  # how many messages, and whether the assistant is to go on


class Rendered(NamedTuple):
    """A conversation as text, with where in it the assistant speaks: (start, end) of each passage."""

    text: str
    spoken: list[tuple[int, int]]


class Templates:
    """The chat templates of a directory by name, with the texts of its special tokens by role."""

    def __init__(self, sources: Mapping[str, str], roles: Mapping[str, str]):
        self.sources, self.roles = dict(sources), dict(roles)

    def render(self, messages: Sequence[Mapping], add_generation_prompt: bool = False, more: Mapping = NOTHING) -> str:
        """The text of a conversation. more: "tools", "documents", and what else a template reads.

        Raises ImportError without jinja2, ValueError for what the template refuses, and for one that takes too long or
        too much memory."""
        return unmarked(self.texts(messages, [(len(messages), add_generation_prompt)], more)[0])[0]

    def rendered(self, messages: Sequence[Mapping], specials: frozenset[str], more: Mapping = NOTHING) -> Rendered:
        """The text of a whole conversation, and where the assistant speaks. specials: the special tokens' texts."""
        text, spans = unmarked(self.texts(messages, [(len(messages), False)], more)[0])
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not spans:
            cuts = [cut for i in answers for cut in ((i, True), (i + 1, False))]
            before_and_after = iter(self.texts(messages, cuts, more))
            spans = [added(text, before, after, i, specials, self.end(specials)) for i, before, after
                     in zip(answers, before_and_after, before_and_after)]
        return Rendered(text, spans)

    def texts(self, messages: Sequence[Mapping], cuts: Sequence[Cut], more: Mapping = NOTHING) -> list[str]:
        """The texts of the beginnings of a conversation, as the worker gives them."""
        tools = more.get("tools")
        given = {"documents": None, **self.roles, **more, "tools": tools, "messages": list(map(normal, messages))}
        source = self.sources.get("tool_use" if tools is not None and "tool_use" in self.sources else "default")
        if source is None:
            raise ValueError(f"the directory has no default chat template: only {', '.join(sorted(self.sources))}")
        return texts_of({"source": source, "variables": given, "cuts": list(cuts), "marks": MARKS,
                         "seconds": jinja_worker.SECONDS * (1 + len(cuts) / 20)})

    @cached_property
    def after_answer(self) -> str:
        """What stands between an answer and the words of the next question; "" where the template does not say."""
        talk = [{"role": role, "content": text} for role, text in
                (("user", ASKED), ("assistant", ANSWERED), ("user", GOES_ON))]
        try:
            text = self.render(talk)
        except (ImportError, ValueError):
            return ""
        return text.rpartition(ANSWERED)[2].partition(GOES_ON)[0] if GOES_ON in text.rpartition(ANSWERED)[2] else ""

    @cached_property
    def reads_parts(self) -> bool:
        """Whether it takes content as a list of parts, rather than as text alone."""
        try:
            text = self.render([{"role": "user", "content": [{"type": "text", "text": ASKED}]}], True)
        except ValueError:
            return False
        return ASKED in text and "'type'" not in text and '"type"' not in text

    @cached_property
    def reads_tools(self) -> bool:
        """Whether it speaks of tools at all."""
        return any("tool" in source for source in self.sources.values())

    def end(self, specials: Collection[str]) -> str | None:
        """The special token that ends an answer; None where the template has none."""
        pieces = split_special(self.after_answer, frozenset(specials))
        return next((text for text, special in pieces if special), None)


def read_templates(directory: Path, roles: Mapping[str, str]) -> Templates | None:
    """The chat templates of a directory. Raises ValueError for what is none."""
    sources = {path.stem: read_source(path) for path in sorted((directory / FOLDER).glob("*.jinja"))}
    if (directory / FILE).is_file():
        sources["default"] = read_source(directory / FILE)
    for name in (CONFIG, OBJECT):
        if not sources:
            sources = named(read_object(directory / name).get("chat_template"), directory / name)
    return Templates(sources, roles) if sources else None


def read_source(path: Path) -> str:
    """The text of a template's file."""
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path}: a chat template must be of at most {LONGEST} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None


def named(value: Any, path: Path) -> dict[str, str]:
    """{name: template} of a chat_template in JSON: a text, such an object, or a list of {"name", "template"}."""
    if value is None:
        return {}
    pairs = {"default": value} if isinstance(value, str) else value
    entries = [{"name": name, "template": pairs[name]} for name in pairs] if isinstance(pairs, dict) else pairs
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str)
                                                and isinstance(e.get("template"), str) for e in entries):
        raise ValueError(f"{path}: chat_template must be a text, or a list of objects with name and template")
    return {entry["name"]: entry["template"] for entry in entries}


def normal(message: Mapping) -> dict[str, Any]:
    """A message as templates expect it: without what is None, and its reasoning by the names they read."""
    found = {key: value for key, value in message.items() if value is not None}
    reasoning = next((found[name] for name in REASONING if name in found), None)
    return found if reasoning is None else {"thinking": reasoning} | found | {"reasoning_content": reasoning}


def unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """(text without MARKS, where the passages stood between them)."""
    parts, spans, place = text.split(MARKS[0]), [], 0
    place = len(parts[0])
    for part in parts[1:]:
        inside, _, after = part.partition(MARKS[1])
        spans.append((place, place + len(inside)))
        place += len(inside) + len(after)
    return text.replace(MARKS[0], "").replace(MARKS[1], ""), spans


def added(text: str, before: str, after: str, i: int, specials: frozenset[str], end: str | None) -> tuple[int, int]:
    """Where in a conversation's text message i stands, by the texts of the messages before it and up to it. It goes up
    to its last end token: a newline behind that, or what closes a conversation, does not belong to it."""
    same = os.path.commonprefix([text, after])
    pieces = list(split_special(same[len(before):], specials))
    ends = ([n for n, (piece, _) in enumerate(pieces, 1) if piece == end]
            or [n for n, (_, special) in enumerate(pieces, 1) if special] or [len(pieces)])
    stop = len(before) + sum(len(piece) for piece, _ in pieces[:ends[-1]])
    left = "".join(piece for piece, special in split_special(after[stop:], specials) if not special)
    if not same.startswith(before) or not pieces or left.strip():
        answer, found, _ = text[len(before):].partition(end or guard_for(text))      # Qwen3 drops earlier reasoning:
        if text.startswith(before) and found and after.rstrip().endswith(answer + found):     # the rest is the answer
            return len(before), len(before + answer + found)
        raise ValueError(f"where the assistant speaks in messages[{i}] is not to be seen: the chat template writes the "
                         "messages up to it otherwise where others follow; mark it by {% generation %} there")
    return len(before), stop


# ---- from text to tokens

def guarded(value: Any, specials: frozenset[str], guard: str) -> Any:
    """Messages, tools and so on, with the guard in the text of every special token, so that it is none."""
    if isinstance(value, str) and specials:
        return special_matcher(specials).sub(lambda match: match[0][0] + guard + match[0][1:], value)
    if isinstance(value, Mapping):
        return {guarded(key, specials, guard): guarded(inside, specials, guard) for key, inside in value.items()}
    return [guarded(inside, specials, guard) for inside in value] if isinstance(value, (list, tuple)) else value


def guard_for(*values: Any) -> str:
    """A character that none of the values has."""
    text = json.dumps(values, ensure_ascii=False)
    found = next((guard for guard in GUARDS if guard not in text), None)
    if found is None:
        raise ValueError("the conversation has all of Unicode's noncharacters in it")
    return found


def encode(tokenizer: Any, text: str, guard: str) -> tuple[list[int], np.ndarray]:
    """(ids, (n, 2) where each stands in `text`): special tokens of the template are tokens, guarded text is text."""
    if guard not in text:
        return tokenizer.encode_with_offsets(text, "all")
    ids: list[int] = []
    spans, place = [np.empty((0, 2), np.int64)], 0
    for piece, special in split_special(text, frozenset(tokenizer.special_tokens)):
        kept = np.flatnonzero([char != guard for char in piece])               # places of the text without the guards
        found, offsets = tokenizer.encode_with_offsets(piece.replace(guard, ""), "all" if special else (), ())
        ids += found
        if found:
            spans.append(np.stack([kept[offsets[:, 0]], kept[offsets[:, 1] - 1] + 1], axis=1) + place)
        place += len(piece)
    return ids, np.concatenate(spans)


def touched(offsets: np.ndarray, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Which tokens lie in the spans, at least in part."""
    found = np.zeros(len(offsets), bool)
    for start, end in spans:
        found |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return found.tolist()


# ---- the process

WORKER = Worker(jinja_worker.__file__, ENVIRONMENT)


def texts_of(request: dict[str, Any]) -> list[str]:
    """The texts of a request to jinja_worker.py. Raises ValueError that says what the template did wrong."""
    try:
        data = json.dumps(request).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"messages must hold what JSON can: {error}") from None
    if not WORKER.running():
        need_jinja()
    try:
        found = json.loads(WORKER.ask(data))
    except (BrokenPipeError, EOFError):
        found = {"error": f"it takes more than {request['seconds']:.3g} seconds, or too much memory"}
    if "error" in found:
        raise ValueError(f"the chat template cannot be rendered: {found['error']}")
    return found["texts"]


def need_jinja() -> None:
    """Raises ImportError with the extra to install; the sandbox of older versions has holes."""
    from importlib import metadata
    try:
        found = metadata.version("jinja2")
    except metadata.PackageNotFoundError:
        found = "none"
    if [int(part) for part in re.findall(r"\d+", found)[:3]] < [3, 1, 6]:
        raise ImportError(f"this model's chat template needs jinja2 3.1.6 or newer (there is {found}): "
                          "pip install 'minillm[chat]'")
