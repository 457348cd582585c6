"""Launches: `kernel<<<grid, block, shared, stream>>>(args)` becomes a call of the emulator's launcher.

    ::minillm_cuda::launch(__FILE__, __LINE__, "k<3>", g, b, shared, stream, [=](auto... a) { k<3>(a...); }, args)

Configuration and arguments stay where they are, evaluated once, on the lines where they stood.
"""
from collections.abc import Sequence

from .tokens import Token, after, before, is_close, is_open, partner, plain

KEYWORDS = {"return", "else", "do", "case", "default", "throw", "co_return", "co_yield", "goto"}
ANGLES = {"<": -1, ">": 1, ">>": 2, ">>>": 3}
TAKE_KERNELS = ("cudaLaunchKernel", "cudaLaunchCooperativeKernel", "cudaFuncSetAttribute", "cudaFuncGetAttributes",
                "cudaFuncSetCacheConfig", "cudaFuncSetSharedMemConfig")


class CannotRewrite(ValueError):
    """CUDA that the emulator does not read; the message begins with its line."""


def rewrite_launches(tokens: Sequence[Token], out: list[str]) -> None:
    """Change in `out`, the text of each token, whatever makes a launch."""
    for at, token in enumerate(tokens):
        if is_open(token):
            rewrite_launch(tokens, out, at)
        elif token.text in TAKE_KERNELS or token.text.startswith("cudaOccupancyMax"):
            drop_cast(tokens, out, at)


def rewrite_launch(tokens: Sequence[Token], out: list[str], at: int) -> None:
    start, end = kernel_before(tokens, at), configuration_end(tokens, at)
    name, first = plain([*tokens[start:at]]), after(tokens, end)
    if first == len(tokens) or tokens[first].text != "(":
        raise CannotRewrite(f"line {tokens[end].line}: the launch of {name} has no arguments in brackets behind `>>>`")
    last = partner(tokens, first)
    shown = name.replace("\\", "").replace('"', "'")
    for i in range(start, at):                                  # the name moves; its line breaks stay
        out[i] = breaks(tokens[i])
    out[start] = f'::minillm_cuda::launch(__FILE__, __LINE__, "{shown}", ' + out[start]
    out[at] = breaks(tokens[at])
    missing = 4 - len(configuration(tokens, at, end))
    given = [i for i in range(first + 1, last) if tokens[i].code]
    variadic = len(given) == 1 and tokens[given[0]].text == "__VA_ARGS__"
    out[end] = ", 0" * missing + f", [=](auto... emu_a) {{ {name}(emu_a...); }}" + breaks(tokens[end])
    out[first] = ", ##" if variadic else ", " if given else ""
    for i in given:
        if tokens[i].text == "NULL":
            out[i] = "nullptr"


def breaks(token: Token) -> str:
    """The line breaks of a token whose place is taken; in a macro they stay continued."""
    return ("\\\n" if "\\\n" in token.text else "\n") * token.text.count("\n")


def configuration(tokens: Sequence[Token], at: int, end: int) -> list[int]:
    """The places of the commas between the parts of a launch's configuration, and its end: 2 to 4."""
    found, i = [], at + 1
    while i < end:
        if tokens[i].text == ",":
            found.append(i)
        i = partner(tokens, i) + 1 if tokens[i].text in ("(", "[", "{") else i + 1
    if not 1 <= len(found) <= 3:
        raise CannotRewrite(f"line {tokens[at].line}: `<<<` takes grid, block, shared memory and stream, two at least: "
                            f"got {len(found) + 1}")
    return [*found, end]


def drop_cast(tokens: Sequence[Token], out: list[str], at: int) -> None:
    """cudaFuncSetAttribute((const void*)k, ...): the cast goes, for the emulator asks the kernel for its type."""
    cast = after(tokens, after(tokens, at))
    if cast < len(tokens) and tokens[cast].text == "(":
        end = partner(tokens, cast)
        if "void" in [token.text for token in tokens[cast:end]]:
            out[cast:end + 1] = [""] * (end + 1 - cast)
    elif cast < len(tokens) and tokens[cast].text == "reinterpret_cast":
        end = next(i for i in range(cast, len(tokens)) if tokens[i].text == "(")
        out[cast:end] = [""] * (end - cast)


def configuration_end(tokens: Sequence[Token], at: int) -> int:
    """The place of the `>>>` of a launch."""
    i = at + 1
    while i < len(tokens) and not is_close(tokens[i]):
        i = partner(tokens, i) + 1 if tokens[i].text in ("(", "[", "{") else i + 1
        if not i or i < len(tokens) and tokens[i].text in (";", ")", "}"):
            i = len(tokens)
    if i == len(tokens):
        raise CannotRewrite(f"line {tokens[at].line}: `<<<` has no `>>>(...)` behind its configuration")
    return i


def kernel_before(tokens: Sequence[Token], at: int) -> int:
    """The place where the kernel's name begins: `k`, `ns::k<float, 4>`, `table[i]`, `(*k)`."""
    start = i = before(tokens, at)
    while i >= 0:
        if tokens[i].text in ANGLES:
            i = angle_open(tokens, i)
        elif tokens[i].text == "]":
            i = partner(tokens, i)
        elif tokens[i].text == ")":
            return partner(tokens, i)
        elif tokens[i].kind == "name" and tokens[i].text not in KEYWORDS:
            start, i = i, before(tokens, i)
            if i >= 0 and tokens[i].text == "template":
                i = before(tokens, i)
            if i < 0 or tokens[i].text not in ("::", ".", "->"):
                return start
            start = i
        else:
            break
        i = before(tokens, i) if i > 0 else -1
    if start < 0 or tokens[start].text != "::":
        raise CannotRewrite(f"line {tokens[at].line}: `<<<` has no kernel's name before it")
    return start


def angle_open(tokens: Sequence[Token], at: int) -> int:
    """The place of the `<` that the angle brackets here close."""
    depth, i = 0, at
    while i >= 0:
        if tokens[i].text in (")", "]", "}"):
            i = partner(tokens, i)
        elif tokens[i].kind == "punct":
            depth += ANGLES.get(tokens[i].text, 0)
            if depth <= 0:
                return i
        i -= 1
    raise CannotRewrite(f"line {tokens[at].line}: `>` closes nothing")
