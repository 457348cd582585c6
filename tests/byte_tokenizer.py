"""A tokenizer of one id a byte, some documents, and the way back from their shards."""
import numpy as np


class ByteTokenizer:
    """One id a byte, 256 ends a text."""
    vocab_size, eot_token = 257, 256

    def encode(self, text):
        return list(text.encode())


TEXTS = [(f"d{i}", f"Document number {i}: café.\n\n" * (1 + i % 5)) for i in range(200)]


def tokens_of(split):
    return np.concatenate(split.arrays) if split.arrays else np.zeros(0, np.uint16)


def documents_of(split):
    """The texts back from the tokens."""
    return bytes(b if b < 256 else 0 for b in tokens_of(split)).decode().split("\0")[:-1]
