"""Wrong solutions of `kv_cache`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
SPLIT = "q, k, v = qkv.reshape(B, 3, n_head, C // n_head).swapaxes(0, 1)"
WRONG = [
    ("the new token is not stored", "    keys[:, :, length], values[:, :, length] = k, v\n", "", "the new key"),
    ("only the key is stored", "keys[:, :, length], values[:, :, length] = k, v", "keys[:, :, length] = k",
     "the new value"),
    ("one place too far", "keys[:, :, length], values[:, :, length] = k, v",
     "keys[:, :, length + 1], values[:, :, length + 1] = k, v", "at place `length`"),
    ("does not see itself", "keys[:, :, :length + 1], values[:, :, :length + 1]",
     "keys[:, :, :length], values[:, :, :length]", "a token sees itself, too"),
    ("sees what is not filled", "keys[:, :, :length + 1], values[:, :, :length + 1]", "keys, values",
     "the whole cache is seen"),
    ("sees one place too many", "keys[:, :, :length + 1], values[:, :, :length + 1]",
     "keys[:, :, :length + 2], values[:, :, :length + 2]", "one place too many is seen"),
    ("no scale", " / math.sqrt(C // n_head)", "", "sqrt(HS)"),
    ("scale of the whole width", "math.sqrt(C // n_head)", "math.sqrt(C)", "with heads each attends for itself"),
    ("divided by HS", "math.sqrt(C // n_head)", "(C // n_head)", "sqrt(HS)"),
    ("heads split wrongly", SPLIT, "q, k, v = qkv.reshape(B, 3, C // n_head, n_head).transpose(1, 0, 3, 2)",
     "with heads the new key must be split"),
    ("heads first", SPLIT, "q, k, v = qkv.reshape(B, n_head, 3, C // n_head).transpose(2, 0, 1, 3)", "with heads"),
    ("exp overflows", "scores - scores.max(axis=-1, keepdims=True)", "scores", "large scores overflow"),
    ("the cache is emptied", "    keys[:, :, length], values",
     "    keys[:, :, :length] = 0\n    keys[:, :, length], values", "before `length` must be left"),
    ("masked instead of cut", '    scores = np.einsum("bhd,bhsd->bhs", q, seen_keys) / math.sqrt(C // n_head)\n',
     "    seen_keys, seen_values = keys, values\n"
     '    scores = np.einsum("bhd,bhsd->bhs", q, keys) / math.sqrt(C // n_head)\n'
     "    scores[..., length + 1:] = -np.inf\n", "must not be read"),
]
