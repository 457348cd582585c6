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

    def __init__(self, text):
        self.text, self.words = text, text.split()
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
        self.characters = max(1, sum(map(len, self.words)))


def share(some, total):
    return some / total if total else 0.0


# ---- Gopher: quality ----

def words(d):
    return len(d.words)


def mean_word_length(d):
    return share(sum(map(len, d.words)), len(d.words))


def symbols_to_words(d):
    """Hash marks and ellipses for each word."""
    return share(d.text.count("#") + d.text.count("...") + d.text.count("…"), len(d.words))


def bullet_lines(d):
    return share(sum(line.startswith(BULLETS) for line in d.lines), len(d.lines))


def ellipsis_lines(d):
    return share(sum(line.endswith(("...", "…")) for line in d.lines), len(d.lines))


def alphabetic_words(d):
    """Share of words with at least one letter."""
    return share(sum(any(map(str.isalpha, word)) for word in d.words), len(d.words))


def stop_words(d):
    """How many different ones of eight words that no English text does without (Gopher asks for two)."""
    return len(STOP_WORDS & {word.lower().strip(".,;:!?\"'()") for word in d.words})


# ---- Gopher: repetition ----

def duplicates(items):
    """The repeats: each item that occurred before."""
    counts = Counter(items)
    return [item for item, count in counts.items() for _ in range(count - 1)]


def duplicate_lines(d):
    return share(len(duplicates(d.lines)), len(d.lines))


def duplicate_paragraphs(d):
    return share(len(duplicates(d.paragraphs)), len(d.paragraphs))


def duplicate_line_characters(d):
    return share(sum(map(len, duplicates(d.lines))), sum(map(len, d.lines)))


def duplicate_paragraph_characters(d):
    return share(sum(map(len, duplicates(d.paragraphs))), sum(map(len, d.paragraphs)))


def top_ngram_characters(d, n):
    """Share of the characters that are in the n-gram which covers most of the text; 0 if none occurs twice."""
    counts = Counter(zip(*(d.words[i:] for i in range(n))))
    return max((sum(map(len, gram)) * count for gram, count in counts.items() if count > 1), default=0) / d.characters


def duplicate_ngram_characters(d, n):
    """Share of the characters in n-grams that occurred before; a word in two of them counts once."""
    seen, covered = set(), bytearray(len(d.words))
    for i, gram in enumerate(zip(*(d.words[i:] for i in range(n)))):
        if gram in seen:
            covered[i:i + n] = b"\1" * n
        seen.add(gram)
    return sum(len(word) for word, inside in zip(d.words, covered) if inside) / d.characters


# ---- C4, on the whole document ----

def sentences(d):
    return len(SENTENCE_END.findall(d.text))


def curly_braces(d):
    """Pages with them are mostly code."""
    return d.text.count("{")


def lorem_ipsum(d):
    return d.text.lower().count("lorem ipsum")


INFINITY = float("inf")
SCORES = {
    "words": Score(words, 50, 100_000, "gopher"),
    "mean_word_length": Score(mean_word_length, 3, 10, "gopher"),
    "symbols_to_words": Score(symbols_to_words, 0, 0.1, "gopher"),
    "bullet_lines": Score(bullet_lines, 0, 0.9, "gopher"),
    "ellipsis_lines": Score(ellipsis_lines, 0, 0.3, "gopher"),
    "alphabetic_words": Score(alphabetic_words, 0.8, 1, "gopher"),
    "stop_words": Score(stop_words, 2, INFINITY, "gopher"),
    "duplicate_lines": Score(duplicate_lines, 0, 0.3, "repetition"),
    "duplicate_paragraphs": Score(duplicate_paragraphs, 0, 0.3, "repetition"),
    "duplicate_line_characters": Score(duplicate_line_characters, 0, 0.2, "repetition"),
    "duplicate_paragraph_characters": Score(duplicate_paragraph_characters, 0, 0.2, "repetition"),
    **{f"top_{n}_gram_characters": Score(partial(top_ngram_characters, n=n), 0, high, "repetition")
       for n, high in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"duplicate_{n}_gram_characters": Score(partial(duplicate_ngram_characters, n=n), 0, high, "repetition")
       for n, high in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))},
    "sentences": Score(sentences, 3, INFINITY, "c4"),
    "curly_braces": Score(curly_braces, 0, 0, "c4"),
    "lorem_ipsum": Score(lorem_ipsum, 0, 0, "c4"),
}


# ---- lines ----

def c4_lines(text):
    """(text, lines removed) by C4's line rules: keep lines that end like a sentence, have words, and no boilerplate."""
    lines = text.splitlines()
    kept = [line for line in lines if not line.strip() or is_c4_line(line.strip())]
    return "\n".join(kept), len(lines) - len(kept)


def is_c4_line(line):
    return line.endswith(C4_LINE_END) and len(line.split()) >= C4_LINE_WORDS and not C4_BOILERPLATE.search(line)
