"""The tokens of CUDA C++: what is code, and what only looks like it (comments, strings, preprocessor lines).

A preprocessor line is one token, with all its continuations. Three angle brackets are one token: `<<<` opens a launch;
so are two and one with a space between them, as formatters that know only C++ write them.
"""
import re
from collections.abc import Sequence
from typing import NamedTuple

PREFIX = "(?:u8|[uUL])?"
KINDS = {
    "space": r"(?:\s|\\\n)+",
    "comment": r"//(?:\\\n|[^\n])*|/\*.*?\*/",
    "string": rf'{PREFIX}R"(?P<fence>[^ ()\\\t\v\f\n]{{0,16}})\(.*?\)(?P=fence)"|{PREFIX}"(?:\\.|[^"\\\n])*"',
    "char": rf"{PREFIX}'(?:\\.|[^'\\\n])*'",
    "number": r"\.?\d(?:[eEpP][+-]|'?[\w.])*",
    "name": r"[^\W\d]\w*",
    "punct": r"<<<|<<\s+<(?![<=])|>>>|>>\s+>(?=\s*\()|<<=|>>=|<=>|->\*|\.\.\.|::|->|<<|>>|&&|\|\||\+\+|--|##"
             r"|[-+*/%&|^=!<>]=|.",
}
TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()), re.DOTALL)
DIRECTIVE = re.compile(r'#(?:\\\n|/\*.*?\*/|//(?:\\\n|[^\n])*|"(?:\\.|[^"\\\n])*"|[^\n])*', re.DOTALL)
OPENING, CLOSING = {"(": ")", "[": "]", "{": "}"}, {")": "(", "]": "[", "}": "{"}


class Token(NamedTuple):
    """One token; all of them one after the other are the source."""

    kind: str                   # of KINDS, or "directive"
    text: str
    line: int                   # where it begins, from 1

    @property
    def code(self) -> bool:
        return self.kind not in ("space", "comment", "directive")


def tokens_of(text: str, line: int = 1) -> list[Token]:
    """All tokens of a source, of which nothing is lost."""
    found: list[Token] = []
    at, fresh = 0, True                                 # fresh: nothing but space and comments on this line so far
    while at < len(text):
        directive = fresh and DIRECTIVE.match(text, at)
        match = directive or TOKEN.match(text, at)
        assert match
        kind = "directive" if directive else match.lastgroup
        piece = match[0]
        if kind == "punct" and piece[0] in "<>" and piece[-1] in "<>" and len(piece) > 3:
            piece = piece[0] * 3 + "\n" * piece.count("\n")         # `<< <`, as `<<<`
        found.append(Token(str(kind), piece, line))
        line, at = line + match[0].count("\n"), match.end()
        fresh = "\n" in piece and kind == "space" or fresh and kind in ("space", "comment")
    return found


def is_open(token: Token) -> bool:
    """Does the configuration of a launch begin here?"""
    return token.kind == "punct" and token.text.startswith("<<<")


def is_close(token: Token) -> bool:
    return token.kind == "punct" and token.text.startswith(">>>")


def before(tokens: Sequence[Token], at: int) -> int:
    """The place of the code token before this one, or -1."""
    return next((i for i in range(at - 1, -1, -1) if tokens[i].code), -1)


def after(tokens: Sequence[Token], at: int) -> int:
    """The place of the code token after this one, or the end."""
    return next((i for i in range(at + 1, len(tokens)) if tokens[i].code), len(tokens))


def partner(tokens: Sequence[Token], at: int) -> int:
    """The place of the bracket that closes the one here, or opens it; -1 for none."""
    brackets, step = (OPENING, 1) if tokens[at].text in OPENING else (CLOSING, -1)
    open_, close, depth = tokens[at].text, brackets[tokens[at].text], 0
    for i in range(at, len(tokens) if step > 0 else -1, step):
        if tokens[i].kind == "punct" and tokens[i].text in (open_, close):
            depth += 1 if tokens[i].text == open_ else -1
            if not depth:
                return i
    return -1


def plain(tokens: Sequence[Token]) -> str:
    """The tokens without comments, in one line."""
    return "".join(" " if token.kind in ("space", "comment") else token.text for token in tokens).strip()
