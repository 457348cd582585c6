"""Inline PTX: `asm volatile("text" : outputs : inputs : clobbers)` becomes a call with the text and the operands.

    asm volatile("t" : "=r"(y) : "l"(p), "n"(16) : "memory");
    ::minillm_cuda::Ptx("t").op("=r", (y)).op("l", (p)).op("n", (16)).run();

Which texts the emulator knows is its own affair.
"""
from collections.abc import Sequence

from .tokens import Token, after, partner

WORDS = ("asm", "__asm__", "__asm")


def rewrite_assembly(tokens: Sequence[Token], out: list[str]) -> None:
    for at, token in enumerate(tokens):
        if token.kind == "name" and token.text in WORDS:
            rewrite_one(tokens, out, at)


def rewrite_one(tokens: Sequence[Token], out: list[str], at: int) -> None:
    """One statement. The text stays where it is; operands become calls; what is clobbered is dropped."""
    out[at], i = "::minillm_cuda::Ptx", after(tokens, at)
    while i < len(tokens) and tokens[i].kind == "name":                 # volatile, goto
        out[i], i = "", after(tokens, i)
    if i == len(tokens) or tokens[i].text != "(":
        return
    end, section = partner(tokens, i), 0
    while (i := after(tokens, i)) < end:
        if tokens[i].text in (":", "::"):
            out[i] = "" if section else ")"
            section += len(tokens[i].text)
        elif section > 2 or section and tokens[i].text == ",":
            out[i] = ""
        elif section and tokens[i].kind == "string":
            out[i], i = f".op({tokens[i].text}, ", partner(tokens, after(tokens, i))
            out[i] += ")"
    out[end] = ".run()" if section else ").run()"
