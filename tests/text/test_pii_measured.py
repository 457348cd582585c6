"""How much personal data is found, and how much of what is found is none: labelled sentences, precision and recall."""
import re
from collections import Counter
from pathlib import Path

from minillm.text import pii

MARK = re.compile(r"\[\[([A-Z]+):(.*?)\]\]")
KINDS = {kind for kind, _, _ in pii.KINDS} - {"IBAN"}             # of IBAN, test_pii.py


def sentences(name):
    """[(text, the text as it is to be masked, Counter of kinds)]."""
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return [(MARK.sub(r"\2", line), MARK.sub(r"<\1>", line), Counter(kind for kind, _ in MARK.findall(line)))
            for line in lines if not line.startswith("# ")]


def test_precision_and_recall(capsys):
    positive, negative = sentences("personal.txt"), sentences("impersonal.txt")
    labelled, masked, right, wrong = Counter(), Counter(), Counter(), []
    for text, expected, kinds in positive + negative:
        found, counts = pii.mask(text)
        labelled, masked = labelled + kinds, masked + counts
        if found == expected:                       # the whole of it, and nothing else
            right += kinds
        else:
            wrong.append(f"{text!r} -> {found!r}")
    with capsys.disabled():
        print(f"\n{len(positive)} sentences with personal data, {len(negative)} without")
        for kind in sorted(labelled | masked):
            print(f"{kind:<6}{labelled[kind]:>5} labelled{masked[kind]:>5} masked   "
                  f"precision {right[kind] / masked[kind]:.3f}   recall {right[kind] / labelled[kind]:.3f}")
    assert labelled["PHONE"] >= 300 and len(negative) >= 300 and set(labelled) == KINDS
    assert right.total() >= 0.98 * masked.total() and right.total() >= 0.96 * labelled.total(), "\n".join(wrong)
    assert all(right[kind] == labelled[kind] for kind in KINDS - {"PHONE"}), "\n".join(wrong)
