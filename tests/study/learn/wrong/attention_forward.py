"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no scale", " * (1 / math.sqrt(HS))", "", "lacks the scale 1 / sqrt(HS)"),
    ("1 / HS", "1 / math.sqrt(HS)", "1 / HS", "has the scale 1 / HS"),
    ("NumPy's root", "(1 / math.sqrt(HS))", "(1 / np.sqrt(np.float64(HS)))", "out must be float32: got float64"),
    ("no mask", "    S = np.where(np.tri(T, dtype=bool), S, -math.inf)\n", "", "lacks the mask"),
    ("itself hidden", "np.tri(T, dtype=bool), S, -math.inf", "np.tri(T, k=-1, dtype=bool), S, -1e30",
     "hides the token itself"),
    ("zeros", "np.tri(T, dtype=bool), S, -math.inf", "np.tri(T, dtype=bool), S, 0", "hidden scores of 0"),
    ("masked after", "    return merge_heads(P @ v)",
     "    P = P * np.tri(T, dtype=bool)[::-1]\n    return merge_heads(P @ v)", "numbers differ)"),
    ("no merge", "merge_heads(P @ v)", "P @ v", "out must have shape (2, 5, 6): got (2, 3, 5, 2)"),
    ("overflow", "S - S.max(axis=-1, keepdims=True)", "S", "with qkv 1000 times as large out"),
]
