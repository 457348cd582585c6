"""Wrong solutions of `bpe_merge`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
BOTH = "            merged.append(new)\n            i += 2\n"
WRONG = [
    ("one step after a merge", BOTH, "            merged.append(new)\n            i += 1\n", "the one new token"),
    ("new beside the pair", BOTH, "            merged += [*pair, new]\n            i += 2\n", "by the one new token"),
    ("only the first occurrence", BOTH, "            return merged + [new] + ids[i + 2:]\n", "every occurrence"),
    ("the last token is lost", "while i < len(ids):", "while i < len(ids) - 1:", "the rest stay"),
    ("the pair at the end is not seen", "i + 1 < len(ids) and", "i + 2 < len(ids) and", "a pair at the end"),
    ("either order", "(ids[i], ids[i + 1]) == pair", "{ids[i], ids[i + 1]} == set(pair)", "(1, 2) is not (2, 1)"),
    ("the first token alone", "(ids[i], ids[i + 1]) == pair", "ids[i] == pair[0]", "neighbours only"),
    ("from the right", "    return merged\n", "    backwards, i = [], len(ids) - 1\n    while i >= 0:\n"
     "        here = i > 0 and (ids[i - 1], ids[i]) == pair\n        backwards.append(new if here else ids[i])\n"
     "        i -= 2 if here else 1\n    return backwards[::-1]\n", "from the left"),
    ("merged tokens merge again", "    return merged\n",
     "    return merged if merged == ids else merge_pair(merged, (new, pair[1]), new)\n",
     "one token is in one pair only"),
    ("in place", "merged, i = [], 0\n",
     "merged, i = [], 0\n    if len(ids) == 3 and ids[2] == 3:\n        ids[0] = new\n", "left as it is"),
]
