"""The index: marks in the text, collected as it is written, and the lines made of them."""
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple


class Mark(NamedTuple):
    """A place in the text. term: "entry" or "entry!subentry"."""
    term: str
    id: str
    chapter: str


class IndexMarks(list[Mark]):
    """The marks so far, in the order of the text."""

    def add(self, term: str, chapter: str) -> str:
        """A new mark; its id."""
        self.append(Mark(term, f"index-{len(self) + 1}", chapter))
        return self[-1].id


class Line(NamedTuple):
    """A line of the index. letter: where it is the first of its letter."""
    level: int
    word: str
    marks: list[Mark]
    letter: str = ""


def index_lines(marks: IndexMarks) -> Iterator[Line]:
    """Entries and subentries in alphabetical order."""
    def entry(mark: Mark) -> str:
        return mark.term.split("!")[0]

    letter = ""
    ordered = sorted(marks, key=lambda mark: (sort_key(entry(mark)), sort_key(mark.term)))         # in the text's order
    for word, found in groupby(ordered, key=entry):
        own, below = [], []
        for mark in found:
            (below if "!" in mark.term else own).append(mark)
        first = sort_key(word)[0][:1].upper()
        first = first if first.isalpha() else "0"
        yield Line(0, word, own, first if first != letter else "")
        letter = first
        for term, subs in groupby(below, key=lambda mark: mark.term):
            yield Line(1, term.split("!", 1)[1], list(subs))


def sort_key(word: str) -> tuple[str, str]:
    return word.lower().lstrip("_-. "), word
