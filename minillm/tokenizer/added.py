r"""Added tokens: texts that are one token wherever they stand, cut out before a tokenizer's own rules see the rest.

Where several begin at one place the longest is taken, and the search goes on behind it. The options are those of
Hugging Face's `AddedToken`, with the same results:

    lstrip, rstrip   the token takes the white space before it, or behind it, along
    single_word      only between characters that are no part of words (\w)
    normalized       found in the normalized text, and there by its own normalized form; all others are found first,
                     in the text as it came
    special          it stands for something other than text (the end of it, a role): matched where it is allowed only

A special token that is not allowed is ordinary text; what other added tokens are written inside it are not looked for.
"""
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import regex

from .literals import any_of

WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")
SPACES = regex.compile(r"\s*")
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

Piece = tuple[str, int | None]          # a piece of text, and its id if it is an added token


class AddedToken(NamedTuple):
    """A text with an id of its own, and how it is looked for."""

    text: str
    id: int
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is found as it stands, without a look at what is around it."""
        return not (self.lstrip or self.rstrip or self.single_word or self.normalized)


def cut_out(text: str, tokens: Iterable[AddedToken], allowed: Collection[str],
            normalize: Callable[[str], str] | None = None) -> Iterator[Piece]:
    """The text in pieces, in order: (piece, None), normalized, and (piece, id) for each added token; none is empty.

    `allowed`: the texts of those special tokens that are looked for.
    """
    raw, late = both_stages(tuple(tokens), frozenset(allowed), normalize)
    for piece, id in raw.pieces(text):
        if id is None:
            yield from late.pieces(normalize(piece) if normalize else piece)
        else:
            yield piece, id


@lru_cache(maxsize=64)
def both_stages(tokens: tuple[AddedToken, ...], allowed: frozenset[str],
                normalize: Callable[[str], str] | None) -> tuple["Finder", "Finder"]:
    """Finders for the text as it came, and for the normalized text."""
    if all(token.special for token in tokens):
        tokens = tuple(token for token in tokens if token.text in allowed)      # no other can be inside a special one
    early = {token.text: token for token in tokens if not token.normalized}
    late = {normalize(token.text) if normalize else token.text: token for token in tokens if token.normalized}
    return Finder(early, allowed), Finder(late, allowed)


class Finder:
    """Finds the tokens of one stage: written form -> token."""

    def __init__(self, tokens: dict[str, AddedToken], allowed: frozenset[str]):
        self.tokens = tokens
        self.ignored = {token.text for token in tokens.values() if token.special} - allowed
        self.find = re.compile(any_of(tokens)).finditer if tokens else None

    def pieces(self, text: str) -> Iterator[Piece]:
        done = 0
        for match in self.find(text) if self.find else ():
            token = self.tokens[match[0]]
            start, end = match.span()
            if token.text in self.ignored or token.single_word and inside_word(text, start, end):
                continue
            if token.lstrip:
                start = done + len(text[done:start].rstrip(WHITE)) if start > done else done
            if token.rstrip:
                end = SPACES.match(text, end).end()
            if done < start:
                yield text[done:start], None
            if start < end:             # else: white space that the token before it took along
                yield text[start:end], token.id
            done = end
        if done < len(text):
            yield text[done:], None


def inside_word(text: str, start: int, end: int) -> bool:
    """Whether a character that is part of words touches text[start:end]."""
    return bool(start and WORD.match(text, start - 1) or WORD.match(text, end))
