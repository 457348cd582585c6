"""Training byte-pair encoding: learning the merges (Sennrich, Haddow, Birch 2016, on bytes).

Start from 256 one-byte tokens. Again and again take the pair of neighbouring tokens that occurs most often, make it
one new token, and replace it everywhere. Three ideas make this quick:

    distinct words   A corpus is a bag of words, each held once with its count.
    index            words_with[pair] names the words to rewrite, so a merge touches only those.
    lazy heap        A merge only lowers the counts of older pairs, and every pair it creates holds the new token.
                     So an entry of the heap never promises too little: if the top one is out of date, it goes back
                     with its true count; if not, it is the maximum.

Ties, of pairs with equal counts:
    ids     the one with the smaller ids (first part, then second part), as in Hugging Face's BpeTrainer and gigatoken;
            ids are given in the order of GPT-2's byte table, then of creation
    values  the same, but with a single byte's value for its id, as in rustbpe: the space, 32, comes before letters,
            while in GPT-2's table it is 220. About one merge in a thousand trades places for it
    bytes   the one whose bytes are greater (first part, then second part), the rule of most textbooks
Pairs seen once are merged too if the vocabulary has room.

This is the specification of csrc/text/train.h: both give identical merges.
"""
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise
from pathlib import Path

from .formats import BYTE_ORDER
from .merge import Pair, merge_pair
from .pretokenize import PIECE, compile_pattern, safe_pieces, split_special

Corpus = str | Path | Iterable[str | Path]      # a text, a UTF-8 file, or a series of either
TIES = ("ids", "values", "bytes")
BYTE_ID = {byte: i for i, byte in enumerate(BYTE_ORDER)}


def count_words(files_or_texts: Corpus, pattern: str, specials: frozenset[str]) -> Counter[str]:
    """Count the distinct words of the corpus; memory grows with those only. Special tokens' texts are left out."""
    find_words = compile_pattern(pattern).findall
    counts: Counter[str] = Counter()
    for chunks in documents(files_or_texts):
        for piece in safe_pieces(chunks, specials, pattern):
            for segment, is_special in split_special(piece, specials):
                if not is_special:
                    counts.update(find_words(segment))
    return counts


def documents(files_or_texts: Corpus) -> Iterator[Iterable[str]]:
    """Each document as an iterable of chunks: a str is a text, a Path a UTF-8 file, anything else a series of them."""
    if isinstance(files_or_texts, (str, Path)):
        files_or_texts = [files_or_texts]
    if not isinstance(files_or_texts, Iterable):
        raise ValueError(f"files_or_texts must be texts or files: got {type(files_or_texts).__name__}")
    for item in files_or_texts:
        if isinstance(item, str):
            yield [item]
        elif isinstance(item, Path):
            yield read_chunks(item)
        else:
            raise ValueError(f"files_or_texts must hold str texts and pathlib.Path files: got {type(item).__name__}")


def read_chunks(path: Path) -> Iterator[str]:
    """A text file piece by piece, newlines as they are. Raises ValueError naming the file if it is not UTF-8."""
    with open(path, encoding="utf-8", newline="") as file:
        try:
            while chunk := file.read(PIECE):
                yield chunk
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text: {error.reason}") from None


def learn_merges(counts: dict[str, int], n_merges: int, progress: Callable | None = None, ties: str = "ids"
                 ) -> list[Pair]:
    """The first `n_merges` merges as pairs of ids; merge k makes token 256 + k. Fewer if no pair is left."""
    key_of = TieOrder(ties)
    words = [[BYTE_ID[byte] for byte in word.encode("utf-8")] for word in counts]
    word_counts = list(counts.values())
    pair_counts, words_with = index_pairs(words, word_counts)
    heap: list = [(-count, key_of(pair), pair) for pair, count in pair_counts.items()]
    heapify(heap)
    merges: list[Pair] = []
    while len(merges) < n_merges and (pair := pop_most_frequent(heap, pair_counts)):
        new = 256 + len(merges)
        merges.append(pair)
        key_of.learn(pair)
        created: set[Pair] = set()
        for i in words_with.pop(pair):
            created |= rewrite(words, i, pair, new, word_counts[i], pair_counts, words_with)
        for fresh in created:
            heappush(heap, (-pair_counts[fresh], key_of(fresh), fresh))
        if progress and len(merges) % 64 == 0:
            progress(len(merges), n_merges)
    if progress:
        progress(len(merges), len(merges))
    return merges


class TieOrder:
    """Called with a pair, gives what sorts equal counts: the pair that is to be merged first has the smallest."""

    def __init__(self, ties: str):
        if ties not in TIES:
            raise ValueError(f"ties must be one of {', '.join(TIES)}: got {ties!r}")
        self.ties = ties
        self.keys: list = list(range(256))                              # by id
        if ties == "values":
            self.keys = list(BYTE_ORDER)
        if ties == "bytes":
            self.keys = [(-byte, 1) for byte in BYTE_ORDER]             # negated: the greater bytes come first ...

    def learn(self, pair: Pair) -> None:
        """The next id stands for this pair."""
        first, second = (self.keys[id] for id in pair)
        self.keys.append(first[:-1] + second if self.ties == "bytes" else len(self.keys))

    def __call__(self, pair: Pair) -> tuple:
        return self.keys[pair[0]], self.keys[pair[1]]                   # ... and by their end, 1, the longer ones


def index_pairs(words: list[list[int]], word_counts: list[int]) -> tuple[dict[Pair, int], dict[Pair, set[int]]]:
    """How often each pair occurs, and the indices of the words it occurs in."""
    pair_counts: dict[Pair, int] = defaultdict(int)
    words_with: dict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += word_counts[i]
            words_with[pair].add(i)
    return pair_counts, words_with


def pop_most_frequent(heap: list, pair_counts: dict[Pair, int]) -> Pair | None:
    """Take the pair with the highest true count off the heap; None when every pair is gone."""
    while heap:
        promised, key, pair = heap[0]
        count = pair_counts.get(pair, 0)
        if count == -promised:
            return heappop(heap)[2]
        if count:
            heapreplace(heap, (-count, key, pair))
        else:
            heappop(heap)
    return None


def rewrite(words: list[list[int]], i: int, pair: Pair, new: int, count: int, pair_counts: dict[Pair, int],
            words_with: dict[Pair, set[int]]) -> set[Pair]:
    """Merge `pair` in word i and bring the counts and the index up to date; returns the pairs that hold `new`."""
    old = words[i]
    words[i] = word = merge_pair(old, pair, new)
    if len(word) == len(old):       # an earlier merge had already taken the pair out of this word
        return set()
    for gone in pairwise(old):
        pair_counts[gone] -= count
        if not pair_counts[gone]:
            del pair_counts[gone]
    created = set()
    for here in pairwise(word):
        pair_counts[here] += count
        if new in here:
            words_with[here].add(i)
            created.add(here)
    return created
