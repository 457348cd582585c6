"""Token files of llm.c: a header of 256 int32, then the tokens. github.com/karpathy/llm.c, dev/data/data_common.py

    header[0] magic, header[1] version, header[2] number of tokens, zeros after that
    20240520, 1: uint16 (GPT-2)         20240801, 7: uint32 (Llama 3)
"""
import numpy as np

WORDS = 256
BYTES = 4 * WORDS
KINDS = {np.dtype("<u2"): (20240520, 1), np.dtype("<u4"): (20240801, 7)}


def header(tokens: int, dtype: np.dtype) -> bytes:
    """The header as bytes. Raises ValueError for more tokens than its number can say."""
    if tokens >= 2 ** 31:
        raise ValueError(f"a file of llm.c holds fewer than 2^31 tokens: got {tokens}")
    words = np.zeros(WORDS, "<i4")
    words[:2] = KINDS[dtype]
    words[2] = tokens
    return words.tobytes()
