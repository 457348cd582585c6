"""Token files of llm.c: a header of 256 int32, then the tokens. github.com/karpathy/llm.c, dev/data/data_common.py

    header[0] magic, header[1] version, header[2] number of tokens, zeros after that
    20240520, 1: uint16 (GPT-2)         20240801, 7: uint32 (Llama 3)
"""
from pathlib import Path

import numpy as np

from ...storage.atomic import atomic_write

WORDS = 256
BYTES = 4 * WORDS
KINDS = {(20240520, 1): np.dtype("<u2"), (20240801, 7): np.dtype("<u4")}


def header(tokens, dtype):
    """The header as bytes. Raises ValueError for more tokens than its number can say."""
    if tokens >= 2 ** 31:
        raise ValueError(f"a file of llm.c holds fewer than 2^31 tokens: got {tokens}")
    words = np.zeros(WORDS, "<i4")
    words[:2] = next(kind for kind, known in KINDS.items() if known == dtype)
    words[2] = tokens
    return words.tobytes()


def write(path, tokens):
    """Write a file of tokens, (n,) unsigned integers below 2^32: as uint16 if all fit."""
    tokens = np.asarray(tokens)
    dtype = np.dtype("<u2" if not tokens.size or tokens.max() < 2 ** 16 else "<u4")
    with atomic_write(path, "wb") as file:
        file.write(header(len(tokens), dtype))
        file.write(tokens.astype(dtype).tobytes())


def read(path):
    """The tokens, mapped: (n,) uint16 or uint32. Raises ValueError naming the file and what is wrong with it."""
    size = Path(path).stat().st_size
    words = np.fromfile(path, "<i4", WORDS)
    if len(words) < WORDS or tuple(map(int, words[:2])) not in KINDS:
        raise ValueError(f"{path}: not a token file of llm.c: its header has neither 20240520, 1 nor 20240801, 7")
    dtype = KINDS[tuple(map(int, words[:2]))]
    if size != BYTES + int(words[2]) * dtype.itemsize:
        raise ValueError(f"{path}: the header says {words[2]} tokens of {dtype.itemsize} bytes, the file has {size}")
    return np.memmap(path, dtype, "r", BYTES)
