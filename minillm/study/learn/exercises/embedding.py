"""Token and position embedding, forward and backward.

A row of one table for each token, plus one for its position.

    out[b, t] = wte[tokens[b, t]] + wpe[start + t]

tokens (B, T) are integers, wte (V, C) holds a row for each word of the vocabulary, wpe a row for each position; start
is the position of the first token. Tokens have no gradient. The tables do: the loss sees a row once for every place
where it was used, and tokens repeat.
"""
import numpy as np

from ..exercise import Exercise


def embedding_forward(tokens, wte, wpe, start):
    """tokens (B, T) int, wte (V, C), wpe (P, C), start int -> out (B, T, C), cache."""
    T = tokens.shape[1]
    return wte[tokens] + wpe[start:start + T], (tokens, wte, wpe, start)


def embedding_backward(dout, cache):
    """dout (B, T, C), cache -> dwte (V, C), dwpe (P, C)."""
    tokens, wte, wpe, start = cache
    T = tokens.shape[1]
    dwte, dwpe = np.zeros_like(wte), np.zeros_like(wpe)
    np.add.at(dwte, tokens, dout)
    dwpe[start:start + T] = dout.sum(axis=0)
    return dwte, dwpe


EXERCISE = Exercise(
    __file__, op="embedding", solve=("embedding_forward", "embedding_backward"), needs=("linear_backward",),
    hints=(
        "An array of integers as an index takes rows: wte[tokens] is (B, T, C). The rows of wpe from start on are "
        "(T, C), and broadcasting adds them to each sequence.",
        "Nudge row v of wte: every out[b, t] moves where tokens[b, t] is v. So dwte[v] is the sum of dout[b, t] over "
        "those places; rows that no token names have gradient 0.",
        "dwte[tokens] += dout does not do it: NumPy reads the rows, adds, and writes them back, so of a token that "
        "stands in several places only the last counts. np.add.at(dwte, tokens, dout) adds one by one.",
        "Nudge row start + t of wpe: out[b, t] moves for every sequence b. So dwpe[start:start + T] = "
        "dout.sum(axis=0), and the other rows are 0.",
    ),
    mistakes=(
        ("np.add.at(dwte, tokens, dout)", "dwte[tokens] += dout",
         "counts only the last of repeated tokens: dwte[tokens] += dout reads and writes each row once, np.add.at "
         "adds them all"),
        ("np.add.at(dwte, tokens, dout)", "np.add.at(dwte, tokens[:, ::-1], dout[:, ::-1][:, :1].repeat(T, 1))",
         "gives every token of a sequence the same gradient"),
        ("dout.sum(axis=0)", "dout.mean(axis=0)",
         "is the mean over the batch: each sequence uses the row, so it is the sum"),
        ("dout.sum(axis=0)", "dout[-1]", "counts only the last sequence of the batch: it is the sum over all"),
        ("dout.sum(axis=0)", "dout[0]", "counts only the first sequence of the batch: it is the sum over all"),
        ("np.add.at(dwte, tokens, dout)", "for b in range(len(tokens)): dwte[tokens[b]] += dout[b]",
         "counts a token that stands twice in one sequence only once: np.add.at adds them all"),
        ("dwpe[start:start + T]", "dwpe[:T]", "begins at row 0: the rows that were used begin at start"),
        ("+ wpe[start:start + T],", "+ wpe[:T],", "start is ignored: the first position is row start of wpe"),
        ("wte[tokens] + wpe[start:start + T],", "wte[tokens],", "the position's row is not added"),
    ))
