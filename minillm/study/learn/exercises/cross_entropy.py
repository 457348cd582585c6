"""Softmax and cross-entropy in one, forward and backward.

Minus the log-probability of the right token, row by row.

    p = softmax(z),    loss = -log p[y] = logsumexp(z) - z[y]

logits z (N, V), targets y (N,). A target of ignore_index counts for nothing: loss 0, gradient 0. One loss a row, not
their mean: that is the caller's. Taken together the two ops have a backward much simpler than one after the other.
"""
import numpy as np

from ..exercise import Exercise


def cross_entropy_forward(logits, targets, ignore_index):
    """logits (N, V), targets (N,) int -> losses (N,), cache."""
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))            # (N, V)
    valid = targets != ignore_index
    right = logp[np.arange(len(logits)), np.where(valid, targets, 0)]  # (N,)
    return np.where(valid, -right, 0), (logp, targets, valid)


def cross_entropy_backward(dout, cache):
    """dout (N,), cache -> dlogits (N, V)."""
    logp, targets, valid = cache
    dlogits = np.exp(logp)                                             # p
    dlogits[np.flatnonzero(valid), targets[valid]] -= 1
    return dlogits * (dout * valid)[:, None]


EXERCISE = Exercise(
    __file__, op="cross_entropy", solve=("cross_entropy_forward", "cross_entropy_backward"), needs=("softmax",),
    hints=(
        "log p[v] = z[v] - log(sum of exp(z)). Take the row's maximum from z first: it changes nothing and nothing "
        "overflows. The log of a softmax that has become 0 would be -inf; this form has no such log.",
        "logp[np.arange(N), targets] picks one number from each row. A target of -1 would pick the last: put 0 in "
        "its place, and set its loss to 0 afterwards, both by np.where.",
        "loss = logsumexp(z) - z[y]. The second part has slope -1 at v = y and 0 elsewhere.",
        "d logsumexp(z) / dz[v] = exp(z[v]) / sum of exp(z) = p[v]: the softmax comes back by itself.",
        "So dz[v] = dout * (p[v] - 1[v = y]), and 0 in the rows that are ignored. Each row has its own dout: dout[:, "
        "None].",
    ),
    mistakes=(
        ("z = logits - logits.max(axis=1, keepdims=True)", "z = logits",
         "exp overflows: take the row's maximum off first"),
        ("-right, 0)", "right, 0)", "the sign is wrong: the loss is minus the log-probability"),
        ("np.where(valid, -right, 0)", "-right", "rows whose target is ignore_index must have loss 0"),
        ("np.where(valid, -right, 0)", "np.where(valid, -right, 0) / int(valid.sum())",
         "it is divided by the number of rows: one loss a row is asked for, the mean is the caller's"),
        ("    dlogits[np.flatnonzero(valid), targets[valid]] -= 1\n", "",
         "lacks the - 1 at the right token: dz[v] = dout * (p[v] - 1[v = y])"),
        ("(dout * valid)[:, None]", "dout[:, None]", "is not 0 in the rows that are ignored"),
        ("dlogits * (dout * valid)[:, None]", "dlogits * valid[:, None]",
         "has no dout in it: each row is multiplied by its own"),
        ("dlogits * (dout * valid)[:, None]", "dlogits * (dout * valid)[:, None] / int(valid.sum())",
         "is divided by the number of rows: if the caller takes a mean, that is in dout already"),
        ("dlogits = np.exp(logp)", "dlogits = logp.copy()", "has log p where p belongs"),
        ("targets[valid]] -= 1", "targets[valid]] += 1", "has + 1 at the right token where - 1 belongs"),
    ))
