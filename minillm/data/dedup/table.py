"""The table of documents that deduplication works on: a row a document, which decides by itself who is kept.

A row holds a digest of the text, its length and a hash of the whole record. Of equal or similar documents the longest
is kept, of equally long ones that of the least hash: a function of the contents alone, not of the order of the input.
"""
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from ...config import check_counts, check_field
from ...tokenizer.fast import count_threads
from ..batches import Records
from .minhash import Lsh

TABLE = np.dtype([("digest", "<u8", 2), ("bytes", "<i8"), ("tie", "<u8")])      # a document
LEAST_MEMORY = 2**26
KEPT, EXACT, NEAR, LINES = range(4)             # what became of a document


@dataclass(frozen=True)
class DedupOptions:
    """lsh: None finds exact duplicates only. threshold: the Jaccard similarity from which a pair is one, if `verify`;
    without, every pair that shares a band is. lines: N removes lines in more than N kept documents, None leaves them;
    line_dedup: of a line's copies in all kept documents only the first stays; line_characters: shorter lines stay.
    memory: bytes. threads: None for all cores. field: of a .jsonl with the text. all_text: of a web page, not its main
    text alone.
    """
    lsh: Lsh | None = Lsh(bands=16, rows=8)      # minhash.choose(0.8, miss_weight=minhash.MISS_WEIGHT)
    threshold: float = 0.8
    verify: bool = True
    lines: int | None = None
    line_characters: int = 30
    memory: int = 2**30
    threads: int | None = None
    field: str = "text"
    line_dedup: bool = False
    all_text: bool = False

    def __post_init__(self) -> None:
        check_field("threshold", self.threshold, float, lambda v: 0 < v <= 1, "above 0 and at most 1")
        check_counts(lines=1 if self.lines is None else self.lines)
        if self.lines is not None and self.line_dedup:
            raise ValueError("lines and line_dedup exclude each other: the one removes all copies of a line, the other "
                             "all but the first")
        check_counts(0, line_characters=self.line_characters)
        if self.memory < LEAST_MEMORY:
            raise ValueError(f"memory must be at least {LEAST_MEMORY >> 20} MiB: got {self.memory} bytes")
        count_threads(self.threads)


def table_rows(batch: Records, field: str) -> np.ndarray:
    """(documents,) of TABLE. digest: of the text with every run of white space as one space; tie: of the record."""
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


def by_rank(table: np.ndarray, documents: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Group by group, the one to keep first: the longest, of equally long ones the one with the least hash."""
    rows = table[documents]
    return documents[np.lexsort((rows["tie"], -rows["bytes"], groups))]
