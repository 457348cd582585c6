"""Wrong solutions of `lsh`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
BANDS = "signatures[:, band * rows:(band + 1) * rows]"
WRONG = [
    ("bands and rows exchanged", "1 - (1 - s ** rows) ** bands", "1 - (1 - s ** bands) ** rows", "found"),
    ("all bands", "1 - (1 - s ** rows) ** bands", "(s ** rows) ** bands", "of 4 bands of one value"),
    ("probabilities added", "1 - (1 - s ** rows) ** bands", "min(1.0, bands * s ** rows)", "none agrees"),
    ("none", "1 - (1 - s ** rows) ** bands", "(1 - s ** rows) ** bands", "one band"),
    ("one value of the band", "values.tobytes()", "int(values[0])", "all values of the band"),
    ("the first band only", "for band in range(bands)", "for band in range(1)", "not the first alone"),
    ("all bands must agree", BANDS, "signatures[:, :bands * rows]", "agree in a whole band"),
    ("one dictionary for all bands", "    for band in range(bands):\n        buckets = defaultdict(list)\n",
     "    buckets = defaultdict(list)\n    for band in range(bands):\n", "different bands"),
    ("sorted values", "values.tobytes()", "np.sort(values).tobytes()", "in their places"),
    ("every bands-th value", BANDS, "signatures[:, band:bands * rows:bands]", ("candidates", "band")),
    ("neighbours in a bucket only", "combinations(members, 2)", "zip(members, members[1:])", "three pairs"),
    ("both orders", "combinations(members, 2)", "((i, j) for i in members for j in members if i != j)", "a pair"),
    ("a document with itself", "combinations(members, 2)", "((i, j) for i in members for j in members if i <= j)",
     "a pair, (0, 1)"),
    ("a band more", "range(bands)", "range(bands + 1)", "candidates"),
]
