"""Boilerplate lines: those that stand in many of the kept documents, or anywhere a second time, by their hashes.

`lines` N removes every copy of a line that more than N documents hold: menus, footers. `line_dedup` is what CCNet
(Wenzek et al. 2020, arXiv 1911.00359) and FineWeb (Penedo et al. 2024, arXiv 2406.17557) call line deduplication: of
all copies in the corpus the first stays, which alone here depends on the order of the input.
"""
import hashlib
from typing import NamedTuple

import numpy as np

from ..batches import Records
from .table import DedupOptions


class Repeated(NamedTuple):
    """lines: (n,) uint64 hashes of repeated lines, ascending; keepers: (n,) int64 of the document to keep it, or -1."""

    lines: np.ndarray
    keepers: np.ndarray

    @classmethod
    def joined(cls, parts: "list[Repeated]") -> "Repeated":
        """Of parts without a line in common."""
        lines, keepers = (np.concatenate(columns) for columns in zip(NOTHING, *parts))
        order = np.argsort(lines)
        return cls(lines[order], keepers[order])

    def keepers_of(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) int64 for (n,) hashes: the document to keep the line, -1 if none is, EVERYONE if it is not repeated."""
        place = np.searchsorted(self.lines, hashes)
        place[place == len(self.lines)] = 0
        return np.where(self.lines[place] == hashes, self.keepers[place], EVERYONE)


EVERYONE = -2
NOTHING = Repeated(np.empty(0, np.uint64), np.empty(0, np.int64))


def line_hashes(batch: Records, first: int, chosen: np.ndarray, options: DedupOptions) -> tuple[np.ndarray, np.ndarray]:
    """(lines,) uint64 and (lines,) int64 numbers of the documents, of the chosen ones; chosen: (documents,) bool.

    Each line of a document once, but for line_dedup as often as it stands there.
    """
    hashes, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number, (_, text, _) in enumerate(batch):
        if chosen[number]:
            found = hashes_of([line for line in map(str.strip, text.split("\n")) if counts(line, options)])
            hashes.append(found if options.line_dedup else np.unique(found))
            documents.append(np.full(len(hashes[-1]), first + number))
    return np.concatenate(hashes), np.concatenate(documents)


def frequent_lines(hashes: np.ndarray, documents: np.ndarray, options: DedupOptions) -> Repeated:
    """The lines to remove, of (lines,) uint64 and (lines,) int64, where a line's documents are in their order."""
    distinct, start, count = np.unique(hashes, return_index=True, return_counts=True)
    repeated = count > (options.lines or 1)
    keepers = documents[start].astype(np.int64) if options.line_dedup else np.full(len(start), -1)
    return Repeated(distinct[repeated], keepers[repeated])


def counts(line: str, options: DedupOptions) -> bool:
    """Whether a line, without white space around it, is long enough to be looked at."""
    return len(line) >= max(1, options.line_characters)


def hashes_of(lines: list[str]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(line.encode(), digest_size=8).digest() for line in lines)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def without_lines(text: str, number: int, repeated: Repeated, options: DedupOptions) -> str:
    """The text of a document, by its number, less its repeated lines."""
    lines = text.split("\n")
    places = [place for place, line in enumerate(lines) if counts(line.strip(), options)]
    hashes = hashes_of([lines[place].strip() for place in places])
    gone, kept = set[int](), set[int]()
    for place, line, keeper in zip(places, hashes.tolist(), repeated.keepers_of(hashes).tolist()):
        if keeper not in (EVERYONE, number) or keeper == number and line in kept:
            gone.add(place)
        kept.add(line)
    return "\n".join(line for place, line in enumerate(lines) if place not in gone)
