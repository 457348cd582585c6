"""MinHash and locality-sensitive hashing: find similar documents without comparing all pairs.

A document is the set of its shingles, every n words (or characters) in a row, and two documents are as similar as
their Jaccard similarity s = |A and B| / |A or B|. Under a random permutation of all shingles, the least element of A is
that of B with probability s (Broder, "On the resemblance and containment of documents", 1997); a signature keeps the
least under K permutations. Cut into b bands of r values, two signatures agree in all of a band with probability

    found = 1 - (1 - s^r)^b

an S-curve that rises near s = (1/b)^(1/r) (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3). So
only documents that share a band's key need to be compared.

The permutations are h -> a h + b modulo 2^32, a odd, of a well mixed 32-bit hash h of the shingle. They are bijections,
so two sets agree just when they share the least element, and a multiplication, an addition and a minimum do 16 of them
at once in AVX-512. For sets of random h this family is min-wise independent up to a vanishing error (Bohman, Cooper,
Frieze, "Min-wise independent linear permutations", 2000); the tests measure it. One-permutation hashing with
densification (Shrivastava 2017) needs one function a shingle instead of K, but its values are not independent, and
short documents cost an extra pass; with vectors K = 128 permutations cost less than finding the words.

Everything here is the readable definition, and what calls the C++ (csrc/data), which gives the same integers.
"""
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from ...config import check_field
from ...tokenizer import fast

MASK = 2**64 - 1
MULTIPLIER, BASE = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
UNITS = ("words", "characters")
UP_TO_65536 = (lambda value: 1 <= value <= 2**16, "an integer from 1 to 65536")
WORD = re.compile("[0-9a-z\x80-\U0010ffff]+")
# Beyond ASCII everything belongs to words but the marks and spaces that are common between them.
SEPARATORS = re.compile("[\x80-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u060c\u061b\u061f\u0964\u0965\u2000-\u206f"
                        "\u2e00-\u2e7f\u3000-\u3003\u3008-\u3011\u3014-\u301f\u3030\u30fb\ufeff]+")


@dataclass(frozen=True)
class Lsh:
    """What documents are cut into and how they are compared; `choose` makes one from a threshold.

    ngram: units in a shingle; bands, rows: of the signature of bands x rows values; seed: of the permutations.
    """
    bands: int
    rows: int
    ngram: int = 5
    unit: str = "words"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bands", "rows", "ngram"):
            check_field(name, getattr(self, name), int, *UP_TO_65536)
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}: got {self.unit!r}")

    @property
    def permutations(self) -> int:
        return self.bands * self.rows

    def found(self, similarity: ArrayLike) -> np.ndarray:
        """The S-curve: the probability that two documents of this Jaccard similarity share a band."""
        return 1 - (1 - np.asarray(similarity, np.float64)**self.rows)**self.bands


MISS_WEIGHT = 0.95      # of `choose`, when pairs are verified: a false one costs a comparison, a missed one stays


def choose(threshold: float = 0.8, permutations: int = 128, miss_weight: float = 0.5, **options: Any) -> Lsh:
    """The bands and rows, of at most `permutations` values, whose S-curve is nearest to a step at `threshold`.

    Minimises (1 - miss_weight) x the area under the curve below the threshold + miss_weight x the area over it above:
    datasketch's criterion (Zhu, github.com/ekzhu/datasketch, MinHashLSH). `options` are Lsh's others.
    Raises ValueError for a threshold or weight outside (0, 1), or no permutations.
    """
    for name, value in (("threshold", threshold), ("miss_weight", miss_weight)):
        check_field(name, value, float, lambda v: 0 < v < 1, "between 0 and 1")
    check_field("permutations", permutations, int, *UP_TO_65536)
    nodes, weights = np.polynomial.legendre.leggauss(64)            # exact for polynomials of a degree up to 127
    below, above = threshold * (nodes + 1) / 2, threshold + (1 - threshold) * (nodes + 1) / 2
    best = (np.inf, 0, 0)
    for bands in range(1, permutations + 1):
        rows = np.arange(1, permutations // bands + 1)[:, None]     # (choices, 1)
        wrong = (1 - (1 - below**rows)**bands) @ weights * threshold / 2
        missed = (1 - above**rows)**bands @ weights * (1 - threshold) / 2
        error = (1 - miss_weight) * wrong + miss_weight * missed    # (choices,)
        best = min(best, (error.min(), bands, int(error.argmin()) + 1))
    return Lsh(best[1], best[2], **options)


# ---- the definition

def fold(text: str) -> str:
    """What must be done before C++ takes over, which knows ASCII only: compatibility forms, case, separators."""
    if text.isascii():
        return text
    return SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).lower())


def shingles(text: str, ngram: int = 5, unit: str = "words") -> np.ndarray:
    """(shingles,) uint64 hashes in their order, with repeats; one of all items if they are fewer, none of none."""
    words = WORD.findall(fold(text).lower())
    items = [item_hash(word.encode()) for word in words] if unit == "words" else [
        fold_in(BASE, ord(character)) for character in " ".join(words)]
    if not items:
        return np.empty(0, np.uint64)
    n = min(ngram, len(items))
    powers = np.array([pow(BASE, n - 1 - i, 2**64) for i in range(n)], np.uint64)
    windows = sliding_window_view(np.array(items, np.uint64), n)    # (shingles, n)
    return mix64((windows * powers).sum(axis=1, dtype=np.uint64))


@lru_cache(2**16)
def item_hash(word: bytes) -> int:
    """Eight bytes at a time, little-endian, the last filled up with zeros."""
    value = BASE
    for start in range(0, len(word), 8):
        value = fold_in(value, int.from_bytes(word[start:start + 8], "little"))
    return value


def fold_in(value: int, more: int) -> int:
    value = (value ^ more) * MULTIPLIER & MASK
    return value ^ value >> 32


def mix64(h: np.ndarray) -> np.ndarray:
    """MurmurHash3's finaliser (Appleby) on uint64: a bijection in which each bit counts for every bit."""
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


def permutation_coefficients(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count,) uint32 multipliers a, all odd, and (count,) uint32 addends b, from a hash of the seed and place."""
    places = np.arange(2 * count, dtype=np.uint64) + np.uint64(item_hash(f"permutations {seed}".encode()))
    random = (mix64(places * np.uint64(MULTIPLIER)) >> np.uint64(32)).astype(np.uint32)
    return random[:count] | np.uint32(1), random[count:]


def signature(hashes: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(K,) uint32 from (shingles,) uint64: the least a h + b of each permutation; all ones for no shingles."""
    h = (hashes >> np.uint64(32)).astype(np.uint32)
    values = h[:, None] * a + b                                      # (shingles, K), modulo 2^32
    return values.min(axis=0, initial=np.uint32(2**32 - 1))


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """(documents, bands) uint64 from (documents, K) uint32: a hash of the band's number and its rows values."""
    values = signatures[:, :bands * rows].reshape(len(signatures), bands, rows).astype(np.uint64)
    keys = np.array([[fold_in(BASE, band) for band in range(bands)]], np.uint64).repeat(len(values), axis=0)
    for row in range(rows):
        keys = (keys ^ values[:, :, row]) * np.uint64(MULTIPLIER)
        keys ^= keys >> np.uint64(32)
    return mix64(keys)


def jaccard_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets given as arrays of distinct elements; 0 for two empty ones."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / max(1, len(a) + len(b) - both)


def united(parents: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(n,) the least member of everyone's cluster, after joining (pairs, 2) to the clusters in `parents`."""
    above = parents.tolist()

    def root(i: int) -> int:
        while above[i] != i:
            above[i] = i = above[above[i]]
        return i

    for left, right in pairs.tolist():
        left, right = root(left), root(right)
        above[max(left, right)] = min(left, right)
    return np.array([root(i) for i in range(len(above))], np.int64)


# ---- many documents at once, in C++ where it is built

load_core = partial(fast.load_extension, name="data")             # (backend) -> the extension, or None for Python


def signatures_of(texts: list[str], lsh: Lsh, threads: int = 1, backend: str = "auto",
                  isa: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """(documents, K) uint32 signatures and (documents,) int64 numbers of shingles, 0 for a text without a word."""
    a, b = permutation_coefficients(lsh.permutations, lsh.seed)
    core = load_core(backend)
    if core:
        return core.signatures([fold(text) for text in texts], lsh.ngram, lsh.unit == "characters", a, b, threads, isa)
    found = [shingles(text, lsh.ngram, lsh.unit) for text in texts]
    return (np.array([signature(hashes, a, b) for hashes in found], np.uint32).reshape(-1, lsh.permutations),
            np.array([len(hashes) for hashes in found], np.int64))


def band_keys_of(texts: list[str], lsh: Lsh, threads: int = 1, backend: str = "auto",
                 isa: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """(documents, bands) uint64 keys and (documents,) int64 numbers of shingles."""
    core = load_core(backend)
    if core:
        a, b = permutation_coefficients(lsh.permutations, lsh.seed)
        return core.band_keys([fold(text) for text in texts], lsh.ngram, lsh.unit == "characters", a, b, lsh.bands,
                              lsh.rows, threads, isa)
    signatures, counts = signatures_of(texts, lsh, backend=backend)
    return band_keys(signatures, lsh.bands, lsh.rows), counts


def shingle_sets(texts: list[str], lsh: Lsh, threads: int = 1, backend: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """(total,) uint64: each text's distinct shingles, sorted, and (texts + 1,) int64: where each text's begin."""
    core = load_core(backend)
    if core:
        return core.shingle_sets([fold(text) for text in texts], lsh.ngram, lsh.unit == "characters", threads)
    sets = [np.unique(shingles(text, lsh.ngram, lsh.unit)) for text in texts]
    return (np.concatenate([np.empty(0, np.uint64), *sets]),
            np.concatenate([[0], np.cumsum([len(one) for one in sets], dtype=np.int64)]).astype(np.int64))


def similarities(hashes: np.ndarray, offsets: np.ndarray, pairs: np.ndarray, threads: int = 1,
                 backend: str = "auto") -> np.ndarray:
    """(pairs,) float64 exact Jaccard similarities of (pairs, 2) int64 places in what `shingle_sets` gave."""
    core = load_core(backend)
    if core:
        return core.jaccard(hashes, offsets, np.ascontiguousarray(pairs, np.int64), threads)
    sets = [hashes[start:end] for start, end in pairwise(offsets)]
    return np.array([jaccard_similarity(sets[left], sets[right]) for left, right in pairs], np.float64)


def unite(parents: np.ndarray, pairs: np.ndarray, backend: str = "auto") -> None:
    """`united`, in place: `parents` (n,) int64."""
    core = load_core(backend)
    if core:
        core.unite(parents, np.ascontiguousarray(pairs, np.int64))
    else:
        parents[:] = united(parents, pairs)
