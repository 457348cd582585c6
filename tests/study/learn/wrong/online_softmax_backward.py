"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no row sum", "dout @ v[part].T - rowsum", "dout @ v[part].T", "lacks the row's sum"),
    ("last block", "dq += scale", "dq = scale", "your dq counts the last block alone"),
    ("no lse", "(q @ k[part].T) - lse)", "(q @ k[part].T))", "has exp(S) where P = exp(S - lse) belongs"),
    ("one block's sum", "dS = P * (dout @ v[part].T - rowsum)",
     "dP = dout @ v[part].T; dS = P * (dP - (dP * P).sum(axis=1, keepdims=True))", "has the sum of one block"),
    ("all at once", "range(0, len(k), block):\n        part",
     "range(0, len(k), len(k)):\n        block = len(k)\n        part",
     "only those of one block, (T, block), may be in memory"),
    ("sign", "dv[part] = P.T @ dout", "dv[part] = -P.T @ dout", "your dv: the sign is wrong"),
]
