"""Formulas in Typst's math: what stands between the two dollar signs."""
from collections.abc import Iterable
from typing import Any

from .layout import Big, Cases, Fence, Fraction, Hat, Mark, Root, Row, Script, layout

WIDTHS = {"thin": "0.1667em", "quad": "1em"}
SPECIAL = set(r'\$#_^&"/,;:()[]{}|~*\'')


def to_typst(text: str, display: bool = True) -> str:
    """A formula such as `out = x @ weight + bias` in Typst's math, for a line of its own or for one of text.

    Raises ValueError where it does not parse.
    """
    return typst(layout(text, display))


def typst(box: Any) -> str:
    match box:
        case Mark():
            return mark(box)
        case Row(items):
            return joined(map(typst, items))
        case Fraction(top, bottom, rule):
            return f"frac({typst(top)}, {typst(bottom)})" if rule else f"binom({typst(top)}, {typst(bottom)})"
        case Script(base, below, above):
            ends = [f"{name}: {typst(end)}" for name, end in (("b", below), ("t", above)) if end is not None]
            return f"attach({', '.join([typst(base), *ends])})"
        case Big(sign, under):
            word = typst(sign) if sign.kind == "sign" else f'op("{sign.text}")'
            return f"attach(limits({word}), b: {typst(under)})"
        case Hat(base):
            return f"hat({typst(base)})"
        case Root(body):
            return f"sqrt({typst(body)})"
        case Fence(_, Fraction(rule=False) as binomial, _):
            return typst(binomial)
        case Fence(left, body, right):
            inside = f"\\{left}{typst(body)}\\{right}"
            return f"lr({inside})" if box.grows() else inside
        case Cases(rows):
            return f"cases({', '.join(f'{typst(value)} quad & {typst(condition)}' for value, condition in rows)})"
    raise TypeError(f"no box: {box}")


def joined(parts: Iterable[str]) -> str:
    """One after the other. Blanks only where names would run together: beside a word Typst would show them."""
    text = ""
    for part in parts:
        text += " " + part if text[-1:].isalnum() and part[:1].isalnum() else part
    return text


def mark(box: Mark) -> str:
    if box.kind == "space":
        return f"#h({WIDTHS[box.text]})"
    if box.kind == "sign":
        return "".join("\\" + c if c in SPECIAL else c for c in box.text)
    if box.kind in ("number", "letter"):
        return box.text
    if box.kind in ("bold", "upright") and len(box.text) == 1:
        return f"{box.kind}({box.text})"
    return f'italic("{box.text}")' if box.kind == "word" else f'upright("{box.text}")'
