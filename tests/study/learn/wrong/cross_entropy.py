"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("sign", "-right, 0)", "right, 0)", "the sign is wrong"),
    ("ignored rows", "np.where(valid, -right, 0)", "-right", "ignore_index must have loss 0"),
    ("base 2", "np.where(valid, -right, 0)", "np.where(valid, -right / 0.6931471805599453, 0)",
     "all are 1.4427 times the right ones"),
    ("mean", "np.where(valid, -right, 0)", "np.where(valid, -right, 0).mean()",
     "out must be an array of shape (10,)"),
    ("no one", "    dlogits[np.flatnonzero(valid), targets[valid]] -= 1\n", "", "lacks the - 1 at the right token"),
    ("ignored rows' gradient", "(dout * valid)[:, None]", "dout[:, None]", "is not 0 in the rows that are ignored"),
    ("no dout", "dlogits * (dout * valid)[:, None]", "dlogits * valid[:, None]", "has no dout in it"),
    ("overflow", "z = logits - logits.max(axis=1, keepdims=True)", "z = logits", "with logits 1000 times as large"),
    ("loop over classes", "targets[valid]] -= 1", "targets[valid]] -= 0.9", "your dlogits"),
]
