"""Variables of the user's that are called as CUDA's own, as in `dim3 blockDim(16, 16);` on the host, get other names.

CUDA's blockDim and its like are macros of the emulator's headers, which would stand in their way.
"""
from collections.abc import Sequence

from .shared import in_parameters, statement_start
from .tokens import Token, before, partner

BUILTIN = ("gridDim", "blockDim", "threadIdx", "blockIdx", "warpSize")


def rewrite_names(tokens: Sequence[Token], out: list[str]) -> None:
    """Rename each such variable from its declaration to the end of its block."""
    for at, token in enumerate(tokens):
        if token.text in BUILTIN and declares(tokens, at):
            for i in range(at, scope_end(tokens, at)):
                if tokens[i].text == token.text:
                    out[i] = out[i].replace(token.text, f"emu_{token.text}")


def declares(tokens: Sequence[Token], at: int) -> bool:
    """Is this a name that is declared here: behind a type, or behind a comma in a declaration of dim3?"""
    last = before(tokens, at)
    if last < 0:
        return False
    if tokens[last].text in ("dim3", "uint3", "auto", "int", "unsigned", "size_t"):
        return True
    return tokens[last].text == "," and not in_parameters(tokens, at) and (
        "dim3" in [token.text for token in tokens[statement_start(tokens, at):at] if token.code][:2])


def scope_end(tokens: Sequence[Token], at: int) -> int:
    """The end of the block that the name here stands in; of a parameter, of the function's body."""
    depth, parameter = 0, in_parameters(tokens, at)
    for i in range(at, len(tokens)):
        if tokens[i].text == "{" and parameter and not depth:
            return partner(tokens, i)
        depth += {"{": 1, "}": -1}.get(tokens[i].text, 0)
        if depth < 0 or parameter and tokens[i].text == ";" and not depth:
            return i
    return len(tokens)
