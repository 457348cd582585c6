"""Wrong solutions of `top_p`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
ORDER = 'order = np.argsort(-p, kind="stable")'
SIZE = "size = min(int(np.searchsorted(sums, top_p)) + 1, len(p))"
WRONG = [
    ("the crossing token is dropped", SIZE, "size = int(np.searchsorted(sums, top_p))",
     "the last token that crosses top_p must be kept"),
    ("the crossing token is dropped, but one is left", SIZE, "size = max(1, int(np.searchsorted(sums, top_p)))",
     "the last token that crosses top_p must be kept"),
    ("one token too many", SIZE, "size = min(int(np.searchsorted(sums, top_p)) + 2, len(p))", "and no more"),
    ("one more at an exact sum", "np.searchsorted(sums, top_p)", 'np.searchsorted(sums, top_p, side="right")',
     "exactly top_p reaches it"),
    ("the least probable are kept", ORDER, 'order = np.argsort(p, kind="stable")', "the most probable"),
    ("in the order of the ids", ORDER, "order = np.arange(len(p))", "not of their ids"),
    ("not normalised", "return kept / kept.sum()", "return kept", "divided by its sum"),
    ("a softmax again", "return kept / kept.sum()",
     "kept = np.where(kept > 0, np.exp(kept), 0)\n    return kept / kept.sum()", "divided by its sum"),
    ("a threshold, as min-p has it", "kept[order[:size]] = p[order[:size]]",
     "kept[p >= top_p * p.max()] = 1\n    kept *= p", "the last token that crosses"),
    ("all equal tokens are kept", "kept[order[:size]] = p[order[:size]]",
     "kept[p >= p[order[size - 1]]] = 1\n    kept *= p", "only as many"),
    ("of equal tokens the last", ORDER, "order = np.argsort(p, kind=\"stable\")[::-1]", "of equal tokens"),
    ("a sort that mixes equal tokens", ORDER, "order = np.argsort(-p)", "unless kind='stable'"),
    ("in place", "    kept = np.zeros_like(p)\n    kept[order[:size]] = p[order[:size]]\n",
     "    p[order[size:]] = 0\n    kept = p\n", "left as it is"),
]
