"""Unicode pinned to version 16.0: a text with stand-ins where the installed `regex` gives a character another class."""
from bisect import bisect_right
from functools import cache
from itertools import accumulate

import regex

from .unicode_classes import FLAGS, RUNS

STAND_INS = {0: "\uffff", 2: "1", 4: "\u3000", 9: "Q", 17: "q", 24: "\u0301", 25: "\u05d0", 32: "!"}     # one of each


def pinned(text: str) -> str:
    """The text, of the same length, as `regex` has to see it to find what Unicode 16.0 says."""
    return text if text.isascii() else text.translate(PINNED)


class Pinned(dict[int, str]):
    """code point -> itself, or a stand-in where `regex` and Unicode 16.0 give it different classes."""

    def __missing__(self, code: int) -> str:
        kind = kind_of(code)
        known = sum(flag for pattern, flag in FLAGS.items() if regex.match(pattern, chr(code)))
        self[code] = chr(code) if kind == known else STAND_INS[kind]
        return self[code]


PINNED = Pinned()


def kind_of(code: int) -> int:
    """The sum of the FLAGS of a code point in Unicode 16.0."""
    ends, letters = kind_runs()
    run = bisect_right(ends, code)
    return ord(letters[run][(code - ends[run - 1] if run else code) % len(letters[run])]) - ord("A")


@cache
def kind_runs() -> tuple[list[int], list[str]]:
    """The code points behind each of the RUNS, and their letters."""
    lengths, letters = zip(*regex.findall(r"(\d*)([A-Za-z]+)", RUNS))
    return list(accumulate(int(length or 1) for length in lengths)), list(letters)
