"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("overflow", "np.exp(x - x.max(axis=-1, keepdims=True))", "np.exp(x)", "take the row's maximum off"),
    ("whole maximum", "x - x.max(axis=-1, keepdims=True)", "x - x.max()", "with x 1000 times as large out"),
    ("all rows", "e.sum(axis=-1, keepdims=True)", "e.sum()", "the sum is over all rows together"),
    ("not divided", "e / e.sum(axis=-1, keepdims=True)", "e", "not divided by the row's sum"),
    ("diagonal", "p * (dout - (dout * p).sum(axis=-1, keepdims=True))", "p * (1 - p) * dout",
     "the diagonal of the Jacobian alone"),
    ("log", "return p * (dout -", "return np.log(p) * (dout -", "your dx"),
    ("mean", "(dout * p).sum", "(dout * p).mean", "has a mean where the sum"),
    ("writes cache", "    return p * (dout", "    p += 1e-12\n    return p * (dout", "wrote into its cache"),
]
