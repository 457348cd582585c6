"""Where the tokens of a text lie in it, also where a normalizer, a prefix space or an added token changes it first.

A character of the normalized text comes from a cluster of the original, a character with the marks behind it: a token
has all clusters that its characters come from.
"""
from collections.abc import Iterator
from unicodedata import combining

import numpy as np
import regex

from .added import both_stages
from .normalize import Normalizer
from .rules import TextRules

GROUP = regex.compile(r"[\x00-\x7f]?[^\x00-\x7f]+|[\x00-\x7f]+(?![^\x00-\x7f])")


def located(text: str, rules: TextRules, allowed: frozenset[str]) -> Iterator[tuple[str, int | None, np.ndarray]]:
    """The pieces of Tokenizer._pieces, each with where its characters come from, (n, 2) places in the text."""
    raw, late = both_stages(rules.added, allowed, rules.normalize)
    place = 0
    for piece, id in raw.pieces(text):
        if id is not None:
            yield piece, id, np.tile([[place, place + len(piece)]], (len(piece), 1))
        else:
            changed, origins = aligned(piece, rules.normalize)
            done = 0
            for part, id in late.pieces(changed):
                where = origins[done:done + len(part)] + place
                done += len(part)
                seen = part if id is not None else rules.prefixed(part)
                yield seen, id, np.concatenate([where[:1] * [[1, 0]] + where[:1, :1] * [[0, 1]], where])[-len(seen):]
        place += len(piece)


def aligned(text: str, normalize: Normalizer | None) -> tuple[str, np.ndarray]:
    """The normalized text, and for each of its characters where it comes from, (n, 2) places in the text."""
    changed = normalize(text) if normalize else text
    if changed == text:
        return text, one_to_one(0, len(text))
    assert normalize
    groups = [normalized(group, normalize) for group in GROUP.findall(text)]
    if "".join(new for group in groups for _, new in group) != changed:         # a normalizer of whole texts
        return changed, np.tile([[0, len(text)]], (len(changed), 1))
    origins, place = [np.empty((0, 2), np.int64)], 0
    for old, new in (pair for group in groups for pair in group):
        end = place + len(old)
        origins.append(one_to_one(place, len(old)) if old == new else np.tile([[place, end]], (len(new), 1)))
        place = end
    return changed, np.concatenate(origins)


def normalized(group: str, normalize: Normalizer) -> list[tuple[str, str]]:
    """(part, normalized part): clusters, if they can be normalized one by one, or the whole."""
    changed = normalize(group)
    if changed == group:
        return [(group, group)]
    clusters: list[str] = []
    for char in group:
        if clusters and combining(char):
            clusters[-1] += char
        else:
            clusters.append(char)
    pairs = [(cluster, normalize(cluster)) for cluster in clusters]
    return pairs if "".join(new for _, new in pairs) == changed else [(group, changed)]


def one_to_one(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count)[:, None] + [[0, 1]]


def token_spans(text: str, lengths: list[int], origins: np.ndarray) -> np.ndarray:
    """(n, 2) places of n tokens, of `lengths` bytes, of a text whose characters come from `origins`."""
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    char_at = np.cumsum((data & 0xC0) != 0x80) - 1                      # of each byte, the number of its character
    ends = np.cumsum(lengths)
    starts = ends - lengths
    return np.stack([origins[char_at[starts], 0], origins[char_at[ends - 1], 1]], axis=1)
