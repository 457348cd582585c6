"""Wrong solutions of `minhash`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
VALUES = "values = hashes[:, None] * a + b "
WRONG = [
    ("over one set", "len(A & B) / len(A | B) if A | B else 0.0", "len(A & B) / max(1, len(A))",
     "over what is in either"),
    ("over the sum of both", "len(A & B) / len(A | B) if A | B", "len(A & B) / (len(A) + len(B)) if A | B",
     "in both over what is in either"),
    ("0 / 0", " if A | B else 0.0", "", "ZeroDivisionError"),
    ("empty sets are the same", "else 0.0", "else 1.0", "of two empty sets 0"),
    ("the largest", "values.min(axis=0, initial=np.uint32(2 ** 32 - 1))", "values.max(axis=0, initial=np.uint32(0))",
     "the least"),
    ("a number a shingle", "values.min(axis=0, initial=np.uint32(2 ** 32 - 1))",
     "values.min(axis=1, initial=np.uint32(2 ** 32 - 1))", "one number for each of the K permutations"),
    ("64 bits", VALUES, "values = hashes[:, None].astype(np.uint64) * a + b ", "signature"),
    ("floats", VALUES, "values = (hashes[:, None].astype(float) * a + b) % 2 ** 32 ", "signature"),
    ("b is left out", VALUES, "values = hashes[:, None] * a ", "the least a * h + b"),
    ("min of nothing", "values.min(axis=0, initial=np.uint32(2 ** 32 - 1))", "values.min(axis=0)", "ValueError"),
    ("no shingles are zeros", "    return values.min(axis=0",
     "    if not len(hashes):\n        return np.zeros(len(a), np.uint32)\n    return values.min(axis=0",
     "all 2^32 - 1"),
    ("agreement anywhere", "float(np.mean(one == other))", "float(np.mean(np.isin(one, other)))", "place by place"),
    ("all or nothing", "float(np.mean(one == other))", "float(np.all(one == other))", "the share of places"),
    ("how many agree", "float(np.mean(one == other))", "float(np.sum(one == other))", "the share of places"),
]
