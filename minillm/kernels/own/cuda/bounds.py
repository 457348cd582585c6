"""What the head of a kernel says of its threads and registers is said once more where its body begins.

    __global__ void __launch_bounds__(256, 2) k(float* x) {

becomes, on the same line,

    __global__ void __launch_bounds__(256, 2) k(float* x) { ::minillm_cuda::launch_bounds("...", 1, 256, 2);

`__maxnreg__(128)` likewise: a C++ compiler forgets both, and the emulator is to refuse what the GPU refuses.
"""
from collections.abc import Sequence

from .tokens import Token, after, partner, plain

HEADS = {"__launch_bounds__": "launch_bounds", "__maxnreg__": "maxnreg"}


def rewrite_bounds(tokens: Sequence[Token], out: list[str]) -> None:
    """Change in `out` the brace that opens the body of each kernel whose head has bounds."""
    for at, token in enumerate(tokens):
        open_ = after(tokens, at) if token.kind == "name" and token.text in HEADS else len(tokens)
        if open_ < len(tokens) and tokens[open_].text == "(" and (close := partner(tokens, open_)) > 0:
            if (brace := body_after(tokens, close)) > 0:
                said = plain(tokens[open_ + 1:close])
                shown = f"{token.text}({said})".replace("\\", "").replace('"', "'")
                out[brace] += f' ::minillm_cuda::{HEADS[token.text]}("{shown}", {token.line}, {said});'


def body_after(tokens: Sequence[Token], at: int) -> int:
    """The place of the brace behind a head's last brackets, the parameters; -1 for a declaration."""
    i = after(tokens, at)
    while i < len(tokens) and tokens[i].text not in (";", "{", "}"):
        close = partner(tokens, i) if tokens[i].text == "(" else i
        i = after(tokens, close) if close >= 0 else len(tokens)
    return i if i < len(tokens) and tokens[i].text == "{" else -1
