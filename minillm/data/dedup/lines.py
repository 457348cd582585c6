"""Boilerplate lines: those that stand in many of the kept documents, by their hashes."""
import hashlib

import numpy as np

from ..batches import Records
from .table import DedupOptions


def line_hashes(batch: Records, chosen: np.ndarray, options: DedupOptions) -> np.ndarray:
    """(lines,) uint64 of the chosen documents; chosen: (documents,) bool."""
    return np.array([line_hash(line) for (_, text, _), wanted in zip(batch, chosen) if wanted
                     for line in countable_lines(text, options.line_characters)], np.uint64)


def frequent_lines(hashes: np.ndarray, most: int) -> np.ndarray:
    """The distinct hashes that stand more than `most` times in (lines,) uint64, in ascending order."""
    distinct, counts = np.unique(hashes, return_counts=True)
    return distinct[counts > most]


def countable_lines(text: str, characters: int) -> set[str]:
    """The distinct lines of a text, without white space around them, that are long enough."""
    return {stripped for line in text.split("\n") if len(stripped := line.strip()) >= characters}


def line_hash(line: str) -> int:
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")


def without_lines(text: str, repeated: set[int], characters: int) -> str:
    """The text less its repeated lines."""
    return "\n".join(line for line in text.split("\n")
                     if len(stripped := line.strip()) < characters or line_hash(stripped) not in repeated)
