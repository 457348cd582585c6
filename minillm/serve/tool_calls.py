"""Tool calls in an answer's text: the forms that chat templates teach, read as the text comes.

    Hermes, Qwen    <tool_call>{"name": "f", "arguments": {...}}</tool_call>, any number of them, with text around them
    Llama 3         {"name": "f", "parameters": {...}} and nothing else, or several with ; between them
    Mistral         text, then [TOOL_CALLS] [{"name": "f", "arguments": {...}}, ...], or f{...}, or f[ARGS]{...}

Which form a model knows is seen in its chat template; one that knows no tools is told Hermes' (tool_turns.py).
What is not of the form, down to its JSON, stays text. A call that the client asks for (tool_choice) is written as JSON
by a grammar, whatever the model knows.
"""
import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..generation.text import unfinished
from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import own_template

PYTHON_TAG, CALLS, ARGS = "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]"
NAME = re.compile(rf"(?:{re.escape(CALLS)})?\s*([\w.-]+)(?:\[CALL_ID\]([A-Za-z0-9]+))?(?:{re.escape(ARGS)})?\s*(?={{)")
MISTRAL_ID = re.compile("[A-Za-z0-9]{9}")               # the only ones that Mistral's templates take back


class Form(NamedTuple):
    """How a model writes calls. read: what stands between opening and closing -> calls; raises ValueError or a kin for
    what is none."""

    openings: tuple[str, ...]
    closing: str                                        # "": the end of the answer
    alone: bool                                         # whether nothing may stand before it
    read: Callable[[str], list[dict]]
    marks: tuple[str, ...]                              # what may be a special token, which texts leave out


def form_of(tokenizer: Tokenizer) -> Form | None:
    """The form that a model's chat template teaches; None for one that is not known here."""
    template = own_template(tokenizer)
    source = "".join(template.sources.values()) if template else ""
    if template is None or not template.reads_tools or "<tool_call>" in source:
        return HERMES
    if CALLS in source:
        return MISTRAL
    return LLAMA if PYTHON_TAG in source or '"parameters"' in source else None


def schema_of(functions: Sequence[dict]) -> dict:
    """The JSON schema of a call of one of these functions, which an answer can be made to follow."""
    calls = [{"type": "object", "additionalProperties": False, "required": ["name", "arguments"],
              "properties": {"name": {"const": function["name"]},
                             "arguments": function.get("parameters") or {"type": "object"}}} for function in functions]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def hermes(text: str) -> list[dict]:
    return [call_of(json.loads(text))]


def llama(text: str) -> list[dict]:
    """One object after the other; of the tag before it a special token is made, which need not be shown."""
    text, found = text.strip().removeprefix(PYTHON_TAG), []
    while text := text.strip(" \n;"):
        value, end = json.JSONDecoder().raw_decode(text)
        if "parameters" not in value:
            raise ValueError("no call, but an object")
        found.append(call_of(value))
        text = text[end:]
    return found


def mistral(text: str) -> list[dict]:
    """A list of calls, or a name before each object of arguments."""
    if text.strip().startswith("["):
        return [call_of(value) for value in json.loads(text)]
    found, text = [], text.strip()
    while text:
        name = NAME.match(text)
        if name is None:
            raise ValueError("no name of a function")
        arguments, end = json.JSONDecoder().raw_decode(text[name.end():])
        found.append(call_of({"name": name[1], "arguments": arguments, "id": name[2]}))
        text = text[name.end() + end:].strip()
    return found


def arguments_of(value: Any) -> dict:
    """Of a call: OpenAI's protocol has a text of JSON, "" where there are none. Raises ValueError for no object."""
    arguments = json.loads(value or "{}") if isinstance(value, str) else value
    if not isinstance(arguments, dict):
        raise ValueError("a call's arguments are an object")
    return arguments


def call_of(value: Any) -> dict:
    """A call in the form of OpenAI's protocol. Raises ValueError, KeyError or TypeError for what is none.

    NaN and infinity, which Python reads, are no JSON, and no other client would read them."""
    arguments = arguments_of(value["arguments"] if "arguments" in value else value["parameters"])
    if not isinstance(value["name"], str) or not value["name"]:
        raise ValueError("a call has a name")
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    given = value.get("id")
    id = given if isinstance(given, str) and MISTRAL_ID.fullmatch(given) else secrets.token_hex(5)[:9]
    return {"id": id, "type": "function", "function": {"name": value["name"], "arguments": text}}


HERMES = Form(("<tool_call>",), "</tool_call>", False, hermes, ("<tool_call>", "</tool_call>"))
JSON = Form(("{",), "", True, hermes, ())                # what follows schema_of
LLAMA = Form(("{", PYTHON_TAG), "", True, llama, (PYTHON_TAG,))
MISTRAL = Form((CALLS,), "", False, mistral, (CALLS, ARGS, "[CALL_ID]"))


class CallReader:
    """Takes the calls out of a text that comes in pieces. White space around them belongs to nobody, and where only one
    call is wanted, neither does what follows it."""

    def __init__(self, form: Form, only_one: bool = False):
        self.form, self.only_one, self.held = form, only_one, ""
        self.spoke = self.after_call = False
        self.n_calls = 0

    def push(self, text: str, ended: bool) -> tuple[str, list[dict]]:
        """The next piece, perhaps the last -> (text that is no call, calls that are complete)."""
        self.held += text
        said, calls = "", list[dict]()
        while True:
            if self.only_one and self.n_calls:
                self.held = ""
            if self.after_call:
                self.held = self.held.lstrip()
            start = self.opening()
            if start < 0:
                said += self.release(len(self.held) - (0 if ended else self.unsure()))
                break
            inside, closed, after = self.split(start)
            if not closed and not ended:
                said += self.release(len(self.held[:start].rstrip()))
                break
            try:
                found = self.form.read(inside)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                said += self.release(len(self.held) - len(after))
                continue
            said += self.release(len(self.held[:start].rstrip()))
            self.held, self.after_call = after, True
            found = found[:1] if self.only_one else found
            calls, self.n_calls = calls + found, self.n_calls + len(found)
        return said, calls

    def opening(self) -> int:
        """Where the next call begins; -1 where none does."""
        if self.form.alone:
            place = len(self.held) - len(self.held.lstrip())
            return place if not self.spoke and self.held.startswith(self.form.openings, place) else -1
        return min((place for one in self.form.openings if (place := self.held.find(one)) >= 0), default=-1)

    def split(self, start: int) -> tuple[str, bool, str]:
        """(what stands in the call that begins there, whether its end is seen, what follows)."""
        if not self.form.closing:
            return self.held[start:].removeprefix(CALLS), False, ""
        opening = next(one for one in self.form.openings if self.held.startswith(one, start))
        inside, closing, after = self.held[start + len(opening):].partition(self.form.closing)
        return inside, bool(closing), after

    def unsure(self) -> int:
        """How many characters at the end may belong to a call that goes on: white space, a part of its opening."""
        if self.form.alone:
            begun = not self.spoke and any(one.startswith(self.held.lstrip()) for one in self.form.openings)
            return len(self.held) if begun else 0
        part = max(unfinished(self.held, one) for one in self.form.openings)
        return len(self.held) - len(self.held[:len(self.held) - part].rstrip())

    def release(self, count: int) -> str:
        """The first characters held, which are text."""
        text, self.held = self.held[:count], self.held[count:]
        self.spoke, self.after_call = self.spoke or bool(text), self.after_call and not text
        return text
