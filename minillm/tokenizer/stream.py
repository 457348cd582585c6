"""Tokens' bytes as text: never half a character, though a token may end inside one."""
import codecs
from collections.abc import Iterable, Iterator

import numpy as np


def text_pieces(tokens: Iterable[bytes]) -> Iterator[str]:
    """The text piece by piece as tokens come in; a piece never ends inside a character, and none is empty."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        if piece := decoder.decode(token):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece


def text_with_offsets(tokens: Iterable[bytes]) -> tuple[str, np.ndarray]:
    """The text, and where each of n tokens lies in it: (n, 2) int64, in characters."""
    decoder, spans, pieces, length = codecs.getincrementaldecoder("utf-8")(errors="replace"), [], [], 0
    for token in tokens:
        unfinished, begins_anew = bool(decoder.getstate()[0]), not b"\x80" <= token[:1] < b"\xc0"
        start = length + (unfinished and begins_anew)               # behind the character that came to nothing
        pieces.append(decoder.decode(token))
        length += len(pieces[-1])
        spans.append((start, length + bool(decoder.getstate()[0])))
    return "".join([*pieces, decoder.decode(b"", final=True)]), np.array(spans, np.int64).reshape(-1, 2)
