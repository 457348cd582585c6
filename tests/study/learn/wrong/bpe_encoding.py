"""Wrong solutions of `bpe_encoding`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
FIRST = "first = min(known, key=ranks.get)"
WRONG = [
    ("the leftmost pair first", FIRST, "first = known[0]", "stands further left"),
    ("the pair learned last first", FIRST, "first = max(known, key=ranks.get)", "learned first comes first"),
    ("the largest tokens first", FIRST, "first = max(known)", "learned first comes first"),
    ("one merge and done", "if not known:", "if not known or max(ids) > 255:", "another one's token"),
    ("each merge once, in order",
     "    while True:\n        known = [pair for pair in pairwise(ids) if pair in ranks]\n        if not known:\n"
     "            return ids\n        first = min(known, key=ranks.get)\n"
     "        ids = merge_pair(ids, first, 256 + ranks[first])",
     "    for first, rank in reversed(ranks.items()):\n        ids = merge_pair(ids, first, 256 + rank)\n"
     "    return ids", "another one's token"),
    ("every merge makes token 256", "256 + ranks[first]", "256", "256 + its place"),
    ("one too high", "256 + ranks[first]", "257 + ranks[first]", "256 + its place in the list"),
    ("characters, not bytes", 'list(word.encode("utf-8"))', "[ord(letter) for letter in word]", "several bytes"),
    ("stops early", "        if not known:\n", "        if not known or len(ids) < 3:\n", "another one's token"),
]
