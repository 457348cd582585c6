"""The page of a trace: one self-contained HTML file in which every number of a training and a decoding step is found.

The recording goes into the file as JSON, from which the scripts beside this module draw what the reader opens. The
file loads nothing from anywhere, and its content security policy lets no script run but its own.
"""
import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ...text.html_page import STYLE
from ..formulas import STYLE as MATH_STYLE

HERE = Path(__file__).parent
SCRIPTS = ("numbers.js", "graph.js", "tables.js", "panel.js", "sections.js", "page.js")     # in the order they build on


def page(recorded: dict[str, Any]) -> str:
    """The whole HTML file of what record.py recorded. Raises ValueError for a recording that is no JSON."""
    script = "".join(read(name) for name in SCRIPTS)
    name = recorded["model"].get("directory", "a model").encode(errors="replace").decode()      # any bytes are a name
    title = f"A step of {name}, number by number"
    style = STYLE.read_text(encoding="utf-8") + MATH_STYLE + read("page.css")
    return Template(read("page.html")).substitute(
        title=escape(title), lead=lead(recorded), formulas=formula_templates(recorded["ops"]), data=as_json(recorded),
        style=style, script=script, digest=digest("\n" + script))


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """Of the text of a script element, for the content security policy."""
    return b64encode(sha256(script.encode()).digest()).decode()


def as_json(recorded: dict[str, Any]) -> str:
    """JSON that may stand in a script element: no text in it can end the element. Formulas stand elsewhere."""
    ops = {name: {key: value for key, value in op.items() if key != "formulas"}
           for name, op in recorded["ops"].items()}
    try:
        text = json.dumps(recorded | {"ops": ops}, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ValueError("recorded must hold finite numbers only, which JSON can say") from error
    return text.replace("<", "\\u003c")


def lead(recorded: dict[str, Any]) -> str:
    """What the page shows, in two sentences, and the tokens with the loss of each that was predicted."""
    model, training = recorded["model"], recorded["training"]
    losses = [None, *recorded["arrays"][training["losses"]]["values"]]
    tokens = "".join(f'<li title="token {token["id"]}">{escape(shown(token["text"]))}'
                     + (f"<small>loss {cut(loss)}</small>" if loss is not None else "") + "</li>"
                     for token, loss in zip(recorded["tokens"], losses + [None] * len(recorded["tokens"])))
    return (f'<p class="lead">One training step (forward, loss, backward, AdamW) and one decoding step of a model with '
            f'{model["parameters"]:,} parameters, as they ran. The mean loss was {cut(training["loss_before"])} before '
            f'the update and is {cut(training["loss_after"])} after it.</p>'
            f'<ol class="chips" aria-label="tokens of the prompt">{tokens}</ol>')


def cut(number: float) -> str:
    """A number cut short, never rounded; all its digits are its title."""
    text = str(number)
    return f'<span title="{text}">{text[:6]}…</span>' if len(text) > 6 and "e" not in text else text


def shown(text: str) -> str:
    """A token as it is shown: blanks and control characters are seen."""
    return "".join("␣" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text) or "∅"


def formula_templates(ops: dict[str, Any]) -> str:
    """Per op the formulas of its docstring, typeset, for the panels to take a copy of."""
    return "\n".join(f'<template data-formulas="{escape(name)}">'
                     + "".join(f"<li>{formula['mathml']}</li>" for formula in op["formulas"]) + "</template>"
                     for name, op in ops.items())
