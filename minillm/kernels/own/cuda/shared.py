"""Shared memory: `__shared__` variables become references to memory that the emulator gives each block.

    __shared__ float tile[32][33], sum;

becomes, in place and on the same line,

    typedef float emu_T_tile[32][33], emu_T_sum; MINILLM_SHARED(tile, emu_T_tile); MINILLM_SHARED(sum, emu_T_sum);

`extern __shared__ float s[];` becomes MINILLM_DYNAMIC(s, type of an element), or MINILLM_DYNAMIC_GLOBAL at file scope.
"""
from collections.abc import Iterator, Sequence

from .launches import CannotRewrite
from .tokens import Token, after, before, partner, plain

EDGES = (";", "{", "}")
ALIGNMENTS = ("__align__", "alignas", "__attribute__", "__launch_bounds__")


def rewrite_shared(tokens: Sequence[Token], out: list[str]) -> None:
    """Change in `out` every declaration of shared memory."""
    depths = function_depths(tokens)
    done: set[int] = set()
    for at, token in enumerate(tokens):
        if token.text == "__shared__" and token.kind == "name" and not in_parameters(tokens, at):
            end = statement_end(tokens, at)
            if end not in done:
                done.add(end)
                declare(tokens, out, statement_start(tokens, at), end, depths[at] > 0)


def declare(tokens: Sequence[Token], out: list[str], start: int, end: int, local: bool) -> None:
    """One statement of shared memory, from its first token to its semicolon."""
    names = list(declared_names(tokens, start, end))
    external = any(token.text == "extern" for token in tokens[start:end])
    if not external and not local:
        raise CannotRewrite(f"line {tokens[start].line}: a __shared__ variable that is not extern must stand in a "
                            f"kernel or a device function: {plain(tokens[start:end])}")
    for i in range(start, end):
        if tokens[i].text in ("__shared__", "extern", "static") and tokens[i].kind == "name":
            out[i] = ""
        elif tokens[i].text == "alignas":
            out[i] = "__align__"
    out[start] = "typedef " + out[start]
    for i in names:
        name, type_ = tokens[i].text, f"emu_T_{tokens[i].text}"
        out[i] = type_
        if external:
            drop_first_extent(tokens, out, i)
        macro = "MINILLM_SHARED" if not external else "MINILLM_DYNAMIC" if local else "MINILLM_DYNAMIC_GLOBAL"
        out[end] += f" {macro}({name}, {type_});"


def drop_first_extent(tokens: Sequence[Token], out: list[str], name: int) -> None:
    """float s[] is given as the type of its elements."""
    first = after(tokens, name)
    if tokens[first].text == "[":
        last = partner(tokens, first)
        out[first:last + 1] = [""] * (last + 1 - first)


def declared_names(tokens: Sequence[Token], start: int, end: int) -> Iterator[int]:
    """The places of the names that a statement declares: the last name before `[`, `,` or `;`."""
    name, i = -1, start
    while i <= end:
        token = tokens[i]
        if token.text in ALIGNMENTS or token.text in ("struct", "decltype") and name < 0:
            i = skip_brackets(tokens, i, end)
        elif token.text == "=" or token.text == "(" and name >= 0:
            raise CannotRewrite(f"line {token.line}: a __shared__ variable cannot be initialised: "
                                f"{plain(tokens[start:end])}")
        elif token.text == "<" and name >= 0:
            i = angle_close(tokens, i)
        elif token.text in ("[", "{"):
            i = partner(tokens, i)
        elif token.kind == "name":
            name = i
        elif token.text in (",", ";"):
            yield name
        i += 1


def skip_brackets(tokens: Sequence[Token], at: int, end: int) -> int:
    """Past the brackets that follow a word such as __align__(16) or struct {...}, if some do."""
    i = after(tokens, at)
    while i < end and tokens[i].text not in ("(", "{") and tokens[at].text == "struct":
        i = after(tokens, i)
    return partner(tokens, i) if i < end and tokens[i].text in ("(", "{") else at


def angle_close(tokens: Sequence[Token], at: int) -> int:
    """The place of the `>` that closes the `<` here."""
    depth, i = 0, at
    while i < len(tokens):
        if tokens[i].text in ("(", "[", "{"):
            i = partner(tokens, i)
        else:
            depth += {"<": 1, ">": -1, ">>": -2, ">>>": -3}.get(tokens[i].text, 0)
        if depth <= 0:
            return i
        i += 1
    raise CannotRewrite(f"line {tokens[at].line}: `<` is not closed")


def statement_start(tokens: Sequence[Token], at: int) -> int:
    """The first code token of the statement."""
    while (i := before(tokens, at)) >= 0 and tokens[i].text not in (*EDGES, ":"):
        at = i
    return at


def statement_end(tokens: Sequence[Token], at: int) -> int:
    """The place of the semicolon that ends it."""
    i = at
    while i < len(tokens) and tokens[i].text != ";":
        i = partner(tokens, i) + 1 if tokens[i].text in ("(", "[", "{") else i + 1
        if not i:
            break
    if not 0 < i < len(tokens):
        raise CannotRewrite(f"line {tokens[at].line}: no semicolon ends this declaration")
    return i


def in_parameters(tokens: Sequence[Token], at: int) -> bool:
    """Is it between round brackets, where __shared__ only qualifies a pointer?"""
    depth = 0
    for i in range(at - 1, -1, -1):
        depth += {"(": 1, ")": -1}.get(tokens[i].text, 0)
        if depth > 0:
            return True
        if tokens[i].text in EDGES and not depth:
            return False
    return False


def function_depths(tokens: Sequence[Token]) -> list[int]:
    """How many braces of functions each token stands in; those of namespaces, structs and extern "C" are none."""
    depths, stack = [], []
    for i, token in enumerate(tokens):
        if token.text == "{" and token.kind == "punct":
            stack.append(bool(stack and stack[-1]) or not of_no_function(tokens, i))
        depths.append(sum(stack))
        if token.text == "}" and token.kind == "punct" and stack:
            stack.pop()
    return depths


def of_no_function(tokens: Sequence[Token], brace: int) -> bool:
    words = [token.text for token in tokens[statement_start(tokens, brace):brace] if token.code]
    scope = {"namespace", "struct", "class", "union", "enum"} & set(words) and ")" not in words
    return bool(scope) or bool(words) and words[0] == "extern" and "(" not in words
