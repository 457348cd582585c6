"""Wrong solutions of `temperature`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
W = "w = np.exp((z - z.max()) / temperature)"
WRONG = [
    ("multiplied by the temperature", W, "w = np.exp((z - z.max()) * temperature)", "divided by the temperature"),
    ("the temperature is ignored", W, "w = np.exp(z - z.max())", "divided by the temperature"),
    ("probabilities divided, not logits", "    w = np.exp((z - z.max()) / temperature)\n    return w / w.sum()",
     "    w = np.exp(z - z.max())\n    w = w / w.sum() / temperature\n    return w / w.sum()", "before the softmax"),
    ("not normalised", "return w / w.sum()", "return w", "must be the softmax"),
    ("no case for temperature 0", "if temperature == 0:", "if temperature < 0:", "at temperature 0"),
    ("temperature 0 shares among equals", "(np.arange(len(z)) == z.argmax()).astype(np.float64)",
     "(z == z.max()) / (z == z.max()).sum()", "the first must have it all"),
    ("exp overflows", W, "w = np.exp(z / temperature)", "take the maximum off"),
    ("the maximum taken off by hand", W, "w = np.exp(np.maximum(z - z.max(), -50) / temperature)", "-inf"),
    ("float32", "z = logits.astype(np.float64)", "z = logits", "float64 probabilities"),
    ("in place", "    w = np.exp((z - z.max()) / temperature)\n",
     "    logits /= temperature\n    w = np.exp(logits - logits.max()).astype(np.float64)\n", "left as they are"),
    ("the border belongs to the token before", 'side="right"', 'side="left"', "p[0] is beyond token 0"),
    ("one too far", 'side="right"))', 'side="right")) + 1', "stands for token 0"),
    ("the likeliest token", "token = int(np.searchsorted(p.cumsum(), u, side=\"right\"))", "token = int(p.argmax())",
     "stands for token 0"),
    ("beyond the end", "min(token, int(np.flatnonzero(p)[-1]))", "token", "rounding"),
    ("a token that cannot come at the end", "min(token, int(np.flatnonzero(p)[-1]))", "min(token, len(p) - 1)",
     "the last token that can come"),
]
