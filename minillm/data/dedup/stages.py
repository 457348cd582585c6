"""The stages of deduplication, each a pure function of the documents' contents: dedup.py runs them in one process with
what does not fit into memory on the disk, cluster.py on many machines.

A document is a row of the table: a digest of its text, its length and a hash of its whole record. Which of equal or similar
documents is the one to keep follows from the row alone: the longest, and of equally long ones that of the least hash.
"""
import hashlib
import json
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field

import numpy as np

from ...tokenizer.fast import count_threads
from ..sources import documents as extract
from . import minhash
from .minhash import Lsh

TABLE = np.dtype([("digest", "<u8", 2), ("bytes", "<i8"), ("tie", "<u8")])      # a document
NEIGHBOURS = 8              # in a large bucket each document is compared with this many, and with the best
LEAST_MEMORY = 2**26
EXAMPLES, MEMBERS, EXCERPT = 12, 4, 160         # clusters in the report, members of each, characters of each
CURVE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
KEPT, EXACT, NEAR, LINES = range(4)
REASONS = {EXACT: "exact duplicate", NEAR: "near-duplicate", LINES: "only repeated lines"}


@dataclass(frozen=True)
class Options:
    """lsh: None finds exact duplicates only. threshold: the Jaccard similarity from which a pair is one, if `verify`;
    without, every pair that shares a band is. lines: N removes lines in more than N kept documents, None leaves them;
    line_characters: shorter lines stay. memory: bytes. threads: None for all cores. field: of a .jsonl with the text.
    """
    lsh: Lsh | None = Lsh(bands=16, rows=8)      # minhash.choose(0.8, miss_weight=minhash.MISS_WEIGHT)
    threshold: float = 0.8
    verify: bool = True
    lines: int | None = None
    line_characters: int = 30
    memory: int = 2**30
    threads: int | None = None
    field: str = "text"

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1: got {self.threshold}")
        if self.lines is not None and self.lines < 1:
            raise ValueError(f"lines must be at least 1: got {self.lines}")
        if self.memory < LEAST_MEMORY:
            raise ValueError(f"memory must be at least {LEAST_MEMORY >> 20} MiB: got {self.memory} bytes")
        count_threads(self.threads)


# ---- signing

def sign_batch(batch: list[tuple[str, str, dict]], options: Options, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """(entries,) uint64 band keys and (entries,) int64 places in the batch; a text without a word is like no other."""
    keys, counts = minhash.band_keys_of([text for _, text, _ in batch], options.lsh, threads)
    some = np.flatnonzero(counts)
    return keys[some].ravel(), np.repeat(some, options.lsh.bands)


def table_rows(batch: list[tuple[str, str, dict]], field: str) -> np.ndarray:
    """(documents,) of TABLE. Digest: of the text with every stretch of white space as one space; tie: of the record."""
    digests, ties, sizes = [], [], []
    for _, text, record in batch:
        data = text.encode()
        others = {name: value for name, value in record.items() if name != field}
        whole = hashlib.blake2b(data, digest_size=8, key=b"tie")
        whole.update(json.dumps(others, sort_keys=True).encode())
        digests.append(hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest())
        ties.append(whole.digest())
        sizes.append(len(data))
    rows = np.empty(len(batch), TABLE)
    rows["digest"] = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    rows["bytes"], rows["tie"] = sizes, np.frombuffer(b"".join(ties), "<u8")
    return rows


# ---- clusters

def copies_of(documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(copies, 2) int64: a better one of the same digest, and the copy; documents and rows (n,) belong together."""
    order = np.lexsort((rows["tie"], -rows["bytes"], rows["digest"][:, 1], rows["digest"][:, 0]))
    documents, digest = documents[order], rows["digest"][order]
    copy = np.flatnonzero((digest[1:] == digest[:-1]).all(axis=1)) + 1
    return np.column_stack([documents[copy - 1], documents[copy]])


def bucket_pairs(keys: np.ndarray, documents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(pairs, 2) int64, the lesser number first: in each bucket, everyone with the NEIGHBOURS before and with the best.

    keys (n,) in ascending order, documents (n,) and their rows of the table (n,).
    In the order of rank, by length, so that neighbours have the best chance to be alike, and a bucket of m gives at most
    (NEIGHBOURS + 1) m pairs; up to NEIGHBOURS + 1 documents that is every pair.
    """
    alone = np.insert(keys[1:] != keys[:-1], 0, True) & np.append(keys[1:] != keys[:-1], True)
    keys, documents, rows = keys[~alone], documents[~alone], rows[~alone]
    order = np.lexsort((rows["tie"], -rows["bytes"], keys))
    keys, documents = keys[order], documents[order]
    start = np.searchsorted(keys, keys)                                 # (n,) where each one's bucket begins
    place = np.arange(len(keys)) - start
    found = [np.column_stack([documents[start], documents])[place > NEIGHBOURS]]
    for step in range(1, NEIGHBOURS + 1):
        later = np.flatnonzero(place >= step)
        found.append(np.column_stack([documents[later - step], documents[later]]))
    return np.sort(np.concatenate(found), axis=1)


def mark_near(table: np.ndarray, state: np.ndarray, parents: np.ndarray) -> None:
    """In each cluster all but the best of those that are still there become NEAR."""
    members = np.flatnonzero(state == KEPT)
    members = members[np.bincount(parents[members], minlength=len(parents))[parents[members]] > 1]
    members = by_rank(table, members, parents[members])
    state[members[1:][parents[members[1:]] == parents[members[:-1]]]] = NEAR


def by_rank(table: np.ndarray, documents: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Group by group, the one to keep first: the longest, of equally long ones the one with the least hash."""
    rows = table[documents]
    return documents[np.lexsort((rows["tie"], -rows["bytes"], groups))]


# ---- repeated lines

def line_hashes(batch: list[tuple[str, str, dict]], chosen: np.ndarray, options: Options) -> np.ndarray:
    """(lines,) uint64 of the chosen documents; chosen: (documents,) bool."""
    return np.array([line_hash(line) for (_, text, _), wanted in zip(batch, chosen) if wanted
                     for line in countable_lines(text, options.line_characters)], np.uint64)


def frequent(hashes: np.ndarray, options: Options) -> np.ndarray:
    distinct, counts = np.unique(hashes, return_counts=True)
    return distinct[counts > options.lines]


def countable_lines(text: str, characters: int) -> set[str]:
    """The distinct lines of a text, without white space around them, that are long enough."""
    return {stripped for line in text.split("\n") if len(stripped := line.strip()) >= characters}


def line_hash(line: str) -> int:
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")


def without_lines(text: str, repeated: set[int], characters: int) -> str:
    """The text less its repeated lines."""
    return "\n".join(line for line in text.split("\n")
                     if len(stripped := line.strip()) < characters or line_hash(stripped) not in repeated)


# ---- output and report

@dataclass
class Written:
    """What became of a batch: JSON lines, numbers of documents without a line left, characters cut, {number: quote}."""
    lines: list[str] = dataclass_field(default_factory=list)
    emptied: list[int] = dataclass_field(default_factory=list)
    cut: int = 0
    quotes: dict[int, dict] = dataclass_field(default_factory=dict)


def outcome(batch: list[tuple[str, str, dict]], first: int, kept: np.ndarray, repeated: set[int] | None, quoted: set[int],
            options: Options) -> Written:
    """first: number of the batch's first document; kept: (documents,) bool."""
    found = Written()
    for number, (name, text, record) in enumerate(batch, first):
        if number in quoted:
            found.quotes[number] = {"name": name, "text": text[:EXCERPT]}
        if not kept[number - first]:
            continue
        if repeated:
            record[options.field] = shorter = without_lines(text, repeated, options.line_characters)
            found.cut += len(text) - len(shorter)
            if not shorter.strip():
                found.emptied.append(number)
                continue
        found.lines.append(json_line(record))
    return found


def json_line(record: dict) -> str:
    line = json.dumps(record, ensure_ascii=False) + "\n"
    if line.isascii() or extract.encodable(line):
        return line
    return json.dumps(record) + "\n"             # half a surrogate pair in another field: spelt as it was, in ASCII


def summary(table: np.ndarray, state: np.ndarray, parents: np.ndarray) -> dict:
    def size(chosen):
        return {"documents": int(chosen.sum()), "bytes": int(table["bytes"][chosen].sum())}

    sizes = np.bincount(np.bincount(parents))[1:]                       # clusters of 1, 2, 3, ... documents
    return {"read": size(state >= 0), "kept": size(state == KEPT),
            "dropped": {reason: size(state == code) for code, reason in REASONS.items()},
            "clusters": {str(members): int(count) for members, count in enumerate(sizes, 1) if count and members > 1}}


def example_clusters(table: np.ndarray, parents: np.ndarray) -> list[dict]:
    """The largest clusters and, by hash, some of the others: {"documents": size, "members": numbers, the kept first}."""
    sizes = np.bincount(parents, minlength=len(parents))
    roots = np.flatnonzero(sizes > 1)
    by_size = roots[np.lexsort((table["tie"][roots], -sizes[roots]))]
    by_hash = roots[np.argsort(table["tie"][roots])]
    chosen = list(dict.fromkeys([*by_size[:EXAMPLES // 2].tolist(), *by_hash[:EXAMPLES].tolist()]))[:EXAMPLES]
    members = np.flatnonzero(np.isin(parents, chosen))
    members = by_rank(table, members, parents[members])
    return [{"documents": int(sizes[root]), "members": members[parents[members] == root][:MEMBERS].tolist()}
            for root in chosen]


def described(options: Options) -> dict:
    """The options, and what they promise: how likely a pair of some similarity is to be looked at."""
    facts = {name: value for name, value in asdict(options).items() if name != "threads"}
    if options.lsh:
        facts["found"] = {str(similarity): round(float(options.lsh.found(similarity)), 4) for similarity in CURVE}
    return facts
