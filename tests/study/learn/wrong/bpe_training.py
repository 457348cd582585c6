"""Wrong solutions of `bpe_training`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
BEST = "best = min(counts, key=lambda pair: (-counts[pair], pair))"
WRONG = [
    ("the rarest pair", "(-counts[pair], pair)", "(counts[pair], pair)", "most often"),
    ("words are counted once", "counts[pair] += count", "counts[pair] += 1", "as often as its word occurs"),
    ("once a word", "for pair in pairwise(ids)", "for pair in set(pairwise(ids))", "counts twice"),
    ("the first merge is never applied",
     "        split = [(merge_pair(ids, best, 256 + len(merges)), count) for ids, count in split]\n", "",
     "the second merge must see"),
    ("every merge makes token 256", "256 + len(merges)", "256", "the third token is 258"),
    ("one id too high", "256 + len(merges)", "257 + len(merges)", "which is 256"),
    ("ties by the first in the corpus", BEST, "best = max(counts, key=counts.get)", "equally frequent"),
    ("ties to the larger pair", BEST, "best = max(counts, key=lambda pair: (counts[pair], pair))", "the smaller"),
    ("ties by the second token", "(-counts[pair], pair)", "(-counts[pair], pair[1], pair[0])", "the smaller"),
    ("counted once at the beginning", "        counts = Counter()\n        for ids",
     "        counts = Counter() if not merges else Counter({p: n for p, n in counts.items() if p != best})\n"
     "        for ids", "256"),
    ("overlaps counted once", "            for pair in pairwise(ids):\n",
     "            for i, pair in enumerate(pairwise(ids)):\n"
     "                if i and pair[0] == pair[1] == ids[i - 1]:\n                    continue\n",
     "overlapping pairs count each"),
    ("never stops", "        if not counts:\n            break\n",
     "        if not counts:\n            counts[0, 0] = 1\n", "stop"),
    ("characters, not bytes", 'list(word.encode("utf-8"))', "[ord(letter) for letter in word]", "UTF-8 bytes"),
    ("words are joined", 'split = [(list(word.encode("utf-8")), count) for word, count in words.items()]',
     'split = [(list(b"".join(word.encode() * count for word, count in words.items())), 1)]', "the border of a word"),
]
