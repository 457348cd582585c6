"""Quality filters: each score is a small pure function of a document, with the bounds that it should keep.

SCORES is one table: cleaning drops by it, the report draws its distributions, the sweep tries other bounds.

    Gopher        Rae et al. 2021 (arXiv 2112.11446), table A1 and section A.1.1: quality and repetition rules
    C4            Raffel et al. 2020 (arXiv 1910.10683), section 2.2

Words are stretches between white space; n-grams are of words. A share of characters counts each character once, however
many n-grams hold it.
"""
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

STOP_WORDS = frozenset("the be to of and that have with".split())
BULLETS = ("•", "‣", "*", "-", "–")
SYMBOLS = ("#", "...", "…")
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")
C4_LINE_END = (".", "!", "?", '"', "”")
C4_LINE_WORDS = 3                                       # "at least three words" (five for a page's lines)
C4_BOILERPLATE = re.compile("javascript|cookie|terms of use|privacy policy", re.IGNORECASE)


class Score(NamedTuple):
    """A document should have low <= function(document) <= high. family: which rules it belongs to."""

    function: Callable
    low: float
    high: float
    family: str


class Parts:
    """A document cut up once for all scores."""

    def __init__(self, text: str) -> None:
        self.text, self.words = text, text.split()
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
        self.characters = max(1, sum(map(len, self.words)))


def share(some: float, total: float) -> float:
    return some / total if total else 0.0


def share_of(items: list, test: Callable) -> float:
    """The share of the items that pass."""
    return share(sum(map(test, items)), len(items))


def stop_words(d: Parts) -> int:
    """How many different ones of eight words that no English text does without (Gopher asks for two)."""
    return len(STOP_WORDS & {word.lower().strip(".,;:!?\"'()") for word in d.words})


def duplicates(items: list) -> list:
    """The repeats: each item that occurred before."""
    counts = Counter(items)
    return [item for item, count in counts.items() for _ in range(count - 1)]


def duplicate_share(items: list[str]) -> float:
    return share(len(duplicates(items)), len(items))


def duplicate_characters(items: list[str]) -> float:
    return share(sum(map(len, duplicates(items))), sum(map(len, items)))


def top_ngram_characters(d: Parts, n: int) -> float:
    """Share of the characters that are in the n-gram which covers most of the text; 0 if none occurs twice."""
    counts = Counter(zip(*(d.words[i:] for i in range(n))))
    return max((sum(map(len, gram)) * count for gram, count in counts.items() if count > 1), default=0) / d.characters


def duplicate_ngram_characters(d: Parts, n: int) -> float:
    """Share of the characters in n-grams that occurred before; a word in two of them counts once."""
    seen, covered = set(), bytearray(len(d.words))
    for i, gram in enumerate(zip(*(d.words[i:] for i in range(n)))):
        if gram in seen:
            covered[i:i + n] = b"\1" * n
        seen.add(gram)
    return sum(len(word) for word, inside in zip(d.words, covered) if inside) / d.characters


INFINITY = float("inf")
SCORES = {
    "words": Score(lambda d: len(d.words), 50, 100_000, "gopher"),
    "mean_word_length": Score(lambda d: share(sum(map(len, d.words)), len(d.words)), 3, 10, "gopher"),
    "symbols_to_words": Score(lambda d: share(sum(map(d.text.count, SYMBOLS)), len(d.words)), 0, 0.1, "gopher"),
    "bullet_lines": Score(lambda d: share_of(d.lines, lambda line: line.startswith(BULLETS)), 0, 0.9, "gopher"),
    "ellipsis_lines": Score(lambda d: share_of(d.lines, lambda line: line.endswith(SYMBOLS[1:])), 0, 0.3, "gopher"),
    "alphabetic_words": Score(lambda d: share_of(d.words, lambda word: any(map(str.isalpha, word))), 0.8, 1, "gopher"),
    "stop_words": Score(stop_words, 2, INFINITY, "gopher"),
    "duplicate_lines": Score(lambda d: duplicate_share(d.lines), 0, 0.3, "repetition"),
    "duplicate_paragraphs": Score(lambda d: duplicate_share(d.paragraphs), 0, 0.3, "repetition"),
    "duplicate_line_characters": Score(lambda d: duplicate_characters(d.lines), 0, 0.2, "repetition"),
    "duplicate_paragraph_characters": Score(lambda d: duplicate_characters(d.paragraphs), 0, 0.2, "repetition"),
    **{f"top_{n}_gram_characters": Score(partial(top_ngram_characters, n=n), 0, high, "repetition")
       for n, high in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"duplicate_{n}_gram_characters": Score(partial(duplicate_ngram_characters, n=n), 0, high, "repetition")
       for n, high in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))},
    "sentences": Score(lambda d: len(SENTENCE_END.findall(d.text)), 3, INFINITY, "c4"),
    "curly_braces": Score(lambda d: d.text.count("{"), 0, 0, "c4"),           # pages with them are mostly code
    "lorem_ipsum": Score(lambda d: d.text.lower().count("lorem ipsum"), 0, 0, "c4"),
}


def c4_lines(text: str) -> tuple[str, int]:
    """(text, lines removed) by C4's line rules: keep lines that end like a sentence, have words, and no boilerplate."""
    def is_kept(line: str) -> bool:
        return line.endswith(C4_LINE_END) and len(line.split()) >= C4_LINE_WORDS and not C4_BOILERPLATE.search(line)

    lines = text.splitlines()
    kept = [line for line in lines if not line.strip() or is_kept(line.strip())]
    return "\n".join(kept), len(lines) - len(kept)
