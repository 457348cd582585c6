"""Which documents are for training and which for validation.

A keyed hash of its text (BLAKE2b, RFC 7693) decides, so the split does not depend on the order of the documents, and
identical documents never stand on both sides.

When the hash leaves one side without any document (a single long one, or a few), the last `val_fraction` of the text
becomes validation, cut at a document's beginning or a paragraph's end where there is one near. (Of a stream in which
one side is still empty after 64 MiB, the last `val_fraction` of those 64 MiB.)
"""
import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from ..sources.plain_text import last_break

HOLD_BYTES = 2**26          # text held back while one of the sides has had no document yet


def split_of(text: str, val_fraction: float, seed: int) -> str:
    """"train" or "val", a function of the text and the seed alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()[:64]).digest()
    return "val" if int.from_bytes(digest, "little") < val_fraction * 2**64 else "train"


def assign_sides(documents: Iterable[tuple[str, float]], val_fraction: float,
                 seed: int) -> Iterator[tuple[str, str, float]]:
    """(side, text, weight) of each (text, weight), held back until both sides have one, so that neither stays empty.

    Raises ValueError for a fraction outside (0, 1); while drawing, for no text at all, or too little for two sides.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be between 0 and 1, got {val_fraction}")
    return _assigned(documents, val_fraction, seed)


def _assigned(documents: Iterable[tuple[str, float]], val_fraction: float,
              seed: int) -> Iterator[tuple[str, str, float]]:
    held, size, both = [], 0, False
    for text, weight in documents:
        if not text:
            continue
        assigned = split_of(text, val_fraction, seed), text, weight
        if both:
            yield assigned
            continue
        held.append(assigned)
        size += len(text)
        both = len({side for side, _, _ in held}) == 2
        if both or size > HOLD_BYTES:
            yield from held if both else _cut(held, val_fraction)
            held, both = [], True
    if held:
        yield from _cut(held, val_fraction)
    elif not both:
        raise ValueError("no text at all: there are no documents, or only empty ones")


def _cut(held: list[tuple[str, str, float]], val_fraction: float) -> list[tuple[str, str, float]]:
    """The last `val_fraction` of the characters is validation, from a document's beginning if one is near."""
    texts = [text for _, text, _ in held]
    total = sum(map(len, texts))
    target = total * (1 - val_fraction)
    starts = np.cumsum([0, *map(len, texts)])[:-1]                 # (documents,) where each begins
    near = [index for index, start in enumerate(starts)
            if index and 0.5 * val_fraction * total <= total - start <= 2 * val_fraction * total]
    if near:
        first, at = min(near, key=lambda index: abs(starts[index] - target)), 0
    else:
        first = int(np.searchsorted(starts, target, side="right")) - 1
        at, tenth = int(target - starts[first]), len(texts[first]) // 10
        at = last_break(texts[first], max(0, at - tenth), at)
    _, text, weight = held[first]
    halves = {"train": [*held[:first], ("", text[:at], weight)], "val": [("", text[at:], weight), *held[first + 1:]]}
    found = [(side, text, weight) for side, half in halves.items() for _, text, weight in half if text]
    if len({side for side, _, _ in found}) < 2:
        raise ValueError("too little text to split into training and validation: "
                         f"{len(texts)} documents of {total} characters together; add more text")
    return found
