"""Perplexity and bits per byte.

The loss of a language model is the mean of -ln p over tokens, in nats. A tokenizer with longer tokens has fewer of
them, each harder: a loss of 3 may be better than one of 2. What all models share is the text, so divide by its length
in bytes, and take bits, as compression does: 8 are no model at all.

    perplexity     e to the mean loss of a token: of how many equally likely tokens the model chooses, as it were
    bits per byte  all nats, in bits (1 bit = ln 2 nats), over all bytes of the texts in UTF-8

Both are of all documents together: a long one counts for more than a short one. nats is a list of arrays, one a
document, of the losses of its tokens; texts a list of str, the documents. Write perplexity(nats) and
bits_per_byte(nats, texts), floats; where the perplexity is more than a float can hold it is infinity.

Source: Shannon 1948, "A Mathematical Theory of Communication"; bits per byte: Gao et al. 2020 (The Pile), arXiv
2101.00027, section 3.1.
"""
import math

import numpy as np

from ....evaluate import perplexity as package
from ..exercise import Exercise
from ..rules import by_cases


def perplexity(nats):
    """nats, a list of arrays (tokens,) of losses -> float."""
    mean = sum(float(losses.sum()) for losses in nats) / sum(len(losses) for losses in nats)
    return math.exp(mean) if mean < 700 else math.inf


def bits_per_byte(nats, texts):
    """nats, a list of arrays (tokens,) of losses, and texts, the documents -> float."""
    total = sum(float(losses.sum()) for losses in nats)
    return total / math.log(2) / sum(len(text.encode("utf-8")) for text in texts)


def _cases(yours):
    """One document, then two that differ in length, letters of several bytes, extremes."""
    def found(nats, texts):
        return [package.Surprise(float(a.sum()), len(a), len(text.encode())) for a, text in zip(nats, texts)]

    def bits(rule, nats, texts):
        return f"bits per byte: {rule}", yours.bits_per_byte(nats, texts), package.bits_per_byte(found(nats, texts))

    def tokens(rule, *nats):
        return f"perplexity: {rule}", yours.perplexity([*nats]), package.perplexity(found(nats, [""] * len(nats)))

    even, hard = np.full(4, math.log(10)), np.array([5.0])
    yield tokens("a model that chooses among 10 equally likely tokens has perplexity 10: e to the mean loss", even)
    yield tokens("the mean is over all tokens of all documents, not over documents", even, hard)
    yield tokens("beyond what a float holds it must be infinity, not an OverflowError", np.array([1e4]))
    yield tokens("a sure model has perplexity 1", np.zeros(3))
    one = [np.array([math.log(2)] * 8)]
    yield bits("8 tokens of ln 2 nats are 8 bits, over 8 bytes in UTF-8 that is 1: mind nats and bits", one,
               ["abcdefgh"])
    yield bits("divide by the bytes of the text, not by its tokens", one, ["abcdefgh" * 4])
    yield bits("bytes in UTF-8, not characters: ö has two, 猫 three", one, ["ö猫"])
    yield bits("all bits over all bytes: not the mean of the documents' ratios", [*one, hard], ["ab", "a" * 50])
    yield bits("a document without tokens still has its bytes", [*one, np.zeros(0)], ["ab", "c"])


EXERCISE = Exercise(
    __file__, solve=("perplexity", "bits_per_byte"), needs=("bpe_encoding",), checks=by_cases(_cases),
    hints=("Sum the losses of all documents, and count their tokens: len(losses). The perplexity is exp of the ratio.",
           "math.exp raises OverflowError above 709: return math.inf there.",
           "One bit is ln 2 nats: bits = nats / math.log(2).",
           "len(text.encode('utf-8')) is a text's length in bytes; sum over documents before dividing."))
