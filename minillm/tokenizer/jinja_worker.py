"""The process that renders chat templates: jinja_template.py starts it, and it ends at a template that costs too much.

A request on its standard input is a length (LENGTH) and JSON; so is the answer. A template is a program that comes with
somebody's model. Jinja's sandbox keeps it from everything but its inputs, and only a process can be kept from the rest:
the kernel ends this one when a request has had its "seconds" of CPU time, and refuses it more memory than MEMORY, and
files and processes altogether, should the sandbox have a hole.

The language is what transformers gives to templates (huggingface.co/docs/transformers, "Chat templates"): trim_blocks
and lstrip_blocks, break and continue, raise_exception, strftime_now, a tojson that escapes no HTML, {% generation %}.
"""
import json
import resource
import signal
import struct
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import Any

LENGTH = struct.Struct("<Q")
IMPORTED = ("jinja2.sandbox", "jinja2.ext", "jinja2.debug", "jinja2.constants", "encodings.unicode_escape", "pprint",
            "random", "textwrap")           # all that Jinja imports when it needs it: later no file can be opened
MEMORY, SECONDS, CHARACTERS = 2 ** 29, 2.0, 2 ** 22                 # of address space; of CPU time; of a text


def render(request: dict[str, Any]) -> list[str]:
    """The texts of a request {"source", "variables", "cuts", "marks"}: one for each cut [number of messages,
    add_generation_prompt]. marks: what stands around the text of {% generation %}."""
    template, variables, texts = compiled(request["source"], *request["marks"]), request["variables"], []
    for count, prompt in request["cuts"]:
        pieces, size = [], 0
        given = variables | {"messages": variables["messages"][:count], "add_generation_prompt": prompt}
        for piece in template.generate(given):
            pieces.append(piece)
            size += len(piece)
            if size > CHARACTERS:
                raise MemoryError(f"its text has more than {CHARACTERS} characters")
        texts.append("".join(pieces))
    return texts


@lru_cache(8)
def compiled(source: str, opening: str, closing: str) -> Any:
    """The template of a source text."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} ... {% endgeneration %} around what the assistant says."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("marked"), [], [], inside).set_lineno(line)

        def marked(self, caller: Callable[[], str]) -> str:
            return f"{opening}{caller()}{closing}"

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return environment.from_string(source)


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{"texts"}, or {"error"} that says what went wrong in the template."""
    try:
        return {"texts": render(request)}
    except MemoryError as error:
        return {"error": str(error) or f"it needs more memory than {MEMORY >> 20} MiB"}
    except Exception as error:                      # of whatever a template can do wrong
        return {"error": f"{type(error).__name__}: {error}"[:500] if str(error) else type(error).__name__}


def main() -> None:
    for module in IMPORTED:
        import_module(module)
    for limit, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_NOFILE, 0), (resource.RLIMIT_NPROC, 0)):
        resource.setrlimit(limit, (most, most))
    while head := sys.stdin.buffer.read(LENGTH.size):
        request = json.loads(sys.stdin.buffer.read(*LENGTH.unpack(head)))
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])               # its signal ends the process
        found = json.dumps(answer(request)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(LENGTH.pack(len(found)) + found)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
