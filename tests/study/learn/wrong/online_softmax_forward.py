"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("l not mended", "mend * l + P", "l + P", "does not bring l into the new unit"),
    ("acc not mended", "mend * acc + P", "acc + P", "does not bring acc into the new unit"),
    ("no division", "out = acc / l", "out = acc", "is not divided by l at the end"),
    ("last block", "range(0, len(k), block)", "range(0, len(k) - block + 1, block)",
     "leaves the last, shorter block out"),
    ("all at once", "range(0, len(k), block):", "range(0, len(k), len(k)):\n        block = len(k)",
     "only those of one block, (T, block), may be in memory"),
    ("no maximum", "np.maximum(m, S.real.max(axis=1, keepdims=True))", "np.zeros_like(m)",
     "with q 1000 times as large out"),
    ("lse of another sign", "m + np.log(l)", "m - np.log(l)", "lse must be m + log(l)"),
    ("no lse", "block, out, m + np.log(l)", "block, out", "the cache must be (q, k, v, block, out, lse)"),
]
